"""How far is the planned memory from the resident memory of a level that really answers?

Two random models of at least 200 MB are written at every level of both engines; each level is opened in a process of
its own, shown an image, and asked a question that fills its context. Measured is the peak resident memory above that of
the same process when it had only imported its libraries.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import infimed
from infimed.devices.memory import MB, Use, memory_need
from infimed.devices.weights import PLANNED_LEVELS, predict
from infimed.runtime.levels import level
from infimed.runtime.manifest import SHARED, LevelEntry
from infimed.runtime.messages import ImagePart, user
from infimed.runtime.open_engine import open_level
from infimed.runtime.prompt import PROMPT_FILES, Prompter
from infimed.runtime.shape import ModelShape

USES = (Use(2048, 448**2), Use(1024, 672**2))
MODELS: dict[str, dict[str, Any]] = {
    # Most weights in the language model, embedding tied to the head.
    "language": {
        "hidden": 1024,
        "ffn": 2816,
        "layers": 12,
        "heads": 16,
        "kv_heads": 4,
        "vision_hidden": 512,
        "vision_ffn": 1408,
        "vision_depth": 8,
        "vision_heads": 8,
        "fullatt_block_indexes": (3, 7),
        "vocabulary": 8192,
        "tied": True,
    },
    # Most weights in the vision tower; a large vocabulary with a head of its own.
    "vision": {
        "hidden": 768,
        "ffn": 2048,
        "layers": 8,
        "heads": 12,
        "kv_heads": 2,
        "vision_hidden": 1024,
        "vision_ffn": 2816,
        "vision_depth": 12,
        "vision_heads": 16,
        "fullatt_block_indexes": (2, 5, 8, 11),
        "vocabulary": 32768,
        "tied": False,
    },
}
# The factors of devices/memory.py were fitted to the models above; this one, and its uses, they have never seen.
HELD_OUT_MODELS: dict[str, dict[str, Any]] = {
    "held-out": {
        "hidden": 1280,
        "ffn": 3328,
        "layers": 6,
        "heads": 20,
        "kv_heads": 4,
        "vision_hidden": 768,
        "vision_ffn": 2048,
        "vision_depth": 10,
        "vision_heads": 12,
        "fullatt_block_indexes": (4, 9),
        "vocabulary": 16384,
        "tied": True,
    },
}
HELD_OUT_USES = (Use(4096, 560**2), Use(1536, 336**2))
QUICK_MODELS: dict[str, dict[str, Any]] = {"tiny": {}}


@dataclass(frozen=True)
class Row:
    """One level of one model in one use: memory above the libraries in bytes, predicted and measured."""

    model: str
    level: str
    use: Use
    predicted_bytes: int
    measured_bytes: int
    libraries_bytes: int
    weights_predicted_bytes: int
    weights_bytes: int

    @property
    def error(self) -> float:
        """Predicted against measured: above zero the plan asks for more than was used."""
        return self.predicted_bytes / self.measured_bytes - 1


def measure(models: dict[str, dict[str, Any]], uses: tuple[Use, ...], names: list[str], threads: int) -> Iterator[Row]:
    """Yield a row per model, level and use."""
    from infimed.tests.models import build_random_checkpoint

    for model, sizes in models.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            checkpoint = build_random_checkpoint(folder / "checkpoint", dtype="bfloat16", max_pixels=10**7, **sizes)
            shape = ModelShape.read(checkpoint)
            for name in names:
                entry = _write(checkpoint, folder / name, name)
                for use in uses:
                    yield _measure_level(model, shape, folder / name, entry, use, threads)


def _measure_level(model: str, shape: ModelShape, folder: Path, entry: LevelEntry, use: Use, threads: int) -> Row:
    arguments = [str(folder), json.dumps(asdict(entry)), json.dumps(asdict(use)), str(threads)]
    done = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{model} {entry.name} failed:\n{done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    weights = predict(shape, level(entry.name))
    need = memory_need(shape, weights, use)
    return Row(
        model,
        entry.name,
        use,
        need.above_libraries_bytes,
        told["peak_bytes"] - told["libraries_bytes"],
        told["libraries_bytes"],
        weights.total_bytes,
        entry.weight_bytes,
    )


def _write(checkpoint: Path, out: Path, name: str) -> LevelEntry:
    (out / SHARED).mkdir(parents=True)
    for file in PROMPT_FILES:
        if (checkpoint / file).is_file():
            shutil.copyfile(checkpoint / file, out / SHARED / file)
    if level(name).format == "gguf":
        from infimed.export.gguf_export import export_gguf

        return export_gguf(checkpoint, out, (name,))[name]
    from infimed.export.onnx_export import export_onnx

    return export_onnx(checkpoint, out, (name,))[name]


def _resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads /proc/self/status and needs Linux")


def child(folder: Path, entry_json: str, use_json: str, threads: int) -> None:
    """Open a level, fill its context once, answer, and print the memory before and at the peak."""
    value, use = json.loads(entry_json), Use(**json.loads(use_json))
    entry = LevelEntry(value["name"], tuple(value["files"]), tuple(value["shared"]), {}, value["weight_bytes"])
    prompter = Prompter.open(folder / SHARED)
    if level(entry.name).format == "gguf":
        from infimed.runtime.llama_library import llama_library

        llama_library()
    else:
        import onnxruntime

        assert onnxruntime.__version__
    libraries = _resident_bytes("VmRSS")
    engine = open_level(folder, entry, threads=threads, context_tokens=use.context_tokens)
    side = math.isqrt(use.image_pixels)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    image = ImagePart(noise)
    words = "How many lesions does this image show? "
    text = words
    while len(prompter.prompt([user(image, text + words)]).token_ids) < use.context_tokens - 16:
        text += words
    engine.score([user(image, text)], ["yes", "no"])
    peak = _resident_bytes("VmHWM")
    engine.close()
    print(json.dumps({"libraries_bytes": libraries, "peak_bytes": peak}))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one tiny model: that it runs, not what it shows")
    parser.add_argument("--held-out", action="store_true", help="a model and uses that the plan was not fitted to")
    parser.add_argument("--level", action="append", help="only these levels")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child[0]), given.child[1], given.child[2], int(given.child[3]))
        return
    names = given.level or [row.name for row in PLANNED_LEVELS]
    print(f"infimed {infimed.__version__}, {given.threads} threads, load {os.getloadavg()[0]:.1f}")
    columns = ("context", "image", "predicted MB", "measured MB", "error", "libraries MB", "weights MB: plan/file")
    print(f"{'model':9} {'level':12} {'  '.join(columns)}")
    rows = []
    models = QUICK_MODELS if given.quick else HELD_OUT_MODELS if given.held_out else MODELS
    for row in measure(models, HELD_OUT_USES if given.held_out else USES, names, given.threads):
        rows.append(row)
        print(
            f"{row.model:9} {row.level:12} {row.use.context_tokens:7} {math.isqrt(row.use.image_pixels):6} "
            f"{row.predicted_bytes / MB:13.0f} {row.measured_bytes / MB:12.0f} {row.error:+7.1%} "
            f"{row.libraries_bytes / MB:13.0f} {row.weights_predicted_bytes / MB:11.0f}/{row.weights_bytes / MB:.0f}",
            flush=True,
        )
    print(f"error: {min(row.error for row in rows):+.1%} .. {max(row.error for row in rows):+.1%}")
    if given.json:
        given.json.write_text(json.dumps([{**asdict(row), "error": row.error} for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
