"""k-quant, HQQ and int8 per channel, held against onnxruntime's own quantisers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from infimed.runtime.channels import dequantise_channels, quantise_channels, symmetric_scale
from infimed.runtime.hqq import fit_hqq, quantise_hqq
from infimed.runtime.kquant import quantise_kquant
from infimed.runtime.quantise import BlockFormat, Blocks, QuantiseError, dequantise, quantise, unpack

SIZES = [(4, 32), (4, 128), (8, 32)]


def both_signs(seed: int, shape: tuple[int, int], block: int) -> np.ndarray:
    """Draw rows of every scale whose blocks all hold numbers of both signs, as a trained matrix's do."""
    random = np.random.default_rng(seed)
    drawn = random.standard_normal(shape).astype(np.float32)
    drawn[1] *= np.float32(1e-3)
    drawn[2] *= np.float32(1e3)
    drawn[3, ::7] = 40
    drawn[4] = np.rint(drawn[4] * 8) / 8  # many ties in rounding
    drawn[:, ::block] = np.abs(drawn[:, ::block]) + np.float32(1e-6)
    drawn[:, 1::block] = -np.abs(drawn[:, 1::block]) - np.float32(1e-6)
    return drawn


def one_sign(seed: int) -> np.ndarray:
    """Draw rows whose blocks hold numbers of one sign, or one number only."""
    drawn = both_signs(seed, (8, 128), 32)
    drawn[:3] = np.abs(drawn[:3]) + np.float32(0.5)
    drawn[3:6] = -np.abs(drawn[3:6]) - np.float32(0.5)
    drawn[6], drawn[7] = 0.75, 0
    return drawn


def padded(weights: np.ndarray, block: int) -> np.ndarray:
    return np.pad(weights, ((0, 0), (0, -weights.shape[1] % block)))


@pytest.mark.parametrize(("bits", "block"), SIZES)
@pytest.mark.parametrize("columns", [256, 160, 100], ids=str)
def test_k_quant_equals_onnxruntimes_bit_for_bit(bits: int, block: int, columns: int) -> None:
    peer = pytest.importorskip("onnxruntime.quantization.neural_compressor.weight_only")
    weights = both_signs(columns, (33, columns), block)
    integers, scales, zeros = peer.quant_tensor_k_quant_cpu(padded(weights, block), bits, block)
    ours = quantise_kquant(weights, BlockFormat(bits, block, symmetric=False))
    assert np.array_equal(unpack(ours.packed, bits).reshape(integers.shape), integers)
    assert np.array_equal(ours.scales.ravel(), scales.astype(np.float32).ravel())
    assert ours.zero_points is not None
    blocks = ours.scales.shape[1]
    assert np.array_equal(unpack(ours.zero_points.astype(np.uint8), bits)[:, :blocks].ravel(), zeros.ravel())


def test_k_quant_keeps_blocks_of_one_sign_that_onnxruntime_loses() -> None:
    peer = pytest.importorskip("onnxruntime.quantization.neural_compressor.weight_only")
    weights, format = one_sign(0), BlockFormat(4, 32, symmetric=False)
    integers, scales, zeros = peer.quant_tensor_k_quant_cpu(weights, 4, 32)
    theirs = ((integers - zeros) * scales).reshape(weights.shape)
    ours = dequantise(quantise_kquant(weights, format), 128, format)
    step = np.repeat(quantise(weights, format).scales, 32, axis=1)
    assert np.abs(theirs - weights).max() > 0.5
    # the widened range is tried with up to one step less, and its zero point is rounded
    assert (np.abs(ours - weights) <= 1.6 * step).all()


def test_k_quant_leaves_less_weighted_error_than_rounding_in_blocks_of_128() -> None:
    # in blocks of 32 it does not: rounding its zero points at the end undoes what the search found
    weights, format = both_signs(5, (64, 4096), 128)[5:], BlockFormat(4, 128, symmetric=False)
    importance = np.abs(weights).reshape(-1, 128)
    importance = importance + np.sqrt((importance**2).mean(axis=1, keepdims=True))

    def error(blocks: Blocks) -> float:
        difference = (dequantise(blocks, 4096, format) - weights).reshape(-1, 128)
        return float((importance * difference**2).mean())

    assert error(quantise_kquant(weights, format)) < error(quantise(weights, format))


