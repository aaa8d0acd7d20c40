"""How much do the kernels of clean models round, so that the certificate can bound them?

Exports every level, and every type of tower under a language model in full precision, of the embedded base model and of
random checkpoints (as the tests build them), takes the answers of the level's own engine and of the dequantised one,
and prints the largest values per level beside the bounds of export/certificate_limits.py. A bound must hold all of
them and, where every model was measured, be at most twice the largest; exit code 1 if one does not. Types of weights
are measured by weight_errors.py. Run: python benchmarks/kernel_bounds.py
[--models base random-0] [--levels gguf-q8_0 onnx-int4] [--probes 12] [--out FILE] [--merge FILE ...]
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infimed.evaluation.phantoms import write_phantoms
from infimed.export.answers import compare_answers, take_answers
from infimed.export.calibration_run import calibrate
from infimed.export.certificate_limits import TOWER_LIMITS, WEIGHT_LIMITS, kernel_limit
from infimed.export.certificate_statements import kernel_share
from infimed.export.dequantised_level import Level, open_dequantised
from infimed.export.gguf_export import export_gguf
from infimed.export.level_weights import weight_errors
from infimed.export.onnx_export import export_onnx
from infimed.export.parity import Reference, take_references
from infimed.export.probe_store import read_sketches, write_sketches
from infimed.export.probes import make_probes
from infimed.export.tensorrt_export import export_tensorrt
from infimed.runtime.distance import summarise
from infimed.runtime.levels import LEVELS, VISION_TYPES, full_precision_of
from infimed.runtime.levels import level as level_row
from infimed.runtime.prompt import PROMPT_FILES, Prompter
from infimed.training.checkpoint import Checkpoint
from infimed.training.reference import open_reference

HOUSE = Path(__file__).resolve().parent.parent
RANDOM: dict[str, dict[str, Any]] = {
    "random-0": {"seed": 0},
    "random-2": {
        "seed": 2,
        "hidden": 512,
        "ffn": 1024,
        "layers": 3,
        "heads": 8,
        "tied": False,
        "dtype": "bfloat16",
        "vision_hidden": 160,
        "vision_ffn": 256,
        "vision_depth": 3,
        "vision_heads": 4,
        "fullatt_block_indexes": (2,),
    },
    # rows that fill no blocks of 256, as those of a model of 0.5B: llama.cpp takes other types for them
    "random-3": {"seed": 3, "hidden": 192, "ffn": 320, "layers": 3, "heads": 4},
}
MIXED = (
    "gguf-f16+vision-q8_0",
    "gguf-q4_k_m+vision-q8_0",
    "onnx-fp16+vision-int4",
    "onnx-int8+vision-fp16",
    "onnx-int4+vision-int8-dynamic",
    "onnx-int8-static+vision-int8-static",
    "tensorrt-int4+vision-int4",
    "tensorrt-int8+vision-int8",
)
"""Levels whose bound is put together from those of their two parts: no table has them, all must hold."""
FLOOR = 1e-5
"""Values below it are last bits of float32, which no bound needs to lie close to."""


def every_level() -> list[str]:
    """Return every level of the table, with and without an importance matrix, and every tower in full precision."""
    names = []
    for row in LEVELS:
        names += [row.name] if row.importance != "optional" else [row.name, f"{row.name}+imatrix"]
    for format, types in VISION_TYPES.items():
        judge = full_precision_of(format)
        names += [f"{judge.name}+vision-{type}" for type in types if type != judge.vision]
    return [*names, *MIXED]


def main() -> None:
    """Measure every asked level on every asked model and print one line for each, then the largest values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["base", *RANDOM])
    parser.add_argument("--levels", nargs="*", default=every_level())
    parser.add_argument("--probes", type=int, default=12)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--merge", type=Path, nargs="*", default=[], help="rows of earlier runs, counted too")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = [row for path in given.merge for row in json.loads(path.read_text("utf-8"))]
    print(f"{'model':10} {'level':34} {'share':>9} {'KL':>9} {'vision':>9} {'error':>9}")
    for model in given.models:
        with tempfile.TemporaryDirectory() as place:
            for row in measure(model, given.levels, given.probes, Path(place)):
                rows.append(row)
                figures = " ".join(f"{row[key]:>9.2g}" for key in ("share", "kl_nats", "vision", "error"))
                print(f"{model:10} {row['level']:34} {figures}", flush=True)
                if given.out:
                    given.out.write_text(json.dumps(rows, indent=1), "utf-8")
    whole = {"base", *RANDOM} <= {row["model"] for row in rows}
    wrong = [*_levels_beyond(rows, whole), *_towers_beyond(rows, whole)]
    for line in wrong:
        print(f"BEYOND: {line}")
    sys.exit(1 if wrong else 0)


