"""Levels whose activations are 8 bits: held against onnxruntime's own quantize_dynamic and quantize_static."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(_library)
from infimed.runtime.onnx_backend import OnnxBackend  # noqa: E402

from ..onnx_levels import Exported, tiny_levels  # noqa: E402

IDS, POSITIONS = np.arange(3, 40), np.tile(np.arange(37), (3, 1))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return tiny_levels(tmp_path_factory)


def initialisers(path: Path) -> dict[str, np.ndarray]:
    import onnx

    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


def weights_of(found: dict[str, np.ndarray]) -> list[str]:
    return [name.removesuffix(".integers") for name, values in found.items() if name.endswith(".weight.integers")]


def test_a_dynamic_level_is_what_onnxruntime_makes_of_the_full_one(exported: Exported, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(exported.bundle / "onnx-fp32/decoder.onnx"),
        str(tmp_path / "decoder.onnx"),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
        extra_options={"MatMulConstBOnly": True},
    )
    theirs = initialisers(tmp_path / "decoder.onnx")
    ours = initialisers(exported.bundle / "onnx-int8-dynamic/decoder.onnx")
    names = weights_of(ours)
    assert len(names) == 15
    for name in names:
        assert np.array_equal(ours[f"{name}.integers"], theirs[f"{name}_quantized"])
        assert np.array_equal(ours[f"{name}.scales"], theirs[f"{name}_scale"].ravel())
    rows = [
        OnnxBackend(folder, exported.bundle / "shared", threads=1, context_tokens=64).extend(IDS, POSITIONS, (), 37)
        for folder in (tmp_path, exported.bundle / "onnx-int8-dynamic")
    ]
    assert np.abs(rows[0] - rows[1]).max() < 1e-4


def test_products_of_the_same_values_round_them_once(exported: Exported) -> None:
    import onnx

    for level, kind in (("onnx-int8-dynamic", "DynamicQuantizeLinear"), ("onnx-int8-static", "QuantizeLinear")):
        nodes = onnx.load(str(exported.bundle / level / "decoder.onnx"), load_external_data=False).graph.node
        # of a layer: what q, k and v are given, o, what gate and up are given, down; and the head's
        assert sum(node.op_type == kind for node in nodes) == 4 * 2 + 1
        assert sum(node.op_type in ("MatMulInteger", "MatMul") for node in nodes) >= 7 * 2 + 1


def test_a_static_level_has_the_scales_that_onnxruntime_finds_on_the_same_data(
    exported: Exported, tmp_path: Path
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    from ..onnx_activations import Watched

    full = exported.bundle / "onnx-fp32/decoder.onnx"
    watched = Watched(full)
    random = np.random.default_rng(5)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            past = {name: np.zeros((0, *shape[1:]), np.float32) for name, shape in watched.past.items()}
            self.rows = [
                {
                    "inputs_embeds": random.standard_normal((1, count, 256)).astype(np.float32),
                    "position_ids": np.tile(np.arange(count), (3, 1, 1)),
                    "attention_mask": np.ones((1, count), np.int64),
                    "logit_rows": np.arange(count),
                    **past,
                }
                for count in (7, 19)
            ]
            self._next = iter(self.rows)

        def get_next(self) -> Any:
            return next(self._next, None)

    reader = Reader()
    quantize_static(
        str(full),
        str(tmp_path / "decoder.onnx"),
        reader,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "MatMulConstBOnly": True},
    )
    theirs = initialisers(tmp_path / "decoder.onnx")
    ours = export_static(exported, [watched.run(feeds)[1] for feeds in reader.rows], tmp_path / "ours")
    import onnx

    nodes = {node.output[0]: node for node in onnx.load(str(tmp_path / "ours/decoder.onnx")).graph.node}
    for name in weights_of(ours):
        assert np.array_equal(ours[f"{name}.integers"], theirs[f"{name}_quantized"])
        assert np.array_equal(ours[f"{name}.scales"], theirs[f"{name}_scale"].ravel())
        (product,) = [node for node in nodes.values() if f"{name}.dequantised" in node.input]
        rounded = nodes[nodes[product.input[0]].input[0]]
        assert rounded.op_type == "QuantizeLinear"
        assert ours[rounded.input[1]] == theirs[f"{rounded.input[0]}_scale"]
        assert ours[rounded.input[2]] == theirs[f"{rounded.input[0]}_zero_point"] == 0


def export_static(exported: Exported, seen: list[dict[str, np.ndarray]], folder: Path) -> dict[str, np.ndarray]:
    """Write a static decoder with the ranges of what was seen, and return its initialisers."""
    from infimed.export import onnx_decoder, onnx_schemes, onnx_weights
    from infimed.export.graph_model import GraphModel

    model = GraphModel.open(exported.checkpoint)
    ranges = {name: max(float(np.abs(part[name]).max()) for part in seen) for name in seen[0]}
    folder.mkdir()
    onnx_weights.write_graph(
        onnx_decoder.trace_decoder(model.decoder),
        folder,
        "decoder",
        model.text,
        onnx_schemes.SCHEMES["int8-static"],
        ranges=ranges,
    )
    return initialisers(folder / "decoder.onnx")
