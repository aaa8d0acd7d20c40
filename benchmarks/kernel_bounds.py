"""How much do clean models' kernels and weight types round, so that the certificate can bound both?

Exports every level of the embedded base model and of random checkpoints (as the tests build them), takes the answers of
the level's own engine and of the dequantised one, and prints the largest values per level and per type: the numbers of
export/certificate_limits.py before they are doubled. Run: python benchmarks/kernel_bounds.py [--models base random-0]
[--levels gguf-q8_0 onnx-int4] [--probes 12] [--out FILE]
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
from infimed.export.certificate_statements import kernel_share
from infimed.export.dequantised_level import Level, open_dequantised
from infimed.export.gguf_export import export_gguf
from infimed.export.level_weights import LevelWeight
from infimed.export.onnx_export import export_onnx
from infimed.export.parity import Reference, take_references
from infimed.export.probe_store import read_sketches, write_sketches
from infimed.export.probes import make_probes
from infimed.export.sketch import relative_error, sketch
from infimed.runtime.distance import summarise
from infimed.runtime.levels import LEVELS
from infimed.runtime.levels import level as level_row
from infimed.runtime.prompt import PROMPT_FILES, Prompter
from infimed.training.checkpoint import Checkpoint
from infimed.training.reference import open_reference

HOUSE = Path(__file__).resolve().parent.parent
RANDOM: dict[str, dict[str, Any]] = {
    "random-0": {"seed": 0},
    "random-1": {"seed": 1, "layers": 5},
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
}


def main() -> None:
    """Measure every asked level on every asked model and print one line for each, then the largest values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["base", *RANDOM])
    parser.add_argument("--levels", nargs="*", default=[row.name for row in LEVELS])
    parser.add_argument("--probes", type=int, default=12)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'model':10} {'level':24} {'share':>9} {'KL':>9} {'vision':>9} {'error':>9}")
    for model in given.models:
        with tempfile.TemporaryDirectory() as place:
            for row in measure(model, given.levels, given.probes, Path(place)):
                rows.append(row)
                figures = " ".join(f"{row[key]:>9.2g}" for key in ("share", "kl_nats", "vision", "error"))
                print(f"{model:10} {row['level']:24} {figures}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1), "utf-8")
    print("\nlargest per level: share of the weights' damage, mean KL in nats, usual weight error")
    for level in dict.fromkeys(row["level"] for row in rows):
        mine = [row for row in rows if row["level"] == level]
        share, kl_nats = (max(row[key] for row in mine) for key in ("share", "kl_nats"))
        print(f"  {level:24} {share:9.3g} {kl_nats:9.2g} {min(row['error'] for row in mine):9.2g}")
    print("\nlargest relative error per type of weight")
    for kind in sorted({kind for row in rows for kind in row["types"]}):
        print(f"  {kind:32} {max(row['types'].get(kind, 0.0) for row in rows):9.3g}")


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
        activations = calibrate(checkpoint, dataset.folder)
    for format, writer in (("gguf", export_gguf), ("onnx", export_onnx)):
        if names := [name for name in levels if level_row(name).format == format]:
            for entry in writer(checkpoint, bundle, names, activations=activations).values():
                yield _row(model, Level(bundle, entry), references, place / "work")


def _row(model: str, level: Level, references: tuple[Reference, ...], work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    engine = open_dequantised(level, work / "full", 1)
    dequantised = take_answers(engine, references, work / "dequantised", "dequantised")
    engine.close()
    engine = level.open(1)
    own = take_answers(engine, references, work / "own", "own")
    engine.close()
    gap = compare_answers(dequantised, own)
    types = _types(level)
    return {
        "model": model,
        "level": level.entry.name,
        "share": kernel_share(dequantised, own, references),
        "kl_nats": summarise((*gap.prompt, *gap.reply)).kl_mean_nats,
        "vision": gap.vision,
        "error": max(types.values()),
        "types": types,
    }


def _types(level: Level) -> dict[str, float]:
    """Return the largest relative error of the tensors of each type."""
    sketches = read_sketches(level.folder / "probes") or {}
    found: dict[str, float] = {}
    for weight in level.weights():
        (kind,) = weight.types if len(weight.types) == 1 else (" and ".join(sorted(weight.types)),)
        found[kind] = max(found.get(kind, 0.0), _error(weight, sketches))
    return found


def _error(weight: LevelWeight, sketches: Any) -> float:
    name = weight.name if weight.name in sketches else "model.embed_tokens.weight"
    return relative_error(sketches[name], sketch(weight.blocks(), weight.shape))


def _random(name: str, folder: Path) -> Path:
    sys.path.insert(0, str(HOUSE / "tests"))
    made: Path = importlib.import_module("models").build_random_checkpoint(
        folder, max_pixels=28 * 28 * 64, **RANDOM[name]
    )
    return made


if __name__ == "__main__":
    main()
