"""`infimed drift`: the verdict on runs, or before any run a plan of what a dataset can certify. Knows no statistics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import InfimedError
from .progress import drawn
from .reference import reference_run

if TYPE_CHECKING:
    from ..evaluation.drift_report import DriftReport, Margins
    from ..evaluation.plan import Assumed

CODES = {"PASS": 0, "FAIL": 1, "NOT ENOUGH ITEMS": 4, "REFERENCE NOT COMPETENT": 5}  # 2 and 3 are every verb's errors


def drift(
    runs: Annotated[
        Path | None,
        typer.Argument(help="What `infimed evaluate` wrote; not with --plan.", show_default=False),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            help="The run that the others are held against, or a reference store's file (infimed evaluate "
            "--reference-store), whose runs are then laid into RUNS.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder of the report; with --plan the plan's file.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="The dataset of the runs: the page then shows the images of its flips."),
    ] = None,
    recompute: Annotated[
        Path | None,
        typer.Option("--recompute", help="Make this report again from RUNS and hold it byte for byte against it."),
    ] = None,
    open_cells: Annotated[
        bool,
        typer.Option("--open-cells", help="Exit with 0 though cells are open, if all else PASSes and no cell FAILs."),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Acceptable loss over all; default the plan's, else 0.02."),
    ] = None,
    cell_margin: Annotated[
        float | None,
        typer.Option("--cell-margin", help="Acceptable loss in a cell; default the plan's, else 0.05."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="Before any run: plan what this dataset can certify, and write it to --out."),
    ] = None,
    likelihood: Annotated[
        str,
        typer.Option("--likelihood", help="With --plan: how options will be compared, as for infimed evaluate."),
    ] = "per token",
    role: Annotated[str, typer.Option("--role", help="With --plan: which part of the dataset will be asked.")] = "test",
    flips: Annotated[
        list[float] | None,
        typer.Option("--flips", help="With --plan: share of answers that flip; again for more; 0.01, 0.05, 0.1."),
    ] = None,
    correlation: Annotated[
        float | None, typer.Option("--correlation", help="With --plan: of two questions of one patient; default 0.3.")
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option("--accuracy", help="With --plan: the reference's, as expected; default 0.7.")
    ] = None,
    lead: Annotated[
        float | None,
        typer.Option("--lead", help="With --plan: the reference's lead over the text-only prior; default 0.25."),
    ] = None,
    loss: Annotated[float | None, typer.Option("--loss", help="With --plan: the true loss; default 0.")] = None,
    abstain_below: Annotated[
        float,
        typer.Option("--abstain-below", min=0, max=1, help="Confidence below which an answer counts as withheld."),
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report or the plan as JSON.")] = False,
) -> None:
    """Judge what quantisation did: PASS, FAIL, NOT ENOUGH ITEMS or REFERENCE NOT COMPETENT, per level and cell.

    Writes drift.json, drift.md and drift.html, and robustness.json where probes were run: whether a level loses more
    under a probe than the reference, by the margin of a cell; that does not change the exit code. State the margins
    before you look at outcomes: --plan DATASET fixes them, says what the dataset can certify, and makes no report. Not
    a medical device: a verdict speaks of these questions and of nothing else.

    Exit codes: 0 every level PASSes, over all and in every judged cell; 1 a level FAILs, over all or in a cell; 5 no
    FAIL, but a REFERENCE NOT COMPETENT somewhere; 4 neither, but NOT ENOUGH ITEMS somewhere; 2 wrong use or bad input;
    3 internal error. With --open-cells 4 and 5 are of all items only. With --recompute: 0 the same bytes, 1 others.
    """
    stated = {"flips": tuple(flips) if flips else None, "correlation": correlation, "accuracy": accuracy, "lead": lead,
              "loss": loss}  # fmt: skip
    given = {name: value for name, value in stated.items() if value is not None}
    if recompute is not None:
        if runs is None:
            raise InfimedError("name the folder of the runs that the report is to be made again from")
        own = {"reference": reference, "margin": margin, "cell-margin": cell_margin, "plan": plan, **given}
        if named := next((name for name, value in own.items() if value is not None), None):
            raise InfimedError(f"--{named} has no place beside --recompute: the report states how it was made")
        _recompute(runs, recompute, out, data, as_json)
        return
    if reference is None:
        raise InfimedError("name the run that the others are held against with --reference")
    if out is None:
        raise InfimedError("name the folder of the report, or with --plan the plan's file, with --out")
    if plan is not None:
        if runs is not None:
            raise InfimedError(f"{runs} is a folder of runs and --plan is for before them; give one of the two")
        from ..evaluation.plan import Assumed

        reference = reference_run(reference, None)
        _plan(plan, out, reference, _margins(margin, cell_margin, None), Assumed(**given), role, likelihood, as_json)  # type: ignore[arg-type]
        return
    if runs is None:
        raise InfimedError("name the folder of the runs, or with --plan the dataset to plan for")
    if given:
        raise InfimedError(f"--{next(iter(given))} is an assumption of a plan; give it with --plan DATASET")
    if out.exists() and not out.is_dir():
        raise InfimedError(f"{out} is a file; name a folder for the report with --out")
    from ..evaluation.dataset import Dataset
    from ..evaluation.drift import drift as compare_runs
    from ..evaluation.drift_outcome import outcome
    from ..evaluation.plan_kept import lying_plan
    from ..evaluation.recompute import make_files
    from ..evaluation.report import write_files
    from ..evaluation.report_robustness import contrast_line

    dataset = Dataset.open(data) if data else None
    reference = reference_run(reference, runs)
    kept = lying_plan(runs)
    with drawn() as on_event:
        report = compare_runs(
            runs,
            reference,
            _margins(margin, cell_margin, kept.margins if kept else None),
            on_event,
            abstain_below=abstain_below,
        )
    made = make_files(report, runs, dataset)
    paths = write_files(made.files, out)
    report = made.report
    if as_json:
        typer.echo(report.to_bytes().decode(), nl=False)
    else:
        _tell(report)
        for row in made.robustness.contrasts if made.robustness else ():
            typer.echo(f"  {contrast_line(row)}")
        typer.echo(f"report: {paths[-1]}")
    if code := CODES[outcome(report, open_cells=open_cells)]:
        raise typer.Exit(code)


def _recompute(runs: Path, kept: Path, out: Path | None, data: Path | None, as_json: bool) -> None:
    """Make a report again, tell whether it is the same, and write it to `out` where that is given."""
    import json

    from ..evaluation.dataset import Dataset
    from ..evaluation.recompute import recompute
    from ..evaluation.report import write_files

    if out is not None and (out.is_file() or out.resolve() == kept.resolve()):
        raise InfimedError(f"{out} is a file or the report itself; name another folder with --out")
    dataset = Dataset.open(data) if data else None
    with drawn() as on_event:
        remade = recompute(runs, kept, dataset, on_event)
    paths = write_files(remade.files, out) if out else ()
    if as_json:
        typer.echo(json.dumps({"same": not remade.differences, "differences": list(remade.differences)}))
    else:
        for line in remade.differences or (f"the same bytes: {', '.join(remade.files)}",):
            typer.echo(line)
        if paths:
            typer.echo(f"report: {paths[-1]}")
    if remade.differences:
        raise typer.Exit(1)


def _margins(overall: float | None, cell: float | None, planned: Margins | None) -> Margins:
    """Return the margins: each as stated, else as planned, else the default."""
    import dataclasses

    from ..evaluation.drift_report import Margins

    found = planned or Margins()
    return dataclasses.replace(
        found,
        overall=found.overall if overall is None else overall,
        cell=found.cell if cell is None else cell,
    )


def _plan(
    data: Path,
    out: Path,
    reference: str,
    margins: Margins,
    assumed: Assumed,
    role: str,
    likelihood: str,
    as_json: bool,
) -> None:
    """Make a plan, write it and tell it."""
    from ..evaluation.dataset import Dataset
    from ..evaluation.plan import make_plan
    from ..evaluation.plan_text import plan_lines
    from ..runtime.files import write_bytes
    from ..runtime.likelihood import likelihood_of

    if out.exists():
        raise InfimedError(f"{out} exists; a plan is not written over: name another file with --out")
    with drawn() as on_event:
        made = make_plan(
            Dataset.open(data), reference, margins, assumed,
            role=role, likelihood=likelihood_of(likelihood), on_event=on_event,
        )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, made.to_bytes())
    if as_json:
        typer.echo(made.to_bytes().decode(), nl=False)
        return
    for line in plan_lines(made):
        typer.echo(line)
    typer.echo(f"plan: {out} (sha256 {made.sha256}); run under it: infimed evaluate ... --plan {out}")


def _tell(report: DriftReport) -> None:
    from ..evaluation.report_text import (
        counted,
        headline,
        plan_text,
        points,
        settle_text,
        stored_text,
        unfinished_text,
    )

    typer.echo(headline(report))
    if not any(row is report.stored for row in report.rows):
        typer.echo(f"  {'checkpoint':24} {stored_text(report.stored)}")
    for row in report.rows:
        found = row.overall
        note = settle_text(found) or (found.reason if found.verdict == "REFERENCE NOT COMPETENT" else "")
        typer.echo(
            f"  {row.facts.run:24} {found.verdict:24} {points(found.delta)} points "
            f"[{points(found.lower)}, {points(found.upper)}] against {row.reference}, "
            f"flips {found.harmful} harmful {found.healing} healing{'; ' + note if note else ''}"
        )
        typer.echo(f"  {'':24} cells: {counted(row.cells)}")
        for cell in row.cells:
            if cell.verdict == "FAIL":
                alone = "" if cell.named_worse else " (alone at 5 %, not after Holm)"
                typer.echo(
                    f"  {'':24} FAIL in {cell.modality} \u00d7 {cell.task}: {points(cell.delta)} points "
                    f"[{points(cell.lower)}, {points(cell.upper)}]{alone}"
                )
    for run in report.unfinished:
        typer.echo(f"  {run.run:24} {unfinished_text(run)}")
    if report.plan.state != "none":
        typer.echo(f"  {plan_text(report)}")
