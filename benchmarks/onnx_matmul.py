"""Which way of multiplying by quantised weights is right and fast in onnxruntime on this processor?

One matrix (1024 -> 4096, blocks of 32) by MatMulNBits at 4 and 8 bits, with float32 and with 8-bit activations, beside
float32 MatMul. Prints the processor time of a call and the error against float64 with the same dequantised weights.
Run: python benchmarks/onnx_matmul.py [--threads 1] [--repeat 9]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import infimed  # noqa: F401  (turns the library's telemetry off before it is imported)
from infimed.runtime.quantise import BlockFormat, dequantise, quantise

INNER, OUT = 1024, 4096


def main() -> None:
    """Measure every way and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=9)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    weights = (0.05 * random.standard_normal((OUT, INNER))).astype(np.float32)
    library = f"onnxruntime {onnxruntime.__version__}, {platform.machine()}"
    print(f"{library}, {given.threads} threads, median of {given.repeat}")
    print(f"{'weights':24} {'activations':12} {'rows':>4} {'ms':>8} {'spread':>7} {'error':>8}")
    turned = np.ascontiguousarray(weights.T)
    _measure("float32", "float32", _session(given.threads, "MatMul", {"b": turned}), weights, given.repeat)
    for bits in (8, 4):
        for symmetric in (True, False):
            format = BlockFormat(bits, 32, symmetric)
            blocks = quantise(weights, format)
            inputs = {"packed": blocks.packed, "scales": blocks.scales}
            if blocks.zero_points is not None:
                inputs["zero_points"] = blocks.zero_points
            stored = dequantise(blocks, INNER, format)
            for activations, level in (("float32", 0), ("int8", 4)):
                session = _session(
                    given.threads,
                    "MatMulNBits",
                    inputs,
                    domain="com.microsoft",
                    K=INNER,
                    N=OUT,
                    bits=bits,
                    block_size=32,
                    accuracy_level=level,
                )
                _measure(format.name, activations, session, stored, given.repeat)


def _session(threads: int, kind: str, inputs: dict[str, Any], **attributes: Any) -> Any:
    node = helper.make_node(kind, ["x", *inputs], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", INNER])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUT])],
        [numpy_helper.from_array(value, name) for name, value in inputs.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _measure(weights: str, activations: str, session: Any, stored: np.ndarray, repeat: int) -> None:
    random = np.random.default_rng(1)
    for rows in (1, 8, 128):
        x = random.standard_normal((rows, INNER)).astype(np.float32)
        exact = x.astype(np.float64) @ stored.T.astype(np.float64)
        error = np.abs(session.run(None, {"x": x})[0] - exact).max() / np.abs(exact).max()
        times_ms = []
        for _ in range(repeat):
            start = time.process_time()
            session.run(None, {"x": x})
            times_ms.append(1e3 * (time.process_time() - start))
        low, *_, high = statistics.quantiles(times_ms, n=4)
        print(
            f"{weights:24} {activations:12} {rows:4} {statistics.median(times_ms):8.2f} {high - low:7.2f} {error:8.1e}"
        )


if __name__ == "__main__":
    main()
