"""What can be evaluated: a level of a bundle, a checkpoint, or an adapter upon its base, each opened as an engine.

The name of a target's run says what it is: the level's name, "checkpoint" or "adapter". Knows no dataset.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from ..evaluation.prediction import Subject
from ..runtime.bundle import Bundle
from ..runtime.engine import Engine
from ..runtime.files import canonical_json
from ..runtime.image_store import ImageStore
from ..runtime.levels import level as level_row
from ..runtime.manifest import SHARED
from ..runtime.open_engine import computed_as, open_engine
from ..runtime.prompt import Prompter
from ..runtime.token_path import token_path_sha256
from .adapter import Adapter
from .checkpoint import Checkpoint
from .reference import open_prompter, open_reference

_TOWERS = ("mmproj", "vision-")
"""How the files of a vision tower begin, in shared/."""


class Opens(Protocol):
    """Loads a target. images: what its vision tower makes of images, shared with other targets that have the tower."""

    def __call__(self, images: ImageStore | None = None) -> Engine:
        """Return the engine."""


@dataclass(frozen=True)
class Target:
    """Something to evaluate. open: loads it; called only when there is a question left to ask.

    computed_by: the library that answers, its version and where it runs, and what it computes where the level's name
    promises more: what a resumed run must share. Of torch the threads too: with another number its last bits differ.
    onnxruntime and llama.cpp give equal rows. token_path: computes the sha256 of the way to its tokens and pixels.
    made_from: the sha256 of the checkpoint that it is or was made from, empty for an adapter. weight_bits: of the bulk
    of its weights as they compute. tower: what its vision tower is known by: equal for targets that make the same
    embeddings of an image, to the last bit; empty where nothing is promised.
    """

    run: str
    subject: Subject
    open: Opens
    computed_by: Mapping[str, str | int | bool]
    token_path: Callable[[], str]
    made_from: str
    weight_bits: float
    tower: str = ""


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

    def opened(images: ImageStore | None = None) -> Engine:
        return open_engine(bundle, level, threads=threads, gpu_layers=gpu_layers, images=images)

    shared = bundle.folder / SHARED
    return Target(
        run=level,
        subject=subject,
        open=opened,
        computed_by=by,
        token_path=lambda: token_path_sha256(shared, Prompter.open(shared)),
        made_from=str(bundle.manifest.provenance["checkpoint_sha256"]),
        weight_bits=level_row(level).weight_bits,
        tower=_tower(bundle, level, {**by, "threads": threads}),
    )


def _tower(bundle: Bundle, level: str, by: Mapping[str, str | int | bool]) -> str:
    """Return a digest over all that a level's embeddings of an image follow from: what it shares, and what computes."""
    shared = bundle.entry(level).shared
    if not any(PurePosixPath(path).name.startswith(_TOWERS) for path in shared):
        return ""
    body = {
        "files": {path: bundle.manifest.files[path].sha256 for path in shared},
        "preprocessing": dict(bundle.manifest.preprocessing),
        "computed_by": dict(by),
    }
    return hashlib.sha256(canonical_json(body)).hexdigest()


def torch_target(folder: Path, threads: int, device: str = "cpu") -> Target:
    """Return a checkpoint, or an adapter upon its base, as a target run by torch in float32."""
    prompter: Callable[[], Prompter]
    if Adapter.is_adapter(folder):
        adapter = Adapter.open(folder)
        base = adapter.find_base()
        weights = base.weight_bytes + adapter.weight_bytes
        subject = Subject("adapter", "adapter", adapter.sha256_upon(base.sha256), weights)
        place, made_from, prompter = base.folder, "", lambda: open_prompter(base, adapter)
    else:
        checkpoint = Checkpoint.open(folder)
        subject = Subject("checkpoint", "checkpoint", checkpoint.sha256, checkpoint.weight_bytes)
        place, made_from, prompter = folder, checkpoint.sha256, lambda: Prompter.open(folder)
    by = {**_installed("torch"), "device": device, "threads": threads}

    def opened(images: ImageStore | None = None) -> Engine:
        return open_reference(folder, threads=threads, device=device)

    return Target(
        run=subject.level,
        subject=subject,
        open=opened,
        computed_by=by,
        token_path=lambda: token_path_sha256(place, prompter()),
        made_from=made_from,
        weight_bits=32.0,
    )


def _installed(*names: str) -> dict[str, str | int | bool]:
    """Return the first of these distributions that is installed, with its version."""
    for name in names:
        try:
            return {"library": name, "version": importlib.metadata.version(name)}
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"library": names[0], "version": "not installed"}
