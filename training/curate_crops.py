"""The small crops of an image that near duplicates are looked for in: the whole, and 18 of 97.5 % and 95 % of a side.

A cropped copy lies off by a few pixels, which a hash, a correlation and local contrast all take for a difference;
comparing crops of one with the whole of the other brings the two over each other again. Knows squares of grey values.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SIDE = 64
COUNT = 19
_SCALES = (1.0, 0.975, 0.95)
_RADIUS = 2
_NOISE_FLOOR = 2.0


def boxes() -> list[tuple[float, float, float]]:
    """Return (x, y, length) of every crop as shares of the side; the whole image is the first."""
    result = []
    for scale in _SCALES:
        offsets = _offsets(scale, 1.0)
        result += [(x, y, scale) for y in offsets for x in offsets]
    return result


def thumbnails(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (19, 32 * 32): every crop as grey values of zero mean and unit length; a flat crop is all zero."""
    return _unit(_crops(grey, 32))


def local_contrast(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (19, 48 * 48): every crop as local contrast, (value - mean) / (spread + 2) over 5 x 5, of unit length."""
    crops = _crops(grey, 48)
    high = crops - _box_mean(crops)
    spread = np.sqrt(np.maximum(_box_mean(high * high), 0))
    return _unit(high / (spread + _NOISE_FLOOR))


def _crops(grey: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """Return (19, side, side) from (64, 64), each crop resampled by area."""
    values = grey.astype(np.float64)
    crops = []
    for matrices in _resizers(side):
        rows = matrices @ values
        both = rows[:, None] @ matrices.transpose(0, 2, 1)[None]
        crops.append(both.reshape(-1, side, side))
    return np.concatenate(crops)


@lru_cache(maxsize=2)
def _resizers(side: int) -> tuple[NDArray[np.float64], ...]:
    """Return per scale (offsets, side, 64): area resampling of a crop along one axis."""
    return tuple(
        np.stack([_resampling(offset, SIDE * scale, side) for offset in _offsets(scale, SIDE)]) for scale in _SCALES
    )


def _offsets(scale: float, length: float) -> tuple[float, ...]:
    room = length * (1 - scale)
    return (0.0,) if scale == 1 else (0.0, room / 2, room)


def _resampling(offset: float, length: float, side: int) -> NDArray[np.float64]:
    step = length / side
    starts = offset + step * np.arange(side)[:, None]
    pixels = np.arange(SIDE)[None, :]
    shared: NDArray[np.float64] = np.clip(np.minimum(starts + step, pixels + 1) - np.maximum(starts, pixels), 0, None)
    return shared / step


def _unit(crops: NDArray[np.float64]) -> NDArray[np.float32]:
    flat = crops.reshape(len(crops), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > 1e-6, flat / np.maximum(length, 1e-6), 0).astype(np.float32)


def _box_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over 5 x 5 pixels around each; edges are repeated."""
    padded = np.pad(values, ((0, 0), (_RADIUS, _RADIUS), (_RADIUS, _RADIUS)), mode="edge")
    sums = np.pad(padded.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    width = 2 * _RADIUS + 1
    total = sums[:, width:, width:] - sums[:, :-width, width:] - sums[:, width:, :-width] + sums[:, :-width, :-width]
    result: NDArray[np.float64] = total / width**2
    return result
