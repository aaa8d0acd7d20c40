"""Calibrates: measures a checkpoint's activations over a dataset's calibration rows, or takes them from the cache.

An entry of the cache is a folder named by the sha256 of all that the figures follow from (checkpoint, rows, settings,
libraries). Its manifest is written last and hashes the rest; a pass that was killed goes on from the totals it kept.
Several processes may ask at once: one measures, the others wait. docs/calibration.md says what lies in it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.dataset import Dataset
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import canonical_json, locked, sha256_file, strict_json, write_bytes
from ..training.checkpoint import Checkpoint
from ..training.provenance import versions
from .activations import Activations, ActivationsError
from .calibration import CalibrationError, calibration_rows, rows_sha256
from .calibration_pass import THREADS, run_pass
from .calibration_totals import Totals
from .gguf_names import GgufUnsupported
from .imatrix import write_imatrix

PASS = 1
"""Which edition of the pass and its weighting: another one gives other figures, and another entry."""
FLUSH_ROWS = 8
MANIFEST = "calibration.json"
ACTIVATIONS = "activations.safetensors"
IMATRIX = "imatrix.gguf"
_STATE = "totals.part"


def calibrate(
    checkpoint_folder: Path,
    dataset: Dataset,
    *,
    cache: Path | None = None,
    images: bool = True,
    on_event: OnEvent = ignore,
) -> Activations:
    """Return the activations of a checkpoint over a dataset's calibration rows.

    cache: the folder that entries lie in, calibration_cache() by default. images: False leaves every image out, for
    comparison. The entry is `entry_folder(cache, activations)`. Raises CalibrationError, DatasetError, CheckpointError,
    MissingExtra.
    """
    checkpoint = Checkpoint.open(checkpoint_folder)
    rows = calibration_rows(dataset)
    identity = {
        "pass": PASS,
        "checkpoint_sha256": checkpoint.sha256,
        "dataset_sha256": rows_sha256(rows),
        "images": images,
        "threads": THREADS,
        "libraries": versions("torch", "transformers", "numpy"),
    }
    digest = hashlib.sha256(canonical_json(identity)).hexdigest()
    folder = (cache or calibration_cache()) / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if (found := _read(folder, identity)) is not None:
                on_event(Event("calibration", len(rows), len(rows), "rows", "from the cache"))
                return found
            (folder / MANIFEST).unlink(missing_ok=True)
            totals = Totals.open(folder / _STATE) or Totals()
            if totals.rows:
                on_event(Event("calibration", totals.rows, len(rows), "rows", "gone on with"))

            def keep(reached: Totals) -> None:
                if reached.rows % FLUSH_ROWS == 0:
                    reached.save(folder / _STATE)

            run_pass(checkpoint.folder, dataset, rows, totals, images=images, after_row=keep, on_event=on_event)
            made = Activations(
                totals.mean_square(), totals.largest(), totals.tokens(), digest, str(identity["dataset_sha256"])
            )
            _write(folder, made, identity, checkpoint.config, totals.rows)
            return made
    except OSError as error:
        raise CalibrationError(
            f"{folder} cannot be used as a cache ({error.strerror or error}); free the disk, or name another folder in "
            "XDG_CACHE_HOME"
        ) from error


def calibration_cache() -> Path:
    """Return where entries lie by default: infimed/calibration under XDG_CACHE_HOME, else under ~/.cache."""
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = stated if stated.is_absolute() else Path(os.path.expanduser("~")) / ".cache"
    return base / "infimed" / "calibration"


def entry_folder(cache: Path | None, activations: Activations) -> Path:
    """Return an entry's folder: activations.safetensors, imatrix.gguf where GGUF knows the family, and a manifest."""
    return (cache or calibration_cache()) / activations.sha256


def _write(
    folder: Path, activations: Activations, identity: Mapping[str, object], config: Mapping[str, Any], rows: int
) -> None:
    """Write an entry's files, then the manifest: its existence says that the entry is complete."""
    from safetensors.numpy import save

    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name in activations.mean_square:
        tensors[f"{name}.mean_square"] = activations.mean_square[name]
        tensors[f"{name}.largest"] = activations.largest[name]
        tensors[f"{name}.tokens"] = np.array([activations.counts[name]], np.int64)
    write_bytes(folder / ACTIVATIONS, save(tensors))
    files = [ACTIVATIONS]
    try:
        write_imatrix(folder / IMATRIX, activations, config, rows=rows)
        files.append(IMATRIX)
    except GgufUnsupported:  # what is calibrated for another format need not be known to this one
        (folder / IMATRIX).unlink(missing_ok=True)
    manifest = {
        "schema": 1,
        "identity": identity,
        "rows": rows,
        "files": {name: sha256_file(folder / name) for name in files},
    }
    write_bytes(folder / MANIFEST, canonical_json(manifest))
    (folder / _STATE).unlink(missing_ok=True)


def _read(folder: Path, identity: Mapping[str, object]) -> Activations | None:
    """Return a complete entry; None where there is none, or where a file is not the one that was written."""
    from safetensors.numpy import load

    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = strict_json((folder / MANIFEST).read_bytes())
        if manifest["schema"] != 1 or manifest["identity"] != identity or ACTIVATIONS not in manifest["files"]:
            return None
        data = {name: (folder / name).read_bytes() for name in (ACTIVATIONS, IMATRIX) if name in manifest["files"]}
        if {name: hashlib.sha256(found).hexdigest() for name, found in data.items()} != manifest["files"]:
            return None
        tensors = load(data[ACTIVATIONS])
        names = sorted(key.removesuffix(".tokens") for key in tensors if key.endswith(".tokens"))
        return Activations(
            {name: tensors[f"{name}.mean_square"] for name in names},
            {name: tensors[f"{name}.largest"] for name in names},
            {name: int(tensors[f"{name}.tokens"][0]) for name in names},
            folder.name,
            str(identity["dataset_sha256"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, ActivationsError):
        return None  # a damaged entry is measured again
