"""Scales and zero points by k-quant's search: of 21 ranges around each block's own, the one whose error weighs least.

After make_qkx2_quants of llama.cpp (ggml-quants.c), as onnxruntime's KQuantWeightOnlyQuantConfig has it: each error is
weighed by the weight's size plus the block's root mean square, and zero points are rounded to integers at the end.
Equal to onnxruntime's bit for bit in blocks that hold numbers of both signs. Knows no graph and no file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .quantise import WORK_WEIGHTS, BlockFormat, Blocks, cells_of, pack, refuse_infinite

STEPS = 20
"""Ranges tried beside the block's own."""
STEP = 0.1
"""How far they lie apart, in steps of the integers."""


def quantise_kquant(rows: NDArray[np.float32], format: BlockFormat) -> Blocks:
    """Quantise (rows, columns) float32 along the columns. Raises QuantiseError for NaN or infinity.

    format: asymmetric with integer zero points. A block of one sign is widened to hold zero, as round-to-nearest does:
    onnxruntime cuts such a block's zero point off and so loses the block.
    """
    if format.symmetric or format.float_zeros:
        raise ValueError(f"k-quant gives integer zero points; {format.name} has none")
    count, columns = rows.shape
    blocks = format.blocks(columns)
    packed = np.empty((count, blocks, format.block * format.bits // 8), dtype=np.uint8)
    scales = np.empty((count, blocks), dtype=np.float32)
    zero_points = np.empty((count, -(-blocks * format.bits // 8)), dtype=np.uint8)
    step = max(1, WORK_WEIGHTS // (blocks * format.block))
    top = (1 << format.bits) - 1
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        cells = cells_of(rows[part], format).reshape(-1, format.block)
        with np.errstate(all="ignore"):
            scale, low = _search(cells, top)
            refuse_infinite(scale)
            zero = np.clip(np.round(-low / scale), 0, top)
            # in float64, as the reference does: a weight near a half would else fall to the other side
            integers = np.clip(np.round(cells / scale.astype(np.float64) + zero), 0, top).astype(np.uint8)
        scales[part] = scale.reshape(-1, blocks)
        packed[part] = pack(integers.reshape(-1, blocks, format.block), format.bits)
        zero_points[part] = pack(zero.astype(np.uint8).reshape(-1, blocks), format.bits)
    return Blocks(packed, scales, zero_points)


def _search(cells: NDArray[np.float32], top: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and least number of each block, (blocks, 1) float32 each; the sums run in the reference's order."""
    mean_square = np.sum(cells**2, axis=1, keepdims=True)
    weights = np.add(np.sqrt(mean_square / cells.shape[1]), np.abs(cells))
    low = np.minimum(np.min(cells, axis=1, keepdims=True), np.float32(0))
    high = np.maximum(np.max(cells, axis=1, keepdims=True), np.float32(0))
    sum_w = np.sum(weights, axis=1, keepdims=True)
    weighted = weights * cells
    sum_x = np.sum(weighted, axis=1, keepdims=True)
    inverse = _divided(np.float32(top), high - low)
    scale = np.float32(1) / inverse
    integers = np.clip(np.round(inverse * (cells - low)), 0, top)
    best = _error(scale, integers, low, cells, weights)
    for index in range(STEPS):
        factor = np.float32(-1 + STEP * index + top)
        # the least number that was found so far counts, as in llama.cpp, and not the block's own
        integers = np.clip(np.round(_divided(factor, high - low) * (cells - low)), 0, top)
        parts = weights * integers
        sum_l = np.sum(parts, axis=1, keepdims=True)
        sum_l2 = np.sum(parts * integers, axis=1, keepdims=True)
        sum_xl = np.sum(parts * cells, axis=1, keepdims=True)
        # weighted least squares: the scale and the least number that fit these integers best
        share = sum_w * sum_l2 - sum_l**2
        tried_scale = (sum_w * sum_xl - sum_x * sum_l) / share
        tried_low = (sum_l2 * sum_x - sum_l * sum_xl) / share
        error = _error(tried_scale, integers, tried_low, cells, weights)
        better = error < best
        best = np.where(better, error, best)
        scale = np.where(better, tried_scale, scale)
        low = np.where(better, tried_low, low)
    return scale, low


def _divided(factor: np.float32, span: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.divide(factor, span, out=np.ones_like(span), where=span != 0)


def _error(
    scale: NDArray[np.float32],
    integers: NDArray[np.float32],
    low: NDArray[np.float32],
    cells: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    difference = scale * integers + low - cells
    error: NDArray[np.float32] = np.sum(weights * difference**2, axis=1, keepdims=True)
    return error
