"""From a checkpoint to a bundle: build, hold against the reference, measure, publish.

For each format the full-precision level is built and passes the parity gate before anything is published, asked for
or not. Knows the order of the steps; how a format is written is in gguf_export.py and onnx_export.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..evaluation.dataset import Dataset
from ..runtime.bundle import Bundle, write_manifest
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.levels import QuantLevel, full_precision_of
from ..runtime.levels import level as level_row
from ..runtime.manifest import PROBES, SHARED, LevelEntry
from ..runtime.open_engine import default_threads, open_engine, open_level
from ..runtime.prompt import PROMPT_FILES, Prompter
from ..runtime.publish import publishing, refuse_taken
from ..runtime.shape_check import check_shapes
from ..training.checkpoint import Checkpoint
from ..training.reference import open_reference
from .calibration import calibration_probes
from .gguf_export import export_gguf
from .libraries import require_libraries
from .onnx_export import export_onnx
from .parity import Parity, Reference, check_prompts, measure, require, take_references
from .probe_store import write_probes
from .probes import make_probes
from .transformers_prompt import transformers_prompter

PROBE_COUNT = 48


@dataclass(frozen=True)
class Exported:
    """What an export made. gate: the full-precision level of each format. levels: each asked level's distance."""

    bundle: Bundle
    pixel_difference: float
    gate: tuple[Parity, ...]
    levels: tuple[Parity, ...]


def export_bundle(
    checkpoint_folder: Path,
    out: Path,
    levels: Sequence[str],
    *,
    calibration: Path | None = None,
    probe_count: int = PROBE_COUNT,
    license: str = "unknown",
    threads: int | None = None,
    on_event: OnEvent = ignore,
) -> Exported:
    """Write a bundle of `levels` at `out`, a new or an empty folder.

    calibration: a dataset whose calibration rows join the golden prompts. probe_count: golden prompts of each source.
    Raises MissingExtra, PublishError or CheckpointError before anything long is done; ParityError, with nothing left
    behind, if a format's full-precision level differs from the torch reference.
    """
    rows = [level_row(name) for name in dict.fromkeys(levels)]
    require_libraries(levels)
    threads = threads or default_threads()
    refuse_taken(out)
    checkpoint = Checkpoint.open(checkpoint_folder)
    check_shapes(checkpoint_folder)
    prompter = Prompter.open(checkpoint_folder)
    with publishing(out) as draft:
        probes = make_probes(probe_count, prompter.rules)
        if calibration is not None:
            probes += calibration_probes(calibration, probe_count)
        pixel_difference = check_prompts(prompter, transformers_prompter(checkpoint_folder), probes)
        equal = "pixels, tokens and positions equal transformers"
        on_event(Event("prompts", len(probes), len(probes), "prompts", equal))
        engine = open_reference(checkpoint_folder, threads=threads)
        references = take_references(engine, probes, on_event)
        engine.close()
        _copy_prompt_files(checkpoint_folder, draft / SHARED)
        entries, gate = _build(checkpoint_folder, draft, rows, references, threads, on_event)
        write_probes(draft / PROBES, references)
        provenance: dict[str, object] = {"checkpoint_sha256": checkpoint.sha256}
        if calibration is not None:
            provenance["calibration_sha256"] = Dataset.open(calibration).sha256
        write_manifest(
            draft,
            family=prompter.family.name,
            license=license,
            preprocessing=prompter.rules.to_json(),
            levels=[entries[row.name] for row in rows],
            provenance=provenance,
        )
        found = _measure_levels(Bundle.open(draft), rows, references, threads, on_event)
    return Exported(Bundle.open(out), pixel_difference, gate, found)


def _copy_prompt_files(checkpoint: Path, shared: Path) -> None:
    shared.mkdir()
    for name in PROMPT_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, shared / name)


def _build(
    checkpoint: Path,
    draft: Path,
    rows: Sequence[QuantLevel],
    references: Sequence[Reference],
    threads: int,
    on_event: OnEvent,
) -> tuple[dict[str, LevelEntry], tuple[Parity, ...]]:
    """Write every asked level, format by format, each only after its full-precision level passed the gate."""
    writers: dict[str, Callable[..., dict[str, LevelEntry]]] = {
        "gguf": partial(export_gguf, threads=threads),
        "onnx": export_onnx,
    }
    entries: dict[str, LevelEntry] = {}
    gates = []
    for format in dict.fromkeys(row.format for row in rows):
        full = full_precision_of(format)
        asked = [row.name for row in rows if row.format == format]
        made = writers[format](checkpoint, draft, tuple(dict.fromkeys((full.name, *asked))), on_event)
        engine = open_level(draft, made[full.name], threads=threads)
        try:
            gates.append(measure(engine, references, on_event))
        finally:
            engine.close()
        require(gates[-1])
        entries.update({name: made[name] for name in asked})
        used = {path for name in asked for path in (*made[name].files, *made[name].shared)}
        for path in {*made[full.name].files, *made[full.name].shared} - used:
            (draft / path).unlink()
        if full.name not in asked:
            shutil.rmtree(draft / full.name)
    return entries, tuple(gates)


def _measure_levels(
    bundle: Bundle, rows: Sequence[QuantLevel], references: Sequence[Reference], threads: int, on_event: OnEvent
) -> tuple[Parity, ...]:
    """Run every level as its users will, and attest its distance to the reference."""
    found = []
    for row in rows:
        engine = open_engine(bundle, row.name, threads=threads)
        try:
            found.append(measure(engine, references, on_event))
        finally:
            engine.close()
        bundle.attest("parity", row.name, found[-1].to_json())
    return tuple(found)
