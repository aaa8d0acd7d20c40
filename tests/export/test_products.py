"""What onnxruntime makes of one product, by each way that levels store its matrix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

for _library in ("onnx", "onnxruntime"):
    pytest.importorskip(_library)

from safetensors.numpy import save_file  # noqa: E402

from infimed.benchmarks.onnx_matmul import INNER, NAME, OUT, Way, stored_in, ways, write  # noqa: E402
from infimed.runtime.onnx_session import open_session  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402

# Largest error of the output, as a share of the largest output, between which each way lies.
FLOAT, HALF, ROUNDED = (0.0, 5e-6), (5e-5, 6e-4), (2e-3, 2e-2)
EXPECTED = {
    **dict.fromkeys(("onnx-fp32", "onnx-int8", "int8-block32-asymmetric", "int4-block32-symmetric"), FLOAT),
    **{f"onnx-int4{block}{method}": FLOAT for block in ("", "-b128") for method in ("", "-hqq", "-kquant")},
    "onnx-fp16": HALF,
    **dict.fromkeys(("onnx-int8-acc4", "onnx-int8-dynamic", "onnx-int8-static", "onnx-int4-acc4"), ROUNDED),
    "tensorrt-int4, as written": HALF,
    "tensorrt-int4, fused": ROUNDED,  # onnxruntime rounds activations to 8 bits there, and so it is kept from it
    **dict.fromkeys(("tensorrt-int8, as written", "tensorrt-int8, fused"), ROUNDED),
}


@pytest.mark.parametrize("way", list(ways()), ids=lambda way: way.name)
def test_a_product_errs_as_its_kernel_is_said_to(way: Way, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    save_file({NAME: random.standard_normal((OUT, INNER)).astype(np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({}))
    x = random.standard_normal((8, INNER)).astype(np.float16 if way.scheme.dtype == "float16" else np.float32)
    path = write(Checkpoint.open(tmp_path), way.scheme, float(np.abs(x).max()), tmp_path)
    session = open_session(path, 1, ("CPUExecutionProvider",), as_written=way.as_written)
    exact = x.astype(np.float64) @ stored_in(path).T
    error = np.abs(session.run(None, {"x": x})[0] - exact).max() / np.abs(exact).max()
    least, most = EXPECTED[way.name]
    assert least <= error <= most


def test_every_way_is_expected() -> None:
    assert {way.name for way in ways()} == set(EXPECTED)
