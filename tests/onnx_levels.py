"""Exports a tiny random checkpoint to all ONNX levels once for every test that looks at them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infimed.runtime.levels import LEVELS as LEVEL_ROWS
from infimed.runtime.manifest import LevelEntry
from infimed.runtime.messages import ImagePart, user

from .models import build_random_checkpoint

if TYPE_CHECKING:
    from infimed.export.activations import Activations

LEVELS = tuple(row.name for row in LEVEL_ROWS if row.format == "onnx")
TOWERS = tuple(row.storage for row in LEVEL_ROWS if row.format == "onnx")


@dataclass(frozen=True)
class Exported:
    """A checkpoint and the folder that its levels were written into. tensors: level -> tensor -> type."""

    checkpoint: Path
    bundle: Path
    entries: Mapping[str, LevelEntry]
    activations: Activations | None = None

    @property
    def tensors(self) -> Mapping[str, Mapping[str, str]]:
        """Each level's tensors and their types."""
        return {name: entry.tensors for name, entry in self.entries.items()}


def export_levels(
    checkpoint: Path, bundle: Path, levels: tuple[str, ...] = ("onnx-fp32",), activations: Activations | None = None
) -> Exported:
    """Write the levels and the prompt files that lie beside them in a bundle."""
    from infimed.export.onnx_export import export_onnx
    from infimed.runtime.prompt import PROMPT_FILES

    (bundle / "shared").mkdir(parents=True, exist_ok=True)
    for name in PROMPT_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, bundle / "shared" / name)
    return Exported(checkpoint, bundle, export_onnx(checkpoint, bundle, levels, activations=activations), activations)


def calibrated(checkpoint: Path, bundle: Path) -> Activations:
    """Write onnx-fp32 into `bundle` and return the activations of some prompts with images."""
    from .onnx_activations import measure_activations

    export_levels(checkpoint, bundle)
    random = np.random.default_rng(42)
    pictures = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((112, 112), (84, 140), (252, 168))]
    texts = ("Which modality is this?", "Is there a lesion? yes or no", "What is the size of the finding?")
    return measure_activations(bundle, [(user(ImagePart(p), t),) for p, t in zip(pictures, texts, strict=True)])


def export_every(checkpoint: Path, bundle: Path) -> Exported:
    """Write every level, and onnx-int4 with every tower, into a bundle that holds onnx-fp32 already."""
    activations = calibrated(checkpoint, bundle)
    towers = tuple(f"onnx-int4+vision-{tower}" for tower in TOWERS if tower != "fp32")
    return export_levels(checkpoint, bundle, (*LEVELS, *towers), activations)


def tiny_levels(factory: pytest.TempPathFactory) -> Exported:
    """Return the levels of the tiny checkpoint; bfloat16 weights, tied head, one layer with and one without windows."""
    return _tiny_levels(factory.getbasetemp() / "onnx")


@functools.cache
def _tiny_levels(folder: Path) -> Exported:
    checkpoint = build_random_checkpoint(
        folder / "checkpoint", layers=2, vision_depth=2, fullatt_block_indexes=(1,), dtype="bfloat16"
    )
    return export_every(checkpoint, folder / "bundle")