@pytest.mark.parametrize(("bits", "block"), SIZES)
@pytest.mark.parametrize("columns", [256, 160, 100], ids=str)
def test_hqq_equals_onnxruntimes_within_float_error(bits: int, block: int, columns: int) -> None:
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    weights = both_signs(columns, (33, columns), block)
    weights[4] = weights[5]  # a weight at a half may fall to either side
    quantizer = peer.HQQWeightOnlyQuantizer(peer.HQQWeightOnlyQuantConfig(block_size=block, bits=bits))
    integers, scales, zeros = quantizer.quantize_internal(torch.from_numpy(weights), bits=bits, group_size=block)
    ours = hqq(weights, BlockFormat(bits, block, symmetric=False, float_zeros=True))
    assert np.array_equal(ours.scales, scales.numpy())
    assert ours.zero_points is not None
    apart = np.abs(ours.zero_points - zeros.numpy())
    assert np.median(apart) < 1e-5 * (1 << bits) and (apart > 1e-3 * (1 << bits)).mean() < 0.01
    assert (unpack(ours.packed, bits).reshape(len(weights), -1) != integers.numpy()).mean() < 1e-3


def hqq(weights: np.ndarray, format: BlockFormat, rows: int = 7) -> Blocks:
    """Quantise by HQQ some rows at a time and put the blocks together."""
    pieces = [weights[start : start + rows] for start in range(0, len(weights), rows)]
    fitted = fit_hqq(lambda: iter(pieces), format)
    made = [quantise_hqq(piece, fit, format) for piece, fit in zip(pieces, fitted, strict=True)]
    zeros = [blocks.zero_points for blocks in made if blocks.zero_points is not None]
    return Blocks(
        np.concatenate([blocks.packed for blocks in made]),
        np.concatenate([blocks.scales for blocks in made]),
        np.concatenate(zeros).astype(np.float32),
    )


def test_hqq_does_not_depend_on_the_pieces_or_on_threads() -> None:
    format = BlockFormat(4, 32, symmetric=False, float_zeros=True)
    weights = both_signs(1, (40, 256), 32)
    whole = hqq(weights, format, 40)
    parts = hqq(weights, format, 3)
    assert np.array_equal(whole.packed, parts.packed) and np.array_equal(whole.zero_points, parts.zero_points)
    pieces = [weights[:20], weights[20:]]
    with ThreadPoolExecutor(2) as pool:
        fitted = fit_hqq(lambda: iter(pieces), format, pool.map)
    assert np.array_equal(np.concatenate([zero for _, zero in fitted]), whole.zero_points)


def test_hqq_leaves_less_error_than_rounding_and_keeps_blocks_of_one_sign() -> None:
    format = BlockFormat(4, 32, symmetric=False, float_zeros=True)
    weights = both_signs(2, (64, 2048), 32)[5:]
    plain = BlockFormat(4, 32, symmetric=False)
    errors = [
        np.abs(dequantise(quantise(weights, plain), 2048, plain) - weights).mean(),
        np.abs(dequantise(hqq(weights, format), 2048, format) - weights).mean(),
    ]
    assert errors[1] < 0.97 * errors[0]
    shifted = one_sign(3)
    assert np.abs(dequantise(hqq(shifted, format), 128, format) - shifted).max() < 0.5 * np.abs(shifted).max()


def test_channels_equal_onnxruntimes_bit_for_bit() -> None:
    utils = pytest.importorskip("onnxruntime.quantization.quant_utils")
    onnx = pytest.importorskip("onnx")
    weights = both_signs(4, (24, 160), 32)
    weights[6] = 0
    ours = quantise_channels(weights)
    for row, scale, integers in zip(weights, ours.scales, ours.integers, strict=True):
        tensor = onnx.numpy_helper.from_array(row, "row")
        zero, theirs, stored = utils.quantize_data(
            onnx.numpy_helper.to_array(tensor), onnx.TensorProto.INT8, symmetric=True
        )[-3:]
        assert int(zero) == 0 and np.float32(theirs) == scale and np.array_equal(stored, integers)
    moved = np.abs(dequantise_channels(ours) - weights)
    assert (moved <= 0.5001 * ours.scales[:, None]).all()


def test_a_range_too_small_for_a_scale_is_given_one() -> None:
    assert symmetric_scale(np.array([0.0, 1e-45, 127.0], np.float32)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_with_nan_or_infinity_is_refused_by_each(value: float) -> None:
    weights = both_signs(4, (8, 128), 32)
    weights[5, 77] = value
    for attempt in (
        lambda: quantise_kquant(weights, BlockFormat(4, 32, symmetric=False)),
        lambda: hqq(weights, BlockFormat(4, 32, symmetric=False, float_zeros=True)),
        lambda: quantise_channels(weights),
    ):
        with pytest.raises(QuantiseError, match="damaged"):
            attempt()


def test_a_format_that_a_method_cannot_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="k-quant gives integer zero points"):
        quantise_kquant(np.zeros((1, 32), np.float32), BlockFormat(4, 32, symmetric=True))
    with pytest.raises(ValueError, match="HQQ's zero points"):
        fit_hqq(lambda: iter(()), BlockFormat(4, 32, symmetric=False))
    with pytest.raises(ValueError, match="no zero point"):
        BlockFormat(4, 32, symmetric=True, float_zeros=True)
