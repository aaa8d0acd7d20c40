"""`infimed evaluate`: predictions of a dataset, per level. Knows no statistics."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import InfimedError, MissingExtra
from .progress import drawn
from .reference import answer_rule, keep_store

if TYPE_CHECKING:
    from ..evaluation.drift_figures import Share
    from ..evaluation.prediction import Prediction
    from ..runtime.engine import Engine
    from ..runtime.image_store import SharedImages
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
    likelihood: Annotated[
        str,
        typer.Option("--likelihood", help='How options are compared: "per token", "raw sum" or "per character".'),
    ] = "per token",
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="Run under this plan (infimed drift --plan); default plan.json in --out."),
    ] = None,
    reference_store: Annotated[
        Path | None,
        typer.Option(
            "--reference-store",
            help="Keep this run as a reference in FILE.zip, its answers token by token, for devices without the model.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Hold the levels against this store at every token of its answers."),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The longest generated reply, tokens.")] = 48,
    shard: Annotated[
        str | None,
        typer.Option("--shard", help="Ask one part of N into OUT/shards, such as 1/8; no image is in two parts."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Ask nothing: merge the shards in OUT to the bytes of one run.")
    ] = False,
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
    A checkpoint, an adapter or a level of 16 bits or more can be kept with --reference-store; where only the bundle is,
    --reference FILE gives its levels the same answers token by token, and infimed drift takes the file as reference.
    Levels that share a vision tower share what it makes of each image. With --shard 1/8 to 8/8 eight machines divide
    the questions; the same command with --merge in place of --shard then makes one run of them.
    """
    from dataclasses import replace

    from ..evaluation.dataset import Dataset
    from ..evaluation.jsonform import to_json
    from ..evaluation.merge_shards import merge_shards
    from ..evaluation.open_figures import text_figures
    from ..evaluation.plan_kept import adopt
    from ..evaluation.predict import Asking
    from ..evaluation.predict_probes import coverage_text, predict_probes
    from ..evaluation.prediction import read_run
    from ..evaluation.prior import predict_prior
    from ..evaluation.probes import parse_probes
    from ..evaluation.shards import Shard, ShardError
    from ..runtime.image_store import SharedImages
    from ..runtime.likelihood import likelihood_of

    if out.exists() and not out.is_dir():
        raise InfimedError(f"{out} is a file; name a folder for the runs with --out")
    if shard and merge:
        raise ShardError("--shard asks one part, --merge joins all of them; give one of the two")
    part = Shard.parse(shard) if shard else None
    specs = parse_probes(probe or [], probe_seed)
    targets = find_targets(target, level or [], threads, gpu_layers, device)
    dataset = Dataset.open(data)
    asking = Asking(generate_all=generate, max_tokens=max_tokens, likelihood=likelihood_of(likelihood))
    answers = answer_rule(reference_store, reference, targets, dataset, role, asking.settings(), out)
    asking = replace(asking, answers=answers)
    under = adopt(out, plan, dataset, role, str(asking.settings()["likelihood"]), keep=not merge)
    files: dict[str, Path] = {}
    covers: dict[str, None] = {}
    with drawn() as on_event, SharedImages(part.folder(out) if part else out, [one.tower for one in targets]) as shared:
        if merge:
            subjects = {found.run: found.subject for found in targets}
            merged = merge_shards(
                dataset, out, subjects, specs, role=role, asking=asking, grey=grey, plan=under, on_event=on_event
            )
            adopt(out, plan, dataset, role, str(asking.settings()["likelihood"]))
            files |= merged.made.files
            covers |= dict.fromkeys(coverage_text(record) for record in merged.made.records)
            if merged.left_over:
                names = ", ".join(merged.left_over)
                typer.echo(f"not merged, for this command does not ask for them: {names}", err=True)
        if prior and part:
            typer.echo("--prior asks no model and has no shards: give it with --merge", err=True)
        elif prior:
            fitted = predict_prior(Dataset.open(prior), dataset, out, role=role, plan=under)
            files = {fitted.identity.run: out, **files}
        for place, found in enumerate(() if merge else targets):
            made = predict_probes(
                _opening(found, shared, place), dataset, out, found.run, specs,
                subject=found.subject, role=role, asking=asking, grey=grey, computed_by=found.computed_by,
                plan=under, shard=part, on_event=on_event,
            )  # fmt: skip
            files |= made.files
            covers |= dict.fromkeys(coverage_text(record) for record in made.records)
    for line in covers:
        typer.echo(line, err=True)
    if reference_store and part:
        typer.echo("--reference-store is of the whole run: give it with --merge too, which writes the file", err=True)
    elif reference_store:
        keep_store(reference_store, targets[0], out)
        typer.echo(f"reference: {reference_store}, {reference_store.stat().st_size / 1e6:.2f} MB", err=True)
    told = []
    if not as_json:
        typer.echo(f"over {dataset.label}, role {role}")
    for name, folder in files.items():
        run = read_run(folder, name)
        right = sum(row.correct for row in run.predictions)
        measured = _accuracy(run.predictions)
        interval = (measured.lower, measured.upper) if measured else None
        text = text_figures(run.predictions) if measured else None
        told.append({"run": name, "dataset": run.meta.identity.dataset, "items": run.meta.items, "correct": right,
                     "accuracy": measured.value if measured else None, "accuracy_interval_95": interval,
                     "open_answers": to_json(text) if text else None, "items_per_second": run.items_per_second,
                     "file": str(folder / f"{name}.jsonl")})  # fmt: skip
        if not as_json:
            share = f" ({measured.value:.1%} [{measured.lower:.1%}, {measured.upper:.1%}])" if measured else ""
            speed = f", {run.items_per_second:.1f} questions/s" if run.items_per_second else ""
            typer.echo(f"{name:24} {right:,} of {run.meta.items:,} right{share}{speed}")
            if text:
                f1, bleu, rouge = (
                    f"{one.value:.3f} [{one.lower:.3f}, {one.upper:.3f}]" for one in (text.f1, text.bleu1, text.rouge_l)
                )
                exact = f"{text.exact.value:.1%} [{text.exact.lower:.1%}, {text.exact.upper:.1%}]"
                typer.echo(f"  open answers ({text.items:,}): F1 {f1}, exact {exact}, BLEU-1 {bleu}, ROUGE-L {rouge}")
    if as_json:
        typer.echo(json.dumps(told, indent=2))


def _opening(found: Target, shared: SharedImages, place: int) -> Callable[[], Engine]:
    """Return what opens a target, with its store of shared images, when there is something left to ask."""
    return lambda: found.open(shared.open(place))


def _accuracy(rows: Sequence[Prediction]) -> Share | None:
    """Return the accuracy with its clustered interval; None without SciPy, as no share is told without it."""
    from ..evaluation.comparison import accuracy

    try:
        return accuracy(rows)
    except MissingExtra:
        return None


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
