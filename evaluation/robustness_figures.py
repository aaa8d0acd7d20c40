"""The figures of robustness on arrays of outcomes: position bias, relative robustness, and level x probe.

Every interval is cluster-robust. docs/robustness.md states the formulas and how often the bounds were measured to err.
Knows no runs and no probes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bounds import FEW_CLUSTERS, PairedClusters, from_counts, hidden_loss, lower_bound, p_below
from .intervals import Interval, Reals, special

POSITIONS = 10  # places told apart; later ones count as the last
_DRAWS = 2000
_PART = 250  # draws held in memory at once
_SEED = 20_001


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    interval: Interval


def position_bias(given: ArrayLike, keys: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the total variation between the places of the answers given and the places of the keys.

    given, keys: the place of each row's answer and key, from 0; clusters: a label per row. Total variation is the
    largest excess of given answers over keys in any set of places. Upper limit: the largest of the sets' own limits,
    for the set that is truly the largest is one of them. Lower limit: the largest of limits that hold for all sets
    together (sup-t, cluster multiplier bootstrap), never below 0.
    """
    size = POSITIONS
    one = np.eye(size)[np.minimum(np.asarray(given, dtype=np.int64), size - 1)]
    other = np.eye(size)[np.minimum(np.asarray(keys, dtype=np.int64), size - 1)]
    sums, rows = _by_cluster(one - other, clusters)
    total, count = float(rows.sum()), len(rows)
    shift = sums.sum(0) / total
    value = float(np.abs(shift).sum() / 2)
    alpha = (1 - confidence) / 2
    if count < 2:
        return Estimate(value, Interval(0.0, 1.0, confidence))
    used = np.flatnonzero((one + other).any(0))
    sets = _subsets(len(used))
    residual = (sums - rows[:, None] * shift)[:, used] @ sets.T / total
    means = shift[used] @ sets.T
    errors = np.sqrt((residual**2).sum(0) * count / (count - 1))
    moving = errors > 1e-12
    hidden = float(hidden_loss(np.cumsum(np.sort(rows)[::-1]) / total, alpha))
    point = float(special().stdtrit(count - 1, 1 - alpha))
    upper = max(float((means + point * errors).max(initial=0.0)), value + hidden)
    lower = float((means[~moving] - hidden).max(initial=0.0))
    if moving.any():
        scaled = residual[:, moving] / errors[moving]
        drawn = np.concatenate([(signs @ scaled).max(1) for signs in _signs(_DRAWS, count)])
        lower = max(lower, float((means[moving] - np.quantile(drawn, 1 - alpha) * errors[moving]).max()))
    return Estimate(value, Interval(max(0.0, min(lower, value - hidden)), min(1.0, upper), confidence))


