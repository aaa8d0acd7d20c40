"""`infimed build`: the engines of a TensorRT level, built where they will run. Knows how to ask and how to tell."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .printable import printable
from .progress import drawn


def build(
    bundle: Annotated[Path, typer.Argument(help="The folder that `infimed export` wrote.", show_default=False)],
    level: Annotated[str, typer.Option("--level", help="A TensorRT level, such as tensorrt-fp16.", show_default=False)],
    compute_capability: Annotated[
        str | None,
        typer.Option("--for", help="Another GPU's compute capability, such as 8.6; needs TensorRT for RTX, no GPU."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where plans are kept; by default the user's cache folder.")
    ] = None,
    weight_streaming: Annotated[
        bool, typer.Option("--weight-streaming", help="Let engines keep weights in host memory; slower.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print paths and sizes as JSON.")] = False,
) -> None:
    """Build a level's TensorRT engines by its recipe, for this machine's GPU.

    The bundle is verified first. An engine belongs to one TensorRT version and one kind of GPU; a record beside it says
    which, and what is built already is not built again. infimed builds engines and does not run them yet: `infimed run`
    on such a level computes its graph in onnxruntime.
    """
    from ..runtime.bundle import Bundle
    from ..runtime.tensorrt_level import build_level

    opened = Bundle.open(bundle)
    with drawn() as on_event:
        made = list(
            build_level(
                opened,
                level,
                folder=out,
                compute_capability=compute_capability,
                weight_streaming=weight_streaming,
                on_event=on_event,
            )
        )
    if as_json:
        typer.echo(json.dumps([{**asdict(one), "plan": str(one.plan)} for one in made], indent=2))
        return
    for one in made:
        target = f"compute capability {one.compute_capability}" if one.compute_capability else "no GPU by name"
        told = "built" if one.fresh else "built already"
        typer.echo(f"{one.network:8}{one.size_bytes / 1e6:>9.2f} MB  {target}, {one.library} {one.version}: {told}")
        typer.echo(f"         {printable(str(one.plan))}")
