"""Rounds matrices to the symmetric integers that TensorRT's Q/DQ takes: 8 bits per channel, 4 bits per block.

Scales are float16 and above zero, as strongly typed networks need them; a weight is rounded by the scale as stored.
Knows numbers, no graph and no file.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..runtime.levels import TENSORRT_BLOCK

LEAST_SCALE = np.float16(2.0**-24)
"""The least number above zero in float16: the scale of a channel or block of zeros."""
_SHRINKS = np.linspace(1.0, 0.7, 13, dtype=np.float32)


def scales_of(largest: NDArray[np.float32], top: int) -> NDArray[np.float16]:
    """Return the scales with which magnitudes up to `largest` become integers up to `top`, in float16."""
    scales = (largest / np.float32(top)).astype(np.float16)
    return np.maximum(scales, LEAST_SCALE)


def channel_scales(rows: Iterable[NDArray[np.float32]]) -> NDArray[np.float16]:
    """Return the scale of each output channel of a matrix given as rows (out, in), some at a time: (out,)."""
    return scales_of(np.concatenate([np.abs(part).max(axis=1) for part in rows]), 127)


def round_channels(turned: NDArray[np.float32], scales: NDArray[np.float16]) -> NDArray[np.int8]:
    """Return (in, out) float32 as integers from -127 to 127; scales: (out,)."""
    integers = np.rint(turned / scales.astype(np.float32))
    return np.asarray(np.clip(integers, -127, 127), dtype=np.int8)


def round_blocks(
    turned: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Return (in, out) float32 in 4 bits, packed as ONNX's INT4 (the first of two is the low one), and the scales.

    in: a multiple of TENSORRT_BLOCK. importance: (in,), what an error in an input channel counts, mean x^2 of it; all
    alike if None. Of several scales per block, from the one that reaches the largest weight downwards, the one of least
    squared error is taken. packed: (in * out / 2,), uint8. scales: (in / TENSORRT_BLOCK, out).
    """
    inner, out = turned.shape
    cells = turned.reshape(inner // TENSORRT_BLOCK, TENSORRT_BLOCK, out)
    counts = np.ones((inner, 1), dtype=np.float32) if importance is None else importance[:, None]
    counts = counts.reshape(inner // TENSORRT_BLOCK, TENSORRT_BLOCK, 1)
    largest = np.abs(cells).max(axis=1)
    best = np.full(largest.shape, np.inf, dtype=np.float32)
    scales = np.empty(largest.shape, dtype=np.float16)
    for shrink in _SHRINKS:
        tried = scales_of(largest * shrink, 7)
        errors = (np.square(_integers(cells, tried) * tried[:, None].astype(np.float32) - cells) * counts).sum(axis=1)
        better = errors < best
        scales[better], best[better] = tried[better], errors[better]
    integers = _integers(cells, scales).astype(np.int8).reshape(-1).view(np.uint8) & np.uint8(15)
    packed: NDArray[np.uint8] = integers[0::2] | integers[1::2] << np.uint8(4)
    return packed, scales


def _integers(cells: NDArray[np.float32], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return (blocks, TENSORRT_BLOCK, out) as whole numbers from -8 to 7; scales: (blocks, out)."""
    integers: NDArray[np.float32] = np.rint(cells / scales[:, None].astype(np.float32))
    return np.clip(integers, -8, 7, out=integers)
