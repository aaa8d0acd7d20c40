"""A target says what answers for it, so that a run is gone on with by the same engine only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from infimed.training.adapter import embedded_base
from infimed.training.targets import bundle_target, torch_target


def of_level(level: str, gpu_layers: int = 0) -> Any:
    """Return what computes a level, of a bundle that holds no more than is asked of it here."""
    bundle: Any = SimpleNamespace(
        folder=Path("bundle"),
        entry=lambda name: SimpleNamespace(weight_bytes=1, shared=()),
        manifest=SimpleNamespace(level_digest=lambda name: "0" * 64, provenance={"checkpoint_sha256": "0" * 64}),
    )
    return bundle_target(bundle, level, 3, gpu_layers).computed_by


def test_a_run_is_known_by_what_computes_it() -> None:
    by: Any = torch_target(embedded_base(), 3, "cuda").computed_by
    assert by.keys() == {"library", "version", "device", "threads"}
    assert (by["library"], by["device"], by["threads"]) == ("torch", "cuda", 3)
    assert of_level("gguf-f16", 7).items() >= {"library": "llama-cpp-python", "gpu_layers": 7}.items()
    assert of_level("tensorrt-fp16").items() >= {"library": "onnxruntime", "computes": "graph, not engine"}.items()
    assert "computes" not in of_level("onnx-int4")
    assert (of_level("onnx-int4")["device"], of_level("onnx-int4", 1)["device"]) == ("cpu", "cuda")
