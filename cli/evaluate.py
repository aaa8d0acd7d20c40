"""`infimed evaluate` and `infimed drift`: predictions of a dataset, and the verdict on them. Knows no statistics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import InfimedError
from .progress import drawn

if TYPE_CHECKING:
    from ..evaluation.drift_report import DriftReport
    from ..training.targets import Target


def evaluate(
    target: Annotated[Path, typer.Argument(help="A bundle, a checkpoint or an adapter.", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="The dataset's folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The folder of the runs; runs of one dataset lie together.")],
    level: Annotated[
        list[str] | None, typer.Option("--level", help="A level of the bundle; again for more; default all.")
    ] = None,
    role: Annotated[
        str, typer.Option("--role", help="Which part of the dataset: train, calibration, search, test.")
    ] = "test",
    grey: Annotated[
        bool, typer.Option("--grey", help="Ask again with grey images; drift needs this of the reference.")
    ] = False,
    prior: Annotated[
        Path | None,
        typer.Option("--prior", help="Fit the majority answer on this dataset's train role; drift needs it once."),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            help="Ask changed questions too: NAME, NAME:SEVERITY (1 to 5) or all; again for more. An unknown name is "
            "answered with the list.",
        ),
    ] = None,
    probe_seed: Annotated[int, typer.Option("--probe-seed", min=0, help="Draws what a probe draws.")] = 0,
    generate: Annotated[
        bool, typer.Option("--generate", help="Generate a reply to choices and yes/no too, not to open questions only.")
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The longest generated reply, tokens.")] = 48,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads; default all.")] = None,
    gpu_layers: Annotated[int, typer.Option("--gpu-layers", min=0, help="Layers on the GPU, for bundles.")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda, for checkpoints and adapters.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print each run's accuracy and files as JSON.")] = False,
) -> None:
    """Predict a dataset with the levels of a bundle, a checkpoint or an adapter.

    With --probe each level is also asked changed questions (other orders of the options, other wordings, blurred or
    mirrored images, false hints; docs/robustness.md): their runs lie in OUT/probes, and infimed drift tells them.
    Choices and yes/no are answered by the likelihood of their options, open questions by greedy generation. Rows are
    written as they come: after a kill the same command goes on where it stopped, and a finished run is not run again.
    """
    from ..evaluation.dataset import Dataset
    from ..evaluation.predict import Asking
    from ..evaluation.predict_probes import coverage_text, predict_probes
    from ..evaluation.prediction import read_run
    from ..evaluation.prior import predict_prior
    from ..evaluation.probes import parse_probes

    if out.exists() and not out.is_dir():
        raise InfimedError(f"{out} is a file; name a folder for the runs with --out")
    specs = parse_probes(probe or [], probe_seed)
    targets = find_targets(target, level or [], threads, gpu_layers, device)
    dataset = Dataset.open(data)
    asking = Asking(generate_all=generate, max_tokens=max_tokens)
    files: dict[str, Path] = {}
    covers: dict[str, None] = {}
    with drawn() as on_event:
        if prior:
            files[predict_prior(Dataset.open(prior), dataset, out, role=role).identity.run] = out
        for found in targets:
            made = predict_probes(
                found.open, dataset, out, found.run, specs,
                subject=found.subject, role=role, asking=asking, grey=grey, computed_by=found.computed_by,
                on_event=on_event,
            )  # fmt: skip
            files |= made.files
            covers |= dict.fromkeys(coverage_text(record) for record in made.records)
    for line in covers:
        typer.echo(line, err=True)
    told = []
    for name, folder in files.items():
        run = read_run(folder, name)
        right = sum(row.correct for row in run.predictions)
        told.append({"run": name, "items": run.meta.items, "correct": right, "accuracy": right / run.meta.items,
                     "items_per_second": run.items_per_second, "file": str(folder / f"{name}.jsonl")})  # fmt: skip
        if not as_json:
            speed = f", {run.items_per_second:.1f} questions/s" if run.items_per_second else ""
            typer.echo(f"{name:24} {right:,} of {run.meta.items:,} right ({right / run.meta.items:.1%}){speed}")
    if as_json:
        typer.echo(json.dumps(told, indent=2))


def find_targets(
    folder: Path, levels: Sequence[str], threads: int | None, gpu_layers: int, device: str
) -> tuple[Target, ...]:
    """Return what a folder holds to evaluate: the levels of a bundle (verified here), a checkpoint or an adapter."""
    from ..runtime.bundle import Bundle
    from ..runtime.manifest import MANIFEST
    from ..runtime.open_engine import default_threads
    from ..training.targets import bundle_target, torch_target

    if not folder.exists():
        raise InfimedError(f"{folder} does not exist; name the folder of a bundle, a checkpoint or an adapter")
    threads = threads or default_threads()
    if not (folder / MANIFEST).is_file():
        if levels:
            raise InfimedError(f"--level {levels[0]} is for bundles; {folder} is none: it has no {MANIFEST}")
        return (torch_target(folder, threads, device),)
    bundle = Bundle.open(folder)
    wanted = levels or [entry.name for entry in bundle.manifest.levels]
    return tuple(bundle_target(bundle, name, threads, gpu_layers) for name in dict.fromkeys(wanted))


def drift(
    runs: Annotated[Path, typer.Argument(help="The folder that `infimed evaluate` wrote.", show_default=False)],
    reference: Annotated[
        str, typer.Option("--reference", help="The run that the others are held against.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder of the report.", show_default=False)],
    margin: Annotated[float, typer.Option("--margin", help="Acceptable loss over all; 0.02 is 2 points.")] = 0.02,
    cell_margin: Annotated[
        float, typer.Option("--cell-margin", help="Acceptable loss in a cell, modality x task.")
    ] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Judge what quantisation did: PASS, FAIL, NOT ENOUGH ITEMS or REFERENCE NOT COMPETENT, per level and cell.

    Writes drift.json, drift.md and drift.html, and robustness.json where probes were run: whether a level loses more
    under a probe than the reference, by the margin of a cell; that does not change the exit code. Exit code 1 if a
    level FAILs over all or in a cell. State the margins before you look at outcomes. Not a medical device: a verdict
    speaks of these questions and of nothing else.
    """
    from ..evaluation.drift import drift as compare_runs
    from ..evaluation.drift_report import Margins
    from ..evaluation.report import write_report
    from ..evaluation.report_robustness import contrast_line
    from ..evaluation.robustness import robustness

    if out.exists() and not out.is_dir():
        raise InfimedError(f"{out} is a file; name a folder for the report with --out")
    with drawn() as on_event:
        report = compare_runs(runs, reference, Margins(overall=margin, cell=cell_margin), on_event)
    probed = robustness(runs, reference, cell_margin)
    paths = write_report(report, out, probed)
    if as_json:
        typer.echo(report.to_bytes().decode(), nl=False)
    else:
        _tell(report)
        for row in probed.contrasts if probed else ():
            typer.echo(f"  {contrast_line(row)}")
        typer.echo(f"report: {paths[-1]}")
    if report.failed:
        raise typer.Exit(1)


def _tell(report: DriftReport) -> None:
    from ..evaluation.report_text import counted, headline, points, settle_text, stored_text, unfinished_text

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
