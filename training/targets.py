"""What can be evaluated: a level of a bundle, a checkpoint, or an adapter upon its base, each opened as an engine.

The name of a target's run says what it is: the level's name, "checkpoint" or "adapter". Knows no dataset.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.prediction import Subject
from ..runtime.bundle import Bundle
from ..runtime.engine import Engine
from ..runtime.levels import level as level_row
from ..runtime.open_engine import computed_as, open_engine
from .adapter import Adapter
from .checkpoint import Checkpoint
from .reference import open_reference


@dataclass(frozen=True)
class Target:
    """Something to evaluate. open: loads it; called only when there is a question left to ask.

    computed_by: the library that answers, its version and where it runs, and what it computes where the level's name
    promises more: what a resumed run must share. Of torch the threads too: with another number its last bits differ.
    onnxruntime and llama.cpp give equal rows.
    """

    run: str
    subject: Subject
    open: Callable[[], Engine]
    computed_by: Mapping[str, str | int | bool]


def bundle_target(bundle: Bundle, level: str, threads: int, gpu_layers: int = 0) -> Target:
    """Return a level of a verified bundle as a target."""
    entry = bundle.entry(level)
    subject = Subject("bundle", level, bundle.manifest.level_digest(level), entry.weight_bytes)
    by: dict[str, str | int | bool]
    if level_row(level).format == "gguf":
        by = {**_installed("llama-cpp-python"), "gpu_layers": gpu_layers}
    else:
        by = {**_installed("onnxruntime", "onnxruntime-gpu"), "device": "cuda" if gpu_layers else "cpu"}
    if computed := computed_as(level):
        by["computes"] = computed
    return Target(level, subject, lambda: open_engine(bundle, level, threads=threads, gpu_layers=gpu_layers), by)


def torch_target(folder: Path, threads: int, device: str = "cpu") -> Target:
    """Return a checkpoint, or an adapter upon its base, as a target run by torch in float32."""
    if Adapter.is_adapter(folder):
        adapter = Adapter.open(folder)
        base = adapter.find_base()
        weights = base.weight_bytes + adapter.weight_bytes
        subject = Subject("adapter", "adapter", adapter.sha256_upon(base.sha256), weights)
    else:
        checkpoint = Checkpoint.open(folder)
        subject = Subject("checkpoint", "checkpoint", checkpoint.sha256, checkpoint.weight_bytes)
    by = {**_installed("torch"), "device": device, "threads": threads}
    return Target(subject.level, subject, lambda: open_reference(folder, threads=threads, device=device), by)


def _installed(*names: str) -> dict[str, str | int | bool]:
    """Return the first of these distributions that is installed, with its version."""
    for name in names:
        try:
            return {"library": name, "version": importlib.metadata.version(name)}
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"library": names[0], "version": "not installed"}
