"""Exports a tiny random checkpoint to all ONNX levels once for every test that looks at them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from .models import build_random_checkpoint

LEVELS = ("onnx-fp32", "onnx-int8", "onnx-int4")


@dataclass(frozen=True)
class Exported:
    """A checkpoint and the folder that its levels were written into. tensors: level -> tensor -> type."""

    checkpoint: Path
    bundle: Path
    tensors: Mapping[str, Mapping[str, str]]
    files: Mapping[str, tuple[str, ...]]


def export_levels(checkpoint: Path, bundle: Path, levels: tuple[str, ...] = LEVELS) -> Exported:
    """Write the levels and the prompt files that lie beside them in a bundle."""
    from infimed.export.onnx_export import export_onnx
    from infimed.runtime.prompt import PROMPT_FILES

    (bundle / "shared").mkdir(parents=True)
    for name in PROMPT_FILES:
        shutil.copyfile(checkpoint / name, bundle / "shared" / name)
    made = export_onnx(checkpoint, bundle, levels)
    return Exported(
        checkpoint,
        bundle,
        {name: entry.tensors for name, entry in made.items()},
        {name: (*entry.files, *entry.shared) for name, entry in made.items()},
    )


def tiny_levels(factory: pytest.TempPathFactory) -> Exported:
    """Return the levels of the tiny checkpoint; bfloat16 weights, tied head, one layer with and one without windows."""
    return _tiny_levels(factory.getbasetemp() / "onnx")


@functools.cache
def _tiny_levels(folder: Path) -> Exported:
    checkpoint = build_random_checkpoint(
        folder / "checkpoint", layers=2, vision_depth=2, fullatt_block_indexes=(1,), dtype="bfloat16"
    )
    return export_levels(checkpoint, folder / "bundle")
