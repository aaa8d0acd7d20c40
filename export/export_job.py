"""What an export is of and by: the job, what decides a bundle's bytes, and what its manifest says of its making."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..evaluation.dataset import Dataset
from ..runtime.bundle import Bundle
from ..runtime.events import OnEvent
from ..runtime.levels import QuantLevel
from ..runtime.manifest import PROBES
from ..runtime.prompt import Prompter
from ..training.checkpoint import Checkpoint
from ..training.provenance import versions
from .activations import Activations
from .optimum_tables import task_of

# What may change a byte of a bundle, where it is installed.
_MAKERS = ("torch", "transformers", "numpy", "gguf", "llama_cpp_python", "onnx", "onnxscript", "onnxruntime", "optimum")


@dataclass(frozen=True)
class Job:
    """What is exported and how. held: the bundle that gets further levels, if any. dataset: to calibrate by."""

    checkpoint: Checkpoint
    prompter: Prompter
    rows: tuple[QuantLevel, ...]
    held: Bundle | None
    dataset: Dataset | None
    activations: Activations | None
    probe_count: int
    gate: bool
    threads: int
    on_event: OnEvent


def identity_of(job: Job, license: str | None) -> dict[str, Any]:
    """Return what decides a bundle's bytes, but for the levels."""
    makers = [name for name in _MAKERS if importlib.util.find_spec(name.removesuffix("_python")) is not None]
    return {
        "checkpoint": job.checkpoint.sha256,
        "calibration": None if job.dataset is None else job.dataset.sha256,
        "activations": None if job.activations is None else job.activations.sha256,
        "probes": job.probe_count,
        "license": license,
        "gate": job.gate,
        "adds to": None if job.held is None else {path: e.sha256 for path, e in job.held.manifest.files.items()},
        "made by": {"infimed": __version__, **versions(*makers)},
    }


def holds_probes(job: Job) -> bool:
    """Return whether the bundle that gets further levels brings the golden prompts: no others are drawn then."""
    return job.held is not None and (job.held.folder / PROBES).is_dir()


def provenance_of(job: Job, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the bundle is made from. held: what it said before levels were added.

    calibration_sha256: the dataset whose rows are among the probes. calibrated: the activations each calibrated level
    was made by, and the rows they were taken of. ungated: levels that were held against no reference.
    """
    found: dict[str, Any] = {"checkpoint_sha256": job.checkpoint.sha256, "task": task_of(job.checkpoint.config)}
    if job.dataset is not None and job.gate and job.rows and not holds_probes(job):
        found["calibration_sha256"] = job.dataset.sha256
    found.update(held)
    if job.activations is not None:
        made_by = {"activations_sha256": job.activations.sha256, "rows_sha256": job.activations.dataset_sha256}
        new = {row.name: made_by for row in job.rows if row.calibrated}
        found["calibrated"] = {**held.get("calibrated", {}), **new}
    if not job.gate:
        found["ungated"] = sorted({*held.get("ungated", []), *(row.name for row in job.rows)})
    return found
