"""What do merge and export take at the size of the real model, beside llama.cpp's and onnxruntime-genai's own tools?

Each step is a process of its own under the meter of anon_memory.py; ours and the peer's follow each other in one run,
on the same checkpoint (checkpoint_3b.py), once read before anything is timed. GGUF files are compared tensor by tensor:
a time beside a file that differs means nothing, so then the run fails. Everything written is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from infimed.benchmarks.anon_memory import Metered, available_bytes, end_tidily, metered
from infimed.benchmarks.checkpoint_3b import SMALL, Size, tensors_of, write_adapter, write_base
from infimed.benchmarks.peers import convert_command, differing, genai_command, genai_folder, quantise_command
from infimed.benchmarks.scale_table import Row, conditions, table
from infimed.runtime.levels import level as level_row
from infimed.runtime.manifest import SHARED
from infimed.runtime.open_engine import GGUF_MODEL, default_threads
from infimed.runtime.shape import is_vision

LADDER = ("gguf-f16", "gguf-q8_0", "gguf-q6_k", "gguf-q5_k_m", "gguf-q4_k_m", "gguf-q4_0")
GGUF_STEPS = {"a": LADDER[:1], "b": ("gguf-q4_k_m",), "c": LADDER}
# Layers of the largest relative that the builder is tried on, downwards; what a parameter takes decides where it ends.
GENAI_LAYERS = (36, 30, 24, 20, 16, 12, 10, 8, 6, 4, 2)
GENAI_BYTES = 7.0
"""Per parameter of the decoder, a little below what the builder was seen to take: sizes far too large are not tried."""
MEMORY_SHARE = 0.85
"""Of the memory that is available: what a peer may take before it is ended."""
_CLI = "from infimed.cli.app import main; main()"


@dataclass(frozen=True)
class Place:
    """Where a run works. folder: on a disk with room for three times the checkpoint. limit_bytes: of one process."""

    folder: Path
    base: Path
    size: Size
    threads: int
    limit_bytes: int

    def run(self, command: list[str], **environment: str) -> Metered:
        """Run a command under the meter; SystemExit where it fails for another reason than memory."""
        found = metered(command, environment=environment, limit_bytes=self.limit_bytes)
        if found.code and not found.over_limit:
            raise SystemExit(f"{' '.join(command)[:300]} ended with {found.code}:\n{found.errors}")
        return found

    def child(self, what: str, out: Path, *levels: str, base: Path | None = None) -> Metered:
        """Run one of our own steps in a process of its own."""
        return self.run([sys.executable, __file__, "--child", what, str(base or self.base), str(out),
                         str(self.threads), *levels])  # fmt: skip


def merge(place: Place) -> Iterator[Row]:
    """Yield what `infimed train merge` takes, with the check that it chooses itself."""
    adapter = write_adapter(place.folder / "adapter", place.base, place.size)
    with _emptied(place.folder / "merged") as out:
        command = [sys.executable, "-c", _CLI, "train", "merge", str(adapter), "--out", str(out), "--json"]
        found = place.run([*command, "--threads", str(place.threads)])
        told = json.loads(found.output)
        yield Row("merge", "infimed", (found,), _size_of(out), note=f"check {told['check']}")


def gguf(place: Place, step: str) -> Iterator[Row]:
    """Yield our export of the step's levels beside conversions and quantisations by llama.cpp; compare the files.

    Each of the peer's levels starts from the checkpoint, as its tools do; the vision tower is converted once. A second
    row of the peer's keeps the f16 file between the levels.
    """
    levels = GGUF_STEPS[step]
    with _emptied(place.folder / "ours") as ours, _emptied(place.folder / "theirs") as theirs:
        mine = place.child("gguf", ours, *levels)
        yield Row(step, "infimed", (mine,), _size_of(ours), levels=levels)
        tower = theirs / "mmproj.gguf"
        seeing = place.run(_convert(place, tower, "--mmproj"))
        _require_equal(ours / SHARED / "mmproj-f16.gguf", tower)
        converted, quantised, written = [], [], tower.stat().st_size
        for name in levels:
            half, target = theirs / "f16.gguf", theirs / "quantised.gguf"
            converted.append(place.run(_convert(place, half)))
            if (storage := level_row(name).storage) != "F16":
                quantised.append(place.run(quantise_command(half, target, storage, place.threads)))
            made = target if target.is_file() else half
            written += made.stat().st_size
            _require_equal(ours / name / GGUF_MODEL, made)
            for path in (half, target):
                path.unlink(missing_ok=True)
        yield Row(step, "llama.cpp", (seeing, *converted, *quantised), written, levels=levels, note="tensors equal")
        if len(converted) > 1:
            yield Row(step, "llama.cpp, f16 kept", (seeing, converted[0], *quantised), written, levels=levels)


def onnx(place: Place, genai_layers: tuple[int, ...]) -> Iterator[Row]:
    """Yield the traced decoder and our int4 level at full size, and int4 beside the builder's where that ends."""
    parameters = _decoder_parameters(place.size)
    with _emptied(place.folder / "onnx") as out:
        traced = place.child("trace", out)
        yield Row("d", "infimed, graph only", (traced,), 0, parameters=parameters, note=traced.output.strip())
        whole = place.child("onnx", out, "onnx-int4")
        yield Row("d", "infimed int4", (whole,), _size_of(out), parameters=parameters, note="with the vision tower")
    for layers in genai_layers:
        size = replace(place.size, layers=layers)
        parameters = _decoder_parameters(size)
        if parameters * GENAI_BYTES > place.limit_bytes:
            yield Row("d", f"genai int4, {layers} layers", (), 0, parameters=parameters, note="not tried: memory")
            continue
        with _emptied(place.folder / "relative") as base, _emptied(place.folder / "theirs") as theirs:
            write_base(base, size)
            command = genai_command(base, theirs / "out", theirs / "work")
            found = place.run(command, PYTHONPATH=_python_path(), HF_HUB_OFFLINE="1")
            note = f"ended at {place.limit_bytes / 1e9:.1f} GB" if found.over_limit else "decoder alone"
            written = _size_of(theirs / "out")
            yield Row("d", f"genai int4, {layers} layers", (found,), written, parameters=parameters, note=note)
            if found.over_limit:
                continue
            with _emptied(place.folder / "onnx") as out:
                beside = place.child("onnx", out, "onnx-int4", base=base)
                name = f"infimed int4, {layers} layers"
                yield Row("d", name, (beside,), _size_of(out), parameters=parameters, note="with the vision tower")
            return