def _levels_beyond(rows: list[dict[str, Any]], whole: bool) -> Iterator[str]:
    """Print each level's largest values beside its bound, and yield those that do not fit. whole: of all models."""
    print(f"\n{'level':36}{'share':>9}{'bound':>9}{'KL':>10}{'bound':>9}{'error':>9}{'usual':>9}")
    for name in dict.fromkeys(row["level"] for row in rows):
        mine = [row for row in rows if row["level"] == name]
        share, kl_nats = (max(row[key] for row in mine) for key in ("share", "kl_nats"))
        error, bound = min(row["error"] for row in mine), kernel_limit(level_row(name))
        if bound is None:
            yield f"{name} has no bound"
            continue
        stated = "" if bound.share is None else f"{bound.share:.2g}"
        usual = f"{bound.weight_error:.2g}"
        print(f"{name:36}{share:9.2g}{stated:>9}{kl_nats:10.2g}{bound.kl_nats:9.2g}{error:9.2g}{usual:>9}")
        if bound.share is None or kl_nats <= bound.floor_nats:
            if kl_nats > bound.kl_nats:
                yield f"{name}: KL {kl_nats:.2g}, bound {bound.kl_nats:.2g}"
        elif not _fits(share, bound.share, whole and name not in MIXED):
            yield f"{name}: share {share:.2g}, bound {bound.share:.2g}"
        elif not _fits(kl_nats, bound.kl_nats, whole and name not in MIXED):
            yield f"{name}: KL {kl_nats:.2g}, bound {bound.kl_nats:.2g}"


def _towers_beyond(rows: list[dict[str, Any]], whole: bool) -> Iterator[str]:
    print(f"\n{'tower':36}{'embedding':>9}{'bound':>9}")
    towers: dict[str, float] = {}
    for row in rows:
        level = level_row(row["level"])
        towers[level.tower] = max(towers.get(level.tower, 0.0), row["vision"])
    for name, apart in towers.items():
        bound = TOWER_LIMITS.get(name)
        if bound is None:
            yield f"tower {name} has no bound"
            continue
        print(f"{name:36}{apart:9.2g}{bound.embedding:9.2g}")
        if not _fits(apart, bound.embedding, whole):
            yield f"tower {name}: {apart:.2g}, bound {bound.embedding:.2g}"


def _fits(value: float, bound: float, closely: bool) -> bool:
    """Whether a bound holds a measured value; closely: and is at most twice it."""
    return value <= bound and (not closely or bound <= max(2 * value, FLOOR))


def measure(model: str, levels: list[str], probes: int, place: Path) -> Iterator[dict[str, Any]]:
    """Yield one row per level of a model."""
    checkpoint = HOUSE / "training/base" if model == "base" else _random(model, place / "checkpoint")
    bundle = place / "bundle"
    (bundle / "shared").mkdir(parents=True)
    for name in PROMPT_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, bundle / "shared" / name)
    engine = open_reference(checkpoint)
    references = take_references(engine, make_probes(probes, Prompter.open(checkpoint).rules))
    engine.close()
    write_sketches(bundle / "probes", Checkpoint.open(checkpoint))
    activations = None
    if any(level_row(name).calibrated for name in levels):
        kinds = ("ct", "mri")
        dataset = write_phantoms(place / "calibration", 12, 1, kinds, per_image=1, roles={"calibration": 1.0})
        activations = calibrate(checkpoint, dataset)
    writers = {"gguf": export_gguf, "onnx": export_onnx, "tensorrt": export_tensorrt}
    for name in levels:
        # one at a time, so that what a row was measured on takes no more room than one level
        entry = writers[level_row(name).format](checkpoint, bundle, [name], activations=activations)[name]
        yield _row(model, Level(bundle, entry), references, place / "work")
        shutil.rmtree(bundle / name)


def _row(model: str, level: Level, references: tuple[Reference, ...], work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    engine = open_dequantised(level, work / "full", 1)
    dequantised = take_answers(engine, references, work / "dequantised", "dequantised")
    engine.close()
    engine = level.open(1)
    own = take_answers(engine, references, work / "own", "own")
    engine.close()
    gap = compare_answers(dequantised, own)
    return {
        "model": model,
        "level": level.entry.name,
        "share": kernel_share(dequantised, own, references),
        "kl_nats": summarise((*gap.prompt, *gap.reply)).kl_mean_nats,
        "vision": gap.vision or 0.0,
        "error": _error(level),
    }


def _error(level: Level) -> float:
    """Return the largest relative error of a tensor, as the certificate estimates it."""
    sketches = read_sketches(level.folder / "probes") or {}
    return max(error.relative for error in weight_errors(level.weights(), sketches, WEIGHT_LIMITS))


def _random(name: str, folder: Path) -> Path:
    sys.path.insert(0, str(HOUSE / "tests"))
    made: Path = importlib.import_module("models").build_random_checkpoint(
        folder, max_pixels=28 * 28 * 64, **RANDOM[name]
    )
    return made


if __name__ == "__main__":
    main()