def relative(kept: ArrayLike, clean: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return sum(kept) / sum(clean), the share of the clean accuracy that is kept, with its interval.

    kept: per item, the mean over severities of right (1) or wrong (0) under a corruption; clean: right without it. The
    interval is that of a ratio by its linear form, sandwiched by cluster, with Student's t on the effective number of
    clusters that move, and never narrower than the loss that no moving cluster at all could hide. Where no clean answer
    is right there is nothing to keep: 0, from 0 to 1.
    """
    y, x = np.asarray(kept, dtype=np.float64), np.asarray(clean, dtype=np.float64)
    if x.sum() == 0:
        return Estimate(0.0, Interval(0.0, 1.0, confidence))
    ratio = float(y.sum() / x.sum())
    sums, rows = _by_cluster((y - ratio * x)[:, None], clusters)
    moves, count, alpha = sums[:, 0], len(rows), (1 - confidence) / 2
    if count < 2:
        return Estimate(ratio, Interval(0.0, max(1.0, len(x) / float(x.sum())), confidence))
    error = float(np.sqrt((moves**2).sum() * count / (count - 1)) / x.sum())
    effective = float(np.abs(moves).sum() ** 2 / (moves**2).sum()) if np.any(moves) else 1.0
    reach = float(special().stdtrit(max(effective - 1, 1.0), 1 - alpha)) * error
    hidden = float(hidden_loss(np.cumsum(np.sort(rows)[::-1]) / rows.sum(), alpha)) * len(x) / float(x.sum())
    reach = max(reach, hidden)
    return Estimate(ratio, Interval(max(0.0, ratio - reach), ratio + reach, confidence))


@dataclass(frozen=True)
class Excess:
    """Level x probe by cluster. whole: gains and losses as they are; the bounds of `whole` are those of its mean.

    An item can count for 2 (lost under the probe by the level alone, gained clean by the level alone), so what an
    unseen cluster could hide is twice what it is for one comparison.
    """

    whole: PairedClusters
    halved: PairedClusters

    @property
    def value(self) -> Reals:
        """The mean excess: negative where the level loses more under the probe than the reference."""
        return np.asarray(2 * self.halved.delta)

    def lower(self, alpha: float) -> Reals:
        """Return the one-sided lower bound of the mean excess at level 1 - alpha."""
        return _excess_lower(self.whole, self.halved, alpha)

    def upper(self, alpha: float) -> Reals:
        """Return the one-sided upper bound of the mean excess at level 1 - alpha."""
        return -_excess_lower(self.whole.mirrored(), self.halved.mirrored(), alpha)

    def p_more(self, margin: float) -> Reals:
        """Return the p-value against "the excess loss is at most the margin", by the cautious, halved form."""
        return p_below(self.halved, margin / 2)


def excess(differences: ArrayLike, clusters: ArrayLike) -> Excess:
    """Reduce differences of differences per item. differences: (..., items), each between -2 and 2."""
    d = np.asarray(differences, dtype=np.float64)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(index.max() + 1))
    sizes = np.bincount(index)
    loss = np.add.reduceat(np.maximum(-d, 0.0)[..., order], starts, axis=-1)
    gain = np.add.reduceat(np.maximum(d, 0.0)[..., order], starts, axis=-1)
    return Excess(from_counts(loss, gain, sizes), from_counts(loss / 2, gain / 2, sizes))


def _excess_lower(whole: PairedClusters, halved: PairedClusters, alpha: float) -> Reals:
    """Return the lower bound of a mean between -2 and 2.

    With few moving clusters: twice the loss they could hide. Else the bound of bounds.py on whole counts, items that
    count for 2 entering its design effect; where more than a quarter of the items move, on halved counts, whose bound
    is cautious but holds for any mean. Never above the mean less twice the loss that no moving cluster could hide.
    """
    mean = 2 * halved.delta
    crowded = (whole.harmful + whole.healing) / whole.items > 0.25
    by_halves = 2 * lower_bound(halved, alpha)
    by_whole = np.minimum(lower_bound(whole, alpha), mean - 2 * hidden_loss(whole.held, alpha))
    few = whole.clusters_discordant <= FEW_CLUSTERS
    return np.asarray(np.maximum(np.where(few | crowded, by_halves, by_whole), -2.0))


def _by_cluster(values: NDArray[np.float64], clusters: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sums of the rows of `values` by cluster, (clusters, columns), and the number of rows in each."""
    labels, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((len(labels), values.shape[1]))
    np.add.at(sums, index, values)
    return sums, np.bincount(index).astype(np.float64)


def _subsets(places: int) -> NDArray[np.float64]:
    """Return every set of places but none and all, one a row: (2^places - 2, places) of 0 and 1."""
    numbers = np.arange(1, 2**places - 1)
    rows: NDArray[np.float64] = ((numbers[:, None] >> np.arange(places)) & 1).astype(np.float64).reshape(-1, places)
    return rows


def _signs(draws: int, clusters: int) -> Iterator[NDArray[np.float64]]:
    """Yield random signs, (part of the draws, clusters), the same on every machine."""
    bits = np.random.PCG64(_SEED)
    for start in range(0, draws, _PART):
        rows = min(_PART, draws - start)
        words = np.asarray(bits.random_raw(-(-rows * clusters // 64))).astype("<u8")
        signs = np.unpackbits(words.view(np.uint8))[: rows * clusters].reshape(rows, clusters).astype(np.float64)
        yield 2 * signs - 1
