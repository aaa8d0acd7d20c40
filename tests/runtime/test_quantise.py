from __future__ import annotations

import numpy as np
import pytest

from infimed.runtime.quantise import BELOW_HALF, BlockFormat, QuantiseError, dequantise, quantise

FORMATS = [BlockFormat(bits, block, symmetric) for bits in (4, 8) for block in (32, 128) for symmetric in (True, False)]


def rows(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Draw rows with blocks of every kind: ordinary, zero, of one sign, of one value, tiny, huge, with outliers."""
    random = np.random.default_rng(seed)
    drawn = random.standard_normal(shape).astype(np.float32)
    drawn[0] = 0
    drawn[1] = np.abs(drawn[1])
    drawn[2] = -np.abs(drawn[2])
    drawn[3] = 0.75
    drawn[4] *= np.float32(1e-30)
    drawn[5] *= np.float32(1e30)
    drawn[6, ::7] = 40
    drawn[7] = np.rint(drawn[7] * 8) / 8  # many ties in rounding
    return drawn


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("columns", [256, 96, 100, 30], ids=str)
def test_blocks_equal_those_of_onnxruntimes_own_quantiser_bit_for_bit(format: BlockFormat, columns: int) -> None:
    peer = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    config = peer.DefaultWeightOnlyQuantConfig(block_size=format.block, is_symmetric=format.symmetric, bits=format.bits)
    weights = rows(columns, (33, columns))
    packed, scales, zero_points = peer.DefaultWeightOnlyQuantizer(config).qbits_block_quant(
        np.ascontiguousarray(weights.T)
    )
    ours = quantise(weights, format)
    assert ours.packed.tobytes() == packed.tobytes()
    assert ours.scales.tobytes() == scales.tobytes()
    if ours.zero_points is not None:
        assert ours.zero_points.tobytes() == zero_points.tobytes()


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_dequantised_rows_are_what_matmulnbits_multiplies_by(format: BlockFormat) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    weights = rows(1, (24, 160))[6:]
    out, inner = weights.shape
    blocks = quantise(weights, format)
    values = {"packed": blocks.packed, "scales": blocks.scales}
    if blocks.zero_points is not None:
        values["zero_points"] = blocks.zero_points
    float32 = onnx.TensorProto.FLOAT
    node = onnx.helper.make_node(
        "MatMulNBits",
        ["x", *values],
        ["y"],
        domain="com.microsoft",
        K=inner,
        N=out,
        bits=format.bits,
        block_size=format.block,
    )
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("x", float32, ["m", inner])],
        [onnx.helper.make_tensor_value_info("y", float32, ["m", out])],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    unit = np.eye(inner, dtype=np.float32)
    assert np.array_equal(session.run(None, {"x": unit})[0].T, dequantise(blocks, inner, format))


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_no_weight_moves_by_more_than_half_a_step_or_the_clipped_end(format: BlockFormat) -> None:
    weights = rows(2, (40, 256))
    blocks = quantise(weights, format)
    step = np.abs(np.repeat(blocks.scales, format.block, axis=1))
    moved = np.abs(dequantise(blocks, 256, format) - weights)
    # a symmetric range lacks one step at its smaller end; an uneven one is shifted by up to half a step
    assert (moved <= step * 1.001).all()
    assert moved.mean() <= 0.3 * step.mean()


def test_halves_round_away_from_zero_and_the_number_just_below_does_not() -> None:
    values = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0)), 1.5, 2.5, 6.4999995], dtype=np.float32)
    assert (values + BELOW_HALF).astype(np.uint8).tolist() == [1, 0, 2, 3, 6]


def test_two_four_bit_integers_share_a_byte_low_one_first() -> None:
    row = np.zeros((1, 32), dtype=np.float32)
    row[0, :3] = [15, 1, 2]
    blocks = quantise(row, BlockFormat(4, 32, symmetric=False))
    assert blocks.scales.tolist() == [[1.0]]
    assert blocks.packed[0, 0, :2].tolist() == [15 | 1 << 4, 2]


def test_the_result_does_not_depend_on_how_many_rows_are_given_at_a_time() -> None:
    format = BlockFormat(4, 32, symmetric=False)
    weights = rows(3, (64, 8192))
    whole = quantise(weights, format)
    parts = [quantise(weights[start : start + 5], format) for start in range(0, 64, 5)]
    assert np.array_equal(whole.packed, np.concatenate([part.packed for part in parts]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_a_row_with_nan_or_infinity_is_refused(format: BlockFormat, value: float) -> None:
    weights = rows(4, (8, 128))
    weights[5, 77] = value
    with pytest.raises(QuantiseError, match="damaged"):
        quantise(weights, format)


def test_bits_per_weight_count_scale_and_zero_point() -> None:
    assert BlockFormat(8, 32, symmetric=True).bits_per_weight == 9.0
    assert BlockFormat(4, 32, symmetric=False).bits_per_weight == 5.125
    with pytest.raises(ValueError, match="power of two"):
        BlockFormat(4, 24, symmetric=True)
