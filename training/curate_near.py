"""When two images are near: 64-bit pHash, 32 x 32 correlation, and local detail after a small alignment.

The first two alone take two eyes for one, because the dark field around a fundus image outweighs what is in it
(docs/curation.md has the figures); the third looks at local contrast only. Knows fingerprints, no files and no rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .curate_fingerprints import DETAIL_SIDE, Fingerprint

# The alignment tries the whole image and crops of it: 19 in all, each compared at 48 x 48.
_SCALES = (1.0, 0.975, 0.95)
_ALIGNED_SIDE = 48
_RADIUS = 2
_NOISE_FLOOR = 2.0
_BLOCK = 2048
_KEPT = 512


@dataclass(frozen=True)
class Nearness:
    """Two images are near when all three hold.

    bits: pHash distance at most this, of 64. correlation: of the 32 x 32 thumbnails at least this. detail: correlation
    of the local contrast, best over small crops, at least this; 0 leaves it out.
    """

    bits: int
    correlation: float
    detail: float


@dataclass(frozen=True)
class Near:
    """Two near images by their positions, and by how much: distance in bits, correlation, detail."""

    left: int
    right: int
    distance: int
    correlation: float
    detail: float


def near_pairs(
    left: Sequence[Fingerprint], rule: Nearness, right: Sequence[Fingerprint] | None = None
) -> Iterator[Near]:
    """Yield every near pair: within `left` (each pair once, left < right), or between `left` and `right`.

    Every pair of hashes is compared, in blocks of 64-bit words, so none is missed.
    """
    within = right is None
    others = left if right is None else right
    if not left or not others:
        return
    rows, columns = _words(left), _words(others)
    details = _Details()
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        first = start if within else 0
        distance = np.bitwise_count(block[:, None] ^ columns[None, first:])
        found_rows, found_columns = np.nonzero(distance <= rule.bits)
        for row, column in zip(found_rows.tolist(), found_columns.tolist(), strict=True):
            i, j = start + row, first + column
            if within and j <= i:
                continue
            one, other = left[i], others[j]
            same = one.pixels == other.pixels
            correlation = 1.0 if same else float(one.thumbnail @ other.thumbnail)
            if correlation < rule.correlation:
                continue
            detail = 1.0 if same or not rule.detail else details.correlation(one, other)
            if detail >= rule.detail:
                yield Near(i, j, int(distance[row, column]), round(correlation, 4), round(detail, 4))


def aligned_detail(one: Fingerprint, other: Fingerprint) -> float:
    """Return the correlation of local contrast, -1 to 1, best over 19 crops of either image against the other."""
    return _Details().correlation(one, other)


class _Details:
    """Remembers the crops of the images met last: pairs come row by row."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def correlation(self, one: Fingerprint, other: Fingerprint) -> float:
        first, second = self._crops(one), self._crops(other)
        return max(float((first @ second[0]).max()), float((second @ first[0]).max()))

    def _crops(self, image: Fingerprint) -> NDArray[np.float32]:
        if image.pixels not in self._known:
            self._known[image.pixels] = _crops(image.detail)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(image.pixels)
        return self._known[image.pixels]


def _crops(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (19, 48 * 48): the local contrast of the whole image, then of its crops, each of unit length."""
    values = grey.astype(np.float64)
    crops = [
        np.einsum("yof,fg,xpg->yxop", matrices, values, matrices, optimize=True).reshape(
            -1, _ALIGNED_SIDE, _ALIGNED_SIDE
        )
        for matrices in _resizers()
    ]
    return _local_contrast(np.concatenate(crops))


@lru_cache(maxsize=1)
def _resizers() -> tuple[NDArray[np.float64], ...]:
    """Return per scale (offsets, 48, 64): box resampling of a crop along one side."""
    result = []
    for scale in _SCALES:
        room = DETAIL_SIDE * (1 - scale)
        offsets = (0.0,) if scale == 1 else (0.0, room / 2, room)
        result.append(np.stack([_box_resampling(offset, DETAIL_SIDE * scale) for offset in offsets]))
    return tuple(result)


def _box_resampling(offset: float, length: float) -> NDArray[np.float64]:
    step = length / _ALIGNED_SIDE
    starts = offset + step * np.arange(_ALIGNED_SIDE)[:, None]
    pixels = np.arange(DETAIL_SIDE)[None, :]
    overlap: NDArray[np.float64] = np.clip(np.minimum(starts + step, pixels + 1) - np.maximum(starts, pixels), 0, None)
    return overlap / step


def _local_contrast(crops: NDArray[np.float64]) -> NDArray[np.float32]:
    high = crops - _box_mean(crops)
    spread = np.sqrt(np.maximum(_box_mean(high * high), 0))
    flat = (high / (spread + _NOISE_FLOOR)).reshape(len(crops), -1)
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


def _words(prints: Sequence[Fingerprint]) -> NDArray[np.uint64]:
    return np.array([print_.phash for print_ in prints], dtype=np.uint64)
