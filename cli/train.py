"""`infimed train`: a recipe becomes an adapter, an adapter a checkpoint. Knows how to ask and how to tell, no model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .. import InfimedError
from . import train_base
from .progress import drawn

if TYPE_CHECKING:
    from ..training.merge import Check

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Fine-tune an adapter and merge it.")


@app.command()
def sft(
    recipe: Annotated[str, typer.Argument(help="A TOML recipe, or the name of one that the package brings.")],
    data: Annotated[Path, typer.Option("--data", help="A dataset folder with roles.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The adapter's folder; it must not exist.", show_default=False)],
    base: Annotated[
        Path | None, typer.Option("--base", help="The checkpoint to adapt; default the embedded base model.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads; default all.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda; bfloat16 on cuda.")] = "auto",
    save_every: Annotated[int, typer.Option("--save-every", min=1, help="Steps between saved states.")] = 50,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what a broken run left, begin anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the adapter comes from as JSON.")] = False,
) -> None:
    """Train a LoRA adapter by a recipe.

    A run that was stopped or killed goes on from its last saved state when the same command is given again, to the
    same bytes.
    """
    from ..training.adapter import embedded_base
    from ..training.recipe import find_recipe
    from ..training.sft import train_sft

    found = find_recipe(recipe)
    with drawn() as on_event:
        adapter = train_sft(
            found,
            data=data,
            base=base or embedded_base(),
            out=out,
            threads=threads or _processors(),
            device=device,
            save_every_steps=save_every,
            restart=restart,
            on_event=on_event,
        )
    told = asdict(_known(adapter.provenance))
    if as_json:
        typer.echo(json.dumps({"adapter": str(out), "sha256": adapter.sha256, **told}, indent=2))
        return
    measured = told["attest"]
    typer.echo(
        f"adapter: {out}  rank {adapter.rank}, {measured['steps']} steps over {measured['examples']:,} examples, "
        f"loss {measured['loss_of_last_tenth']:.4f} over the last tenth"
    )


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="The folder that `infimed train sft` wrote.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint's folder; it must not exist.", show_default=False)],
    base: Annotated[
        Path | None, typer.Option("--base", help="Where the base lies, if not where the adapter says.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="bfloat16, float16 or float32; default the base's own type.")
    ] = None,
    check: Annotated[
        str,
        typer.Option(
            "--check",
            help="model: whole models answer; layers: each layer's outputs, in little memory; auto: model up to 2 GiB.",
        ),
    ] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads; default all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Merge an adapter into its base and hold the result against base plus adapter.

    Exit code 1, and no checkpoint, where the merged weights answer otherwise than the adapter does. What rounding to
    the stored type changed is printed and kept in the checkpoint's infimed.json.
    """
    from ..training.merge import CHECKS, merge_adapter

    if check not in CHECKS:
        raise InfimedError(f"check {check!r} is unknown; choose one of {', '.join(CHECKS)}")
    with drawn() as on_event:
        made = merge_adapter(
            adapter,
            out,
            base=base,
            dtype=dtype,
            check=cast("Check", check),
            threads=threads or _processors(),
            on_event=on_event,
        )
    attest = _known(made.provenance).attest
    if as_json:
        typer.echo(json.dumps({"checkpoint": str(out), "sha256": made.sha256, **attest}, indent=2))
        return
    for line in _model_lines(attest) if attest["check"] == "model" else _layer_lines(attest):
        typer.echo(line)
    typer.echo(f"checkpoint: {out}")


def _model_lines(attest: Mapping[str, Any]) -> tuple[str, ...]:
    merged, stored, rounding = attest["merged"], attest["stored"], attest["rounding"]
    return (
        f"merged in float32   largest logit difference to base + adapter {merged['max_abs_logit']:.1e}",
        f"as stored ({rounding['dtype']})    largest logit difference {stored['max_abs_logit']:.1e}, "
        f"mean KL {stored['kl_mean_nats']:.1e} nats, top-1 {stored['top1']:.1%} over {stored['rows']:,} rows",
    )


def _layer_lines(attest: Mapping[str, Any]) -> tuple[str, ...]:
    found, rounding = attest["layers"], attest["rounding"]
    return (
        f"merged in float32   {found['layers']} layers, {found['outputs']:,} outputs; largest difference to base + "
        f"adapter {found['merged_of_limit']:.2f} of what rounding explains",
        f"as stored ({rounding['dtype']})    of what the adapter adds, rounding lost {found['update_lost_median']:.1%} "
        f"(median of the layers), at most {found['update_lost_largest']:.1%}",
        f"untouched           {found['untouched']} other tensors are the base's",
    )


def _known(provenance: Any) -> Any:
    if provenance is None:
        raise InfimedError("the product has no infimed.json; make it again")
    return provenance


def _processors() -> int:
    return len(os.sched_getaffinity(0))


app.command()(train_base.base)
app.command()(train_base.card)
