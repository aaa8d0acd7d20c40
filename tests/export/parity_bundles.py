"""Builds small bundles for the certificate's tests, clean or with a fault planted in what they hold."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infimed.export.activations import Activations
from infimed.export.gguf_export import export_gguf
from infimed.export.onnx_export import export_onnx
from infimed.export.parity import Reference, take_references
from infimed.export.probe_store import write_probes, write_sketches
from infimed.export.probes import make_probes
from infimed.export.tensorrt_export import export_tensorrt
from infimed.runtime.bundle import Bundle, write_manifest
from infimed.runtime.manifest import MANIFEST, MANIFEST_SHA256, LevelEntry
from infimed.runtime.prompt import PROMPT_FILES, Prompter
from infimed.training.checkpoint import Checkpoint, write_weights
from infimed.training.reference import open_reference

from ..models import build_random_checkpoint

LEVELS = ("gguf-f32", "gguf-q4_k_m", "onnx-fp32", "onnx-int4", "tensorrt-int4")
PROBES = 6


@functools.cache
def clean_checkpoint(folder: Path) -> Path:
    return build_random_checkpoint(
        folder, layers=2, vision_depth=2, fullatt_block_indexes=(1,), max_pixels=28 * 28 * 36
    )


@functools.cache
def reference_of(checkpoint: Path) -> tuple[Reference, ...]:
    engine = open_reference(checkpoint, threads=1)
    try:
        return take_references(engine, make_probes(PROBES, Prompter.open(checkpoint).pixel_rules, long_tokens=100))
    finally:
        engine.close()


def build_bundle(
    checkpoint: Path,
    out: Path,
    levels: Sequence[str],
    reference: Path | None = None,
    activations: Activations | None = None,
) -> Bundle:
    """Write levels of `checkpoint` beside the probes, sketches and shared files of `reference` (the same by default):
    what differs between the two is a fault of the levels alone."""
    reference = reference or checkpoint
    (out / "shared").mkdir(parents=True)
    _copy_prompt_files(checkpoint, out / "shared")
    entries: dict[str, LevelEntry] = {}
    for format, writer in (("gguf", export_gguf), ("onnx", export_onnx), ("tensorrt", export_tensorrt)):
        if asked := [level for level in levels if level.startswith(format)]:
            entries |= writer(checkpoint, out, asked, activations=activations)
    _copy_prompt_files(reference, out / "shared")
    write_probes(out / "probes", reference_of(reference))
    write_sketches(out / "probes", Checkpoint.open(reference))
    prompter = Prompter.open(out / "shared")
    write_manifest(
        out,
        family=prompter.family.name,
        license="none",
        preprocessing=prompter.preprocessing,
        levels=[entries[level] for level in levels],
        provenance={"checkpoint_sha256": "0" * 64},
    )
    return Bundle.open(out)


def changed_copy(
    bundle: Bundle, out: Path, change: Callable[[Path], None], preprocessing: Mapping[str, Any] | None = None
) -> Bundle:
    """Return a copy of a bundle with something changed in it, the pixel rules too, and a manifest that says so."""
    shutil.copytree(bundle.folder, out)
    change(out)
    for name in (MANIFEST, MANIFEST_SHA256):
        (out / name).unlink()
    old = bundle.manifest
    write_manifest(
        out,
        family=old.family,
        license=old.license,
        preprocessing=preprocessing or old.preprocessing,
        levels=old.levels,
        provenance=old.provenance,
    )
    return Bundle.open(out)


def changed_checkpoint(
    checkpoint: Path,
    out: Path,
    weights: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    config: Callable[[dict[str, Any]], None] = lambda config: None,
) -> Path:
    """Return a copy of a float32 checkpoint with tensors (by the end of their names) or config.json changed."""
    source = Checkpoint.open(checkpoint)
    shutil.copytree(checkpoint, out)
    (out / "model.safetensors").unlink()
    changes = weights or {}
    names = {end: next(name for name in source.tensors if name.endswith(end)) for end in changes}

    def bytes_of(spec: Any) -> np.ndarray:
        array = np.array(source.array(spec.name))
        for end, name in names.items():
            if name == spec.name:
                array = np.ascontiguousarray(changes[end](array), dtype=np.float32)
        return array.reshape(-1).view(np.uint8)

    write_weights(out, list(source.tensors.values()), bytes_of)
    path = out / "config.json"
    value = json.loads(path.read_text("utf-8"))
    config(value)
    path.write_text(json.dumps(value), "utf-8")
    return out


def _copy_prompt_files(checkpoint: Path, shared: Path) -> None:
    for name in PROMPT_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, shared / name)
