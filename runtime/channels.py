"""Matrices in 8 bits with one scale per output channel: the layout of ONNX's DequantizeLinear and MatMulInteger.

Symmetric, from -127 to 127, and round-to-nearest, ties to even: equal bit for bit to onnxruntime's quantize_static and
quantize_dynamic with per-channel QInt8 weights. Knows no graph and no file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .quantise import QuantiseError

TOP = 127
CHANNEL_BITS = 8.0
"""Bits per weight, without the one float32 scale of each output channel."""


@dataclass(frozen=True, eq=False)
class Channels:
    """Quantised output channels. integers: (rows, columns), int8. scales: (rows,), float32."""

    integers: NDArray[np.int8]
    scales: NDArray[np.float32]


def symmetric_scale(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scale at which numbers up to `largest` in size take -127 to 127; 1 where that is too small for one."""
    wide = np.asarray(largest, dtype=np.float32).astype(np.float64)
    scale = (wide - -wide) / np.float64(2 * TOP)
    stored: NDArray[np.float32] = np.where(scale < np.finfo(np.float32).tiny, 1.0, scale).astype(np.float32)
    return stored


def quantise_channels(rows: NDArray[np.float32]) -> Channels:
    """Quantise (rows, columns) float32, one scale per row. Raises QuantiseError for NaN or infinity."""
    largest = np.abs(rows).max(axis=1)
    if not np.isfinite(largest).all():
        raise QuantiseError("a row holds NaN or infinity; the weights are damaged")
    scales = symmetric_scale(largest)
    integers = np.clip(np.rint(rows / scales[:, None]), -TOP, TOP).astype(np.int8)
    return Channels(integers, scales)


def dequantise_channels(channels: Channels) -> NDArray[np.float32]:
    """Return what the channels stand for: (rows, columns), float32."""
    return channels.integers.astype(np.float32) * channels.scales[:, None]
