"""When two images are near: 64-bit pHash, 32 x 32 correlation and local contrast, each best over small crops.

The first two alone take two eyes for one, because the dark field around a fundus image outweighs what is in it
(docs/curation.md has the figures); the third looks at local contrast only. Knows fingerprints, no files and no rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curate_crops import COUNT, local_contrast, thumbnails
from .curate_fingerprints import Fingerprint

_ROWS, _COLUMNS = 1024, 8192
_KEPT = 512


@dataclass(frozen=True)
class Nearness:
    """Two images are near when all three hold, each for the best of 19 crops of either against the other's whole.

    bits: pHash distance at most this, of 64. correlation: of the 32 x 32 thumbnails at least this. detail: correlation
    of local contrast at least this; 0 leaves it out.
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
    close = _Closeness()
    for start in range(0, len(rows), _ROWS):
        for first in range(0, len(columns), _COLUMNS):
            if within and first + _COLUMNS <= start:
                continue
            distance = _distance(rows[start : start + _ROWS], columns[first : first + _COLUMNS])
            for row, column in np.argwhere(distance <= rule.bits).tolist():
                i, j = start + row, first + column
                if within and j <= i:
                    continue
                correlation, detail = close.measure(left[i], others[j], rule)
                if correlation >= rule.correlation and detail >= rule.detail:
                    yield Near(i, j, int(distance[row, column]), round(correlation, 4), round(detail, 4))


def closeness(one: Fingerprint, other: Fingerprint) -> Near:
    """Return how near two images are, by every measure."""
    distance = _distance(_words([one]), _words([other]))[0, 0]
    correlation, detail = _Closeness().measure(one, other, Nearness(64, -1.0, 1.0))
    return Near(0, 0, int(distance), round(correlation, 4), round(detail, 4))


def _distance(rows: NDArray[np.uint64], columns: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return (rows, columns): the smallest pHash distance over the crops of either side. Both are (images, 19)."""
    best: NDArray[np.uint8] = np.bitwise_count(rows[:, :1] ^ columns[:, 0])
    for crop in range(1, COUNT):
        np.minimum(best, np.bitwise_count(rows[:, crop : crop + 1] ^ columns[:, 0]), out=best)
        np.minimum(best, np.bitwise_count(rows[:, :1] ^ columns[:, crop]), out=best)
    return best


class _Closeness:
    """Measures pairs and remembers the crops of the images met last: pairs come row by row."""

    def __init__(self) -> None:
        self._thumbnails: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._contrasts: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def measure(self, one: Fingerprint, other: Fingerprint, rule: Nearness) -> tuple[float, float]:
        """Return (correlation, detail); detail is 0 where the correlation already says no, or is not asked for."""
        if one.pixels == other.pixels:
            return 1.0, 1.0
        correlation = _best(self._thumbnail(one), self._thumbnail(other))
        if correlation < rule.correlation or not rule.detail:
            return correlation, 0.0
        return correlation, _best(self._contrast(one), self._contrast(other))

    def _thumbnail(self, image: Fingerprint) -> NDArray[np.float32]:
        if image.pixels not in self._thumbnails:
            _remember(self._thumbnails, image.pixels, thumbnails(image.grey))
        return self._thumbnails[image.pixels]

    def _contrast(self, image: Fingerprint) -> NDArray[np.float32]:
        if image.pixels not in self._contrasts:
            _remember(self._contrasts, image.pixels, local_contrast(image.grey))
        return self._contrasts[image.pixels]


def _remember(known: OrderedDict[str, NDArray[np.float32]], name: str, value: NDArray[np.float32]) -> None:
    known[name] = value
    if len(known) > _KEPT:
        known.popitem(last=False)


def _best(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return max(float((one @ other[0]).max()), float((other @ one[0]).max()))


def _words(images: Sequence[Fingerprint]) -> NDArray[np.uint64]:
    return np.stack([image.hashes for image in images])
