"""Which way of multiplying by quantised weights is right and fast in onnxruntime on this processor?

One matrix (1024 -> 4096) of normal numbers, written as every ONNX level writes its matrices, and as TensorRT levels do:
those once as their graphs are written and once as onnxruntime takes them by default. Prints how far the stored weights
lie from the given ones (root mean square, relative), the processor time of a call, and the largest error of the output
against float64 with the stored weights, as a share of the largest output.
Run: python benchmarks/onnx_matmul.py [--threads 1] [--repeat 9] [--levels onnx-int4 onnx-int4-acc4]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from infimed.export.onnx_blocks import BlockStorage
from infimed.export.onnx_schemes import SCHEMES
from infimed.export.onnx_source import Source
from infimed.export.onnx_stored import read_weights
from infimed.export.onnx_weights import Scheme, write_graph
from infimed.export.tensorrt_export import ROUNDED
from infimed.runtime.onnx_session import open_session
from infimed.runtime.quantise import BlockFormat
from infimed.training.checkpoint import Checkpoint

INNER, OUT = 1024, 4096
ROWS = (1, 8, 128)
NAME, STEM = "one.weight", "one"


@dataclass(frozen=True)
class Way:
    """One row of the table. as_written: onnxruntime is kept from fusing Q/DQ into products of its own."""

    name: str
    scheme: Scheme
    as_written: bool


def ways() -> Iterator[Way]:
    """Yield every ONNX level's way, two that became none, then those of TensorRT's rounded levels in onnxruntime."""
    for storage, scheme in SCHEMES.items():
        yield Way(f"onnx-{storage}", Scheme(scheme.matrices, dtype=scheme.dtype), False)
    for format in (BlockFormat(8, 32, symmetric=False), BlockFormat(4, 32, symmetric=True)):
        yield Way(format.name, Scheme(BlockStorage(format)), False)
    for storage, rounded in ROUNDED.items():
        if rounded:
            scheme = Scheme(rounded, dtype="float16")
            yield Way(f"tensorrt-{storage}, as written", scheme, True)
            yield Way(f"tensorrt-{storage}, fused", scheme, False)


def write(checkpoint: Checkpoint, scheme: Scheme, largest: float, folder: Path) -> Path:
    """Write a graph of one product by the checkpoint's matrix; return its path. largest: of what it multiplies."""
    kind = TensorProto.FLOAT16 if scheme.dtype == "float16" else TensorProto.FLOAT
    sides: dict[str, list[str | int]] = {NAME: [INNER, OUT], "x": ["rows", INNER], "y": ["rows", OUT]}
    weight, given, made = (helper.make_tensor_value_info(name, kind, shape) for name, shape in sides.items())
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", NAME], ["y"], name="MatMul")], "one", [weight, given], [made]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    source = Source(checkpoint, NAME, (OUT, INNER))
    write_graph(model, folder, STEM, {NAME: source}, scheme, ranges={NAME: largest})
    return folder / f"{STEM}.onnx"


def stored_in(path: Path) -> NDArray[np.float64]:
    """Return the matrix (out, in) that a graph multiplies by; of Q/DQ that bears its name, by onnx's own reference."""
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(path))
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and list(node.output) == [NAME]:
            parts = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
            value = helper.make_tensor_value_info(NAME, TensorProto.FLOAT16, None)
            one = helper.make_graph([node], "one", [], [value], parts)
            read = helper.make_model(one, opset_imports=model.opset_import, ir_version=10)
            evaluator: Any = ReferenceEvaluator(read)
            return np.asarray(evaluator.run(None, {})[0].astype(np.float64).T)
    ((_, stored),) = read_weights(path.parent, STEM)
    return stored.astype(np.float64)


def times_ms(session: Any, x: NDArray[Any], repeat: int) -> list[float]:
    """Return the processor time of each call."""
    found = []
    for _ in range(repeat):
        start = time.process_time()
        session.run(None, {"x": x})
        found.append(1e3 * (time.process_time() - start))
    return found


def main() -> None:
    """Measure every way and print one line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--levels", nargs="*", help="these alone, such as onnx-int4 (default: all)")
    given = parser.parse_args()
    import onnxruntime  # after infimed, which turns its telemetry off before it is imported

    library = f"onnxruntime {onnxruntime.__version__}, {platform.machine()}"
    print(
        f"{library}, {given.threads} threads, median of {given.repeat}; ms of processor time, spread between quartiles"
    )
    print(f"{'as written by':28} {'weights':>8} {'rows':>4} {'ms':>8} {'spread':>7} {'output':>8}")
    random = np.random.default_rng(0)
    weights = (0.05 * random.standard_normal((OUT, INNER))).astype(np.float32)
    asked = {rows: random.standard_normal((rows, INNER)).astype(np.float32) for rows in ROWS}
    largest = max(float(np.abs(x).max()) for x in asked.values())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_file({NAME: weights}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({}))
        for number, way in enumerate(ways()):
            if given.levels and way.name.split(",")[0] not in given.levels:
                continue
            (folder / str(number)).mkdir()
            path = write(Checkpoint.open(folder), way.scheme, largest, folder / str(number))
            stored = stored_in(path)
            apart = np.linalg.norm(stored - weights) / np.linalg.norm(weights)
            session = open_session(path, given.threads, ("CPUExecutionProvider",), as_written=way.as_written)
            for rows, values in asked.items():
                x = values.astype(np.float16) if way.scheme.dtype == "float16" else values
                exact = x.astype(np.float64) @ stored.T
                error = np.abs(session.run(None, {"x": x})[0] - exact).max() / np.abs(exact).max()
                found = times_ms(session, x, given.repeat)
                low, _, high = statistics.quantiles(found, n=4)
                figures = f"{statistics.median(found):8.2f} {high - low:7.2f} {error:8.1e}"
                print(f"{way.name:28} {apart:8.2%} {rows:4} {figures}", flush=True)


if __name__ == "__main__":
    main()