def child(what: str, base: Path, out: Path, threads: int, levels: list[str]) -> None:
    """Do one step of ours, alone in its process."""
    if what == "gguf":
        from infimed.export.gguf_export import export_gguf

        export_gguf(base, out, levels, threads=threads)
    elif what == "onnx":
        from infimed.export.onnx_export import export_onnx

        export_onnx(base, out, levels, threads=threads)
    else:
        from infimed.export.graph_model import read_config
        from infimed.export.onnx_decoder import DecoderNumbers, trace_decoder

        model = trace_decoder(DecoderNumbers.of(read_config(base)))
        print(f"{len(model.graph.node):,} nodes, no weights")


class _emptied:
    """A folder that is new, and gone afterwards whatever happens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._folder.name != "merged":  # which merge makes itself
            self._folder.mkdir()
        return self._folder

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _require_equal(ours: Path, theirs: Path) -> None:
    if wrong := differing(ours, theirs)[0]:
        raise SystemExit(f"{ours.name}: {len(wrong)} tensors differ from {theirs.name}, {wrong[0]} first")


def _convert(place: Place, out: Path, *options: str) -> list[str]:
    known = "" if place.size.is_real_vocabulary else "qwen2"
    return convert_command(place.base, out, "--outtype", "f16", *options, known=known)


def _python_path() -> str:
    return os.pathsep.join(filter(None, (str(genai_folder()), os.environ.get("PYTHONPATH", ""))))


def _decoder_parameters(size: Size) -> int:
    return sum(int(np.prod(spec.shape)) for spec in tensors_of(size) if not is_vision(spec.name))


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _warm(folder: Path) -> None:
    """Read a checkpoint once: whoever comes first would else pay for the disk."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as stream:
            while stream.read(1 << 24):
                pass


def main() -> None:
    """Run the steps that are asked for and print a Markdown table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tiny relative: that it runs, not what it shows")
    parser.add_argument("--layers", type=int, help="of the text model; default 36")
    parser.add_argument("--steps", default="merge,a,b,c,d", help="which, by commas; default merge,a,b,c,d")
    parser.add_argument(
        "--genai-layers", help="layers that genai's builder is tried on, by commas, largest first; 0: none"
    )
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--folder", type=Path, help="where to work; default the system's temporary folder")
    parser.add_argument("--json", type=Path, help="write conditions and rows here as well")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, base, out, threads, *levels = given.child
        child(what, Path(base), Path(out), int(threads), levels)
        return
    size = SMALL if given.small else Size()
    size = replace(size, layers=given.layers or size.layers)
    named = tuple(int(text) for text in given.genai_layers.split(",")) if given.genai_layers else GENAI_LAYERS
    genai_layers = tuple(layers for layers in named if 0 < layers <= size.layers)
    rows: list[Row] = []
    end_tidily()
    with tempfile.TemporaryDirectory(prefix="infimed-scale-", dir=given.folder) as name:
        base = write_base(Path(name) / "base", size)
        _warm(base)
        place = Place(Path(name), base, size, given.threads, int(MEMORY_SHARE * available_bytes()))
        steps: dict[str, Callable[[], Iterator[Row]]] = {
            "merge": lambda: merge(place),
            **{step: (lambda step=step: gguf(place, step)) for step in GGUF_STEPS},  # type: ignore[misc]
            "d": lambda: onnx(place, genai_layers),
        }
        told: dict[str, Any] = {**conditions(given.threads), "checkpoint_bytes": _size_of(base), "layers": size.layers}
        print(json.dumps(told), flush=True)
        for step in given.steps.split(","):
            if step not in steps:
                parser.error(f"step {step!r} is unknown; there are {', '.join(steps)}")
            for row in steps[step]():
                rows.append(row)
                print(f"{row.step}: {row.tool}, {row.wall_s:.1f} s, {row.anon_bytes / 1e9:.2f} GB", flush=True)
                if given.json:
                    value = {**told, "rows": [row.to_json() for row in rows]}
                    given.json.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
