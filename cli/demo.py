"""`infimed demo`: the whole chain on the embedded model and drawn phantoms, with the very calls the verbs make.

Knows the order of the steps and how to tell them; every figure comes from the rooms below.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from .. import InfimedError
from .progress import drawn, time_text

MARK = ".infimed-demo"
OUT = Path("demo-out")


def demo(
    out: Annotated[Path, typer.Option("--out", help="Where all goes; an earlier demo there is replaced.")] = OUT,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads; default all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON, all else on stderr.")] = False,
) -> None:
    """Show the whole chain on the embedded model: no download, no GPU.

    A small vision-language model learns a modality it has never seen, is merged, exported to GGUF and ONNX levels, run
    by both engines, and judged for drift. Exit code 1 if one of the demo's checks does not hold. The images are drawn
    phantoms: nothing here says anything about patients.
    """
    from .demo_steps import Chain

    def say(text: str, bold: bool = False) -> None:
        # not typer.echo: it writes past the redirection that keeps words and stages apart on a terminal
        stream = sys.stderr if as_json else sys.stdout
        print(typer.style(text, bold=True) if bold and stream.isatty() else text, file=stream, flush=True)

    began_s = time.monotonic()
    with drawn(brief=True) as on_event:
        chain = Chain(out, on_event, threads)
        _prepare(out)
        for number, (title, step) in enumerate(chain.steps, 1):
            say(f"\n{number}/{len(chain.steps)}  {title}", bold=True)
            for line in step():
                say(f"     {line}")
    say("\nChecks", bold=True)
    for check in chain.checks:
        say(f"     {check.verdict:8}{check.what}\n{'':13}{check.told}")
    say(f"\nreport   {chain.report_page}")
    say(f"bundle   {chain.bundle}")
    say(f"time     {time_text(time.monotonic() - began_s)}")
    if as_json:
        typer.echo(json.dumps([vars(check) for check in chain.checks], indent=2))
    if any(check.verdict == "FAILED" for check in chain.checks):
        raise typer.Exit(1)


def _prepare(out: Path) -> None:
    """Empty the folder of an earlier demo; refuse any other folder with something in it."""
    if out.is_symlink():
        raise InfimedError(f"{out} is a link; name the folder itself with --out")
    if out.is_dir() and (out / MARK).is_file():
        shutil.rmtree(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InfimedError(f"{out} holds something that is no demo; name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text("made by `infimed demo`, which may replace this folder\n")
