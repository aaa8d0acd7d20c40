"""From a checkpoint to a bundle: build, hold against the reference, measure, publish; broken off, it goes on.

For each format the full-precision level is built and passes the parity gate before anything is published, asked for
or not. Levels join a bundle that is there already without touching what it holds. Knows the order of the steps; how a
format is written is in gguf_export.py and onnx_export.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import InfimedError
from ..evaluation.dataset import Dataset
from ..runtime.bundle import Bundle, describe, read_manifest, write_manifest
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import disk_trouble
from ..runtime.levels import Format, QuantLevel, full_precision_of
from ..runtime.levels import level as level_row
from ..runtime.manifest import PROBES, SHARED, FileEntry, LevelEntry, Manifest, VerifyError
from ..runtime.open_engine import default_threads
from ..runtime.prompt import PROMPT_FILES, Prompter
from ..runtime.publish import PublishError, publishing, sync
from ..runtime.shape import ModelShape
from ..runtime.shape_check import check_shapes
from ..training.checkpoint import Checkpoint
from ..training.reference import open_reference
from .adopt import adopt, check_extends, made_from, release
from .calibration import calibration_probes
from .calibration_run import calibrate
from .draft import Draft, notes_of
from .export_job import Job, holds_probes, identity_of, provenance_of
from .gauge import Gauge
from .gguf_export import export_gguf
from .libraries import require_libraries
from .onnx_export import export_onnx
from .outlook import disk_bytes, with_judges
from .parity import Parity, check_prompts, require, take_references
from .preflight import refuse_activations, refuse_calibration, refuse_early, refuse_license, refuse_target
from .probe_store import SKETCHES_FILE, read_probes, write_sketches
from .probes import Probe, make_probes
from .tensorrt_export import export_tensorrt
from .transformers_prompt import transformers_prompter
from .weight_scan import check_weights

PROBE_COUNT = 48
REFERENCE_THREADS = 2
"""Torch splits its sums by the number of threads: with a fixed number the golden logits are the same bytes anywhere."""


@dataclass(frozen=True)
class Exported:
    """What an export made. gate: the full-precision level of each format. levels: each asked level's distance.

    written: the levels that were made; others the bundle held already.
    """

    bundle: Bundle
    pixel_difference: float
    gate: tuple[Parity, ...]
    levels: tuple[Parity, ...]
    written: tuple[str, ...]


def export_bundle(
    checkpoint_folder: Path,
    out: Path,
    levels: Sequence[str],
    *,
    calibration: Path | None = None,
    probe_count: int = PROBE_COUNT,
    license: str | None = None,
    gate: bool = True,
    threads: int | None = None,
    on_event: OnEvent = ignore,
) -> Exported:
    """Write a bundle of `levels` at `out`: a new or an empty folder, or a bundle of the same checkpoint to add to.

    calibration: a dataset whose calibration rows join the golden prompts, and by which calibrated levels are made.
    probe_count: golden prompts of each source.
    license: "unknown" by default. gate: False leaves out the reference, the gate and every measurement, and the
    manifest says so. Killed and called again alike, it goes on where it was and ends with the same bytes. Where the
    bundle holds every level already, it is verified and left untouched.

    Raises MissingExtra, PublishError, ExtendError, CalibrationError or CheckpointError before anything long is done;
    ParityError, with nothing left behind, if a format's full-precision level differs from the torch reference.
    """
    rows = tuple(level_row(name) for name in dict.fromkeys(levels))
    require_libraries(levels)
    refuse_license(license)
    extends = refuse_target(out)
    checkpoint = Checkpoint.open(checkpoint_folder)
    dataset = None if calibration is None else Dataset.open(calibration)
    refuse_calibration(checkpoint, rows, dataset)
    shape = check_shapes(checkpoint_folder)
    refuse_early(checkpoint, rows)
    prompter = Prompter.open(checkpoint_folder)
    if extends and (whole := _holding(out, rows)) is not None:
        check_extends(whole, made_from(checkpoint, prompter), license)
        return Exported(whole, 0.0, (), (), ())
    check_weights(checkpoint, rows, on_event)
    with publishing(out, keep=True, replace=extends) as work:
        held = None
        if extends:
            release(out, work)
            held = Bundle.open(out)
            check_extends(held, made_from(checkpoint, prompter), license)
        missing = tuple(row for row in rows if held is None or row.name not in held.names)
        activations = None
        if dataset is not None and any(row.calibrated for row in missing):
            activations = calibrate(checkpoint.folder, dataset, on_event=on_event)
        refuse_activations(checkpoint, missing, activations)
        threads = threads or default_threads()
        job = Job(checkpoint, prompter, missing, held, dataset, activations, probe_count, gate, threads, on_event)
        draft = Draft(work, notes_of(out), identity_of(job, license))
        _check_room(shape, with_judges(missing) if gate else missing, draft, out)
        try:
            pixel_difference, gates, found = _fill(job, draft)
            manifest = _write_manifest(job, draft, license)
            for parity in found:
                Bundle(work, manifest).attest("parity", parity.level, parity.to_json())
        except InfimedError as error:
            if not disk_trouble(error.__cause__ or error):
                draft.discard()  # the same command would end in the same way
            raise
    shutil.rmtree(notes_of(out), ignore_errors=True)
    return Exported(Bundle(out, manifest), pixel_difference, gates, found, tuple(row.name for row in missing))


def _holding(out: Path, rows: Sequence[QuantLevel]) -> Bundle | None:
    """Return the bundle at `out`, verified, where it holds every level of `rows`, and None else.

    None, too, where it does not verify: an export that was killed may have linked its files, which is to be undone.
    """
    try:
        held = {entry.name for entry in read_manifest(out).levels}
        return Bundle.open(out) if held.issuperset(row.name for row in rows) else None
    except VerifyError:
        return None


def _check_room(shape: ModelShape, rows: Sequence[QuantLevel], draft: Draft, out: Path) -> None:
    """Raise PublishError where the disk has less room than the weights take that are not finished yet."""
    there = draft.finished_bytes([row.name for row in rows])
    need, free = disk_bytes(shape, rows) - there, shutil.disk_usage(draft.folder).free
    if need > free:
        if not any(draft.folder.iterdir()):
            draft.discard()
        raise PublishError(
            f"{out} needs {need / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free (levels that graphs are judged on "
            "included); free some space, name a folder on another disk, or ask for fewer levels"
        )


def _fill(job: Job, draft: Draft) -> tuple[float, tuple[Parity, ...], tuple[Parity, ...]]:
    """Write what is missing; return the largest pixel difference, each format's gate and each level's distance."""
    if not job.rows:
        return 0.0, (), ()
    _copy_prompt_files(job.checkpoint.folder, draft.folder / SHARED)
    pixel_difference = _take_references(job, draft) if job.gate else 0.0
    gates = []
    with Gauge(draft.folder, draft.notes, job.threads, job.on_event) as gauge:
        for format in dict.fromkeys(row.format for row in job.rows):
            _write_format(job, draft, format)
            if job.gate:
                gates.append(_gate(draft, format, gauge))
        draft.keep_only(_entries(job, draft))
        found = tuple(_distance(draft, row, gauge) for row in job.rows) if job.gate else ()
    return pixel_difference, tuple(gates), found


def _copy_prompt_files(checkpoint: Path, shared: Path) -> None:
    shared.mkdir(exist_ok=True)
    for name in PROMPT_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, shared / name)


def _take_references(job: Job, draft: Draft) -> float:
    """Hold our prompts against transformers' and return the largest pixel difference; take the reference's answers.

    Those that were taken already are kept.
    """
    references = draft.references()
    probes = tuple(reference.probe for reference in references) if references else _probes(job)
    pixel_difference = check_prompts(job.prompter, transformers_prompter(job.checkpoint.folder), probes)
    equal = f"{'pixels, ' if job.prompter.pixel_rules else ''}tokens and positions equal transformers"
    job.on_event(Event("prompts", len(probes), len(probes), "prompts", equal))
    if references is None:
        engine = open_reference(job.checkpoint.folder, threads=REFERENCE_THREADS)
        references = take_references(engine, probes, job.on_event)
        engine.close()
        draft.keep_references(references)
    if not (draft.folder / PROBES / SKETCHES_FILE).is_file():
        write_sketches(draft.folder / PROBES, job.checkpoint, job.on_event)
    return pixel_difference


def _probes(job: Job) -> tuple[Probe, ...]:
    if job.held is not None and holds_probes(job):
        return tuple(reference.probe for reference in read_probes(job.held.folder / PROBES))
    probes = make_probes(job.probe_count, job.prompter.pixel_rules)
    return probes if job.dataset is None else probes + calibration_probes(job.dataset, job.probe_count)


def _write_format(job: Job, draft: Draft, format: Format) -> None:
    """Write the levels of one format that are not finished yet, the one that its graph is judged on among them."""
    writers: dict[str, Callable[..., Mapping[str, LevelEntry]]] = {
        "gguf": partial(export_gguf, threads=job.threads, activations=job.activations),
        "onnx": partial(export_onnx, threads=job.threads, activations=job.activations),
        "tensorrt": partial(export_tensorrt, threads=job.threads, activations=job.activations),
    }
    names = [row.name for row in job.rows if row.format == format]
    if job.gate and draft.gate(format) is None:
        names = list(dict.fromkeys((full_precision_of(format).name, *names)))
    if unfinished := [name for name in names if draft.level(name) is None]:
        writers[format](job.checkpoint.folder, draft.folder, unfinished, job.on_event, on_level=draft.keep_level)


def _gate(draft: Draft, format: Format, gauge: Gauge) -> Parity:
    """Return how a format's full-precision level compares with the reference. Raises ParityError if it differs."""
    passed = draft.gate(format)
    if passed is None:
        entry = draft.level(full_precision_of(format).name)
        assert entry is not None
        passed = gauge.measure(entry)
        require(passed)
        draft.keep_gate(format, passed)
    return passed


def _entries(job: Job, draft: Draft) -> list[LevelEntry]:
    found = [draft.level(row.name) for row in job.rows]
    return [entry for entry in found if entry is not None]


def _distance(draft: Draft, row: QuantLevel, gauge: Gauge) -> Parity:
    """Run a level as its users will, unless that was done already, and return its distance to the reference."""
    found = draft.distance(row.name)
    if found is None:
        entry = draft.level(row.name)
        assert entry is not None
        found = gauge.measure(entry)
        draft.keep_distance(found)
    return found


def _write_manifest(job: Job, draft: Draft, license: str | None) -> Manifest:
    """Bring what the bundle held already into the draft, and describe all of it."""
    held = job.held.manifest if job.held else None
    known: dict[str, FileEntry] = {}
    if job.held is not None:
        sync(draft.folder)
        own = describe(draft.folder)
        adopt(job.held, draft.folder, own)
        known = {**own, **job.held.manifest.files}
    return write_manifest(
        draft.folder,
        family=job.prompter.family.name,
        license=held.license if held else license or "unknown",
        preprocessing=job.prompter.preprocessing,
        levels=[*(held.levels if held else ()), *_entries(job, draft)],
        provenance=provenance_of(job, held.provenance if held else {}),
        known=known,
    )
