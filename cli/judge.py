"""`infimed judge`: a model at an OpenAI-compatible address is asked about reasoning. Knows no rule and no figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import InfimedError
from .progress import drawn


def judge(
    runs: Annotated[Path, typer.Argument(help="What `infimed evaluate` wrote.", show_default=False)],
    url: Annotated[str, typer.Option("--url", help="An OpenAI-compatible address, such as http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option("--model", help="The judge's name at that address.")],
    run: Annotated[
        list[str] | None,
        typer.Option("--run", help="A run to judge; again for more; default all that reason.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Ask a judge what runs' reasoning names and whether answers follow from it; `infimed drift` tells it apart.

    Questions, options, what is known of the item and the replies are sent to the address; no image and no key is.
    Nothing is sent unless this command is given. A broken run goes on where it stopped.
    """
    from ..evaluation.prediction import complete_runs, read_run
    from ..evaluation.rationale import parted
    from ..evaluation.rationale_judge import judge as ask_about
    from ..evaluation.rationale_judge import openai_ask

    ask = openai_ask(url, model)
    found = [read_run(runs, name) for name in run or complete_runs(runs)]
    if not run:
        found = [one for one in found if any(parted(row.generated or "")[0] for row in one.predictions)]
    if not found:
        raise InfimedError(f"{runs} holds no run with reasoning; evaluate with --generate and a model that reasons")
    with drawn() as on_event:
        judged = [ask_about(runs, one, model, ask, on_event) for one in found]
    counts = {one.run: {"replies": len(one.rows), "unread": sum(not row.read for row in one.rows)} for one in judged}
    if as_json:
        typer.echo(json.dumps({"model": model, "runs": counts}, indent=2))
        return
    for name, count in counts.items():
        typer.echo(f"judged: {name}  {count['replies']:,} replies, {count['unread']:,} of the judge's answers unread")
