"""How well a run's confidence fits its answers: ECE, Brier, AURC and the risk at a coverage; and their change.

Confidence is the largest of the options' probabilities. Intervals of a change are by a paired bootstrap that draws
whole clusters. Knows rows of predictions in one order, no folder. docs/drift.md defines every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .drift_figures import Calibration, Change
from .intervals import Reals, special
from .prediction import Prediction

BINS = 15
COVERAGE = 0.8
RESAMPLES = 500
SEED = 1
CONFIDENCE = 0.95
_CHUNK = 4_000_000  # weights held at once


class Ranked:
    """Answers in the order of their confidence, any number of weightings at once.

    confidence: (items,), 0..1. right: (items,). weights: (weightings, items), how often each item counts; by default
    once. Items of equal confidence have no order among them: each is taken to be right as often as they are together.
    """

    def __init__(self, confidence: Reals, right: NDArray[np.bool_], weights: Reals | None = None) -> None:
        order = np.argsort(confidence, kind="stable")
        sure = confidence[order]
        weighed = np.ones((1, len(order))) if weights is None else weights[:, order]
        self.mass = _cumulated(weighed)
        self.sure = _cumulated(weighed * sure)
        right_so_far = _cumulated(weighed * right[order])
        # within a run of equal confidence right answers grow as a line
        ends = np.flatnonzero(np.r_[True, sure[1:] != sure[:-1], True])
        places = np.arange(len(sure) + 1)
        first = ends[np.searchsorted(ends, places, side="right") - 1]
        last = ends[np.searchsorted(ends, places, side="left")]
        width = self.mass[:, last] - self.mass[:, first]
        part = (self.mass - self.mass[:, first]) / np.where(width > 0, width, 1.0)
        self.right = right_so_far[:, first] + part * (right_so_far[:, last] - right_so_far[:, first])

    def ece(self, bins: int = BINS) -> Reals:
        """Return the expected calibration error over bins of equal mass, one value per weighting.

        An item on the edge of two bins counts in both in part (Nixon et al., CVPR workshops 2019, use equal mass).
        """
        edges = np.linspace(0.0, 1.0, bins + 1)
        gaps = [
            np.interp(edges * mass[-1], mass, gap) for mass, gap in zip(self.mass, self.right - self.sure, strict=True)
        ]
        return np.asarray(np.abs(np.diff(np.array(gaps), axis=1)).sum(1) / self.mass[:, -1])

    def bins(self, bins: int = BINS) -> list[tuple[float, float, float]]:
        """Return (items, mean confidence, accuracy) of the bins of the ECE, for the first weighting."""
        edges = np.linspace(0.0, float(self.mass[0, -1]), bins + 1)
        items = np.diff(edges)
        sure, right = (np.diff(np.interp(edges, self.mass[0], whole[0])) / items for whole in (self.sure, self.right))
        return list(zip(items.tolist(), sure.tolist(), np.clip(right, 0.0, 1.0).tolist(), strict=True))

    def risk_at(self, coverage: float = COVERAGE) -> Reals:
        """Return the share of wrong answers among the most confident `coverage` of the items."""
        left_out = self.mass[:, -1] * (1 - coverage)
        below = [np.interp(*found) for found in zip(left_out, self.mass, self.right, strict=True)]
        return np.asarray(1 - (self.right[:, -1] - np.array(below)) / (self.mass[:, -1] - left_out))

    def aurc(self) -> Reals:
        """Return the area under the risk-coverage curve: the mean risk over the coverages 1/n to 1.

        Geifman, Uziel and El-Yaniv, ICLR 2019. An item counted twice has its risk counted twice.
        """
        answered, own = self.mass[:, -1:] - self.mass[:, :-1], np.diff(self.mass, axis=1)
        risk = 1 - (self.right[:, -1:] - self.right[:, :-1]) / np.where(answered > 0, answered, 1.0)
        return np.asarray((own * risk).sum(1) / self.mass[:, -1])


def _cumulated(values: Reals) -> Reals:
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


def brier(probabilities: Sequence[Sequence[float]], keys: Sequence[int]) -> Reals:
    """Return each item's Brier score: the squared distances of all options' probabilities, 0..2 (Brier 1950)."""
    return np.array(
        [
            sum((share - (place == key)) ** 2 for place, share in enumerate(row))
            for row, key in zip(probabilities, keys, strict=True)
        ]
    )


def calibration(
    reference: Sequence[Prediction], level: Sequence[Prediction], clusters: NDArray[np.str_]
) -> Calibration | None:
    """Return how calibration changed on the items with options; None where there are none."""
    chosen = [
        index
        for index, rows in enumerate(zip(reference, level, strict=True))
        if all(row.options and row.probabilities for row in rows)
    ]
    if not chosen:
        return None
    runs = [[rows[index] for index in chosen] for rows in (reference, level)]
    labels, index = np.unique(clusters[chosen], return_inverse=True)
    confidence = [np.array([max(row.probabilities) for row in rows]) for rows in runs]
    right = [np.array([row.correct for row in rows], dtype=bool) for rows in runs]
    keys = [row.options.index(row.answer) for row in runs[0]]
    squares = [brier([row.probabilities for row in rows], keys) for rows in runs]

    def figures(weights: Reals | None) -> Reals:
        """Return (ece, brier, aurc, risk) of reference and level: (4, 2, weightings)."""
        found = []
        for sure, flags, errors in zip(confidence, right, squares, strict=True):
            ranked = Ranked(sure, flags, weights)
            mean = errors.mean()[None] if weights is None else weights @ errors / weights.sum(1)
            found.append([ranked.ece(), mean, ranked.aurc(), ranked.risk_at()])
        return np.moveaxis(np.array(found), 0, 1)

    values = figures(None)[..., 0]
    errors = clustered_errors(lambda weights: np.diff(figures(weights), axis=1)[:, 0], index, len(labels))
    ece, squared, aurc, risk = (
        change(float(before), float(after), float(error), len(labels))
        for (before, after), error in zip(values, errors, strict=True)
    )
    return Calibration(len(chosen), len(labels), ece, squared, aurc, risk)


def clustered_errors(figures: Callable[[Reals], Reals], index: NDArray[np.intp], clusters: int) -> Reals:
    """Return the standard error of each figure by drawing whole clusters, with replacement.

    figures: from weights (resamples, items) to values (figures, resamples). index: each item's cluster.
    """
    rng = np.random.default_rng(SEED)
    step = max(1, _CHUNK // max(1, len(index)))
    drawn = []
    for start in range(0, RESAMPLES, step):
        times = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=min(step, RESAMPLES - start))
        drawn.append(figures(times[:, index].astype(np.float64)))
    return np.asarray(np.concatenate(drawn, axis=1).std(axis=1, ddof=1))


def change(before: float, after: float, error: float, clusters: int) -> Change:
    """Return a change with Student's two-sided 95 % interval on clusters - 1; of one cluster nothing is known."""
    difference = after - before
    if clusters < 2:
        return Change(before, after, difference, -2.0, 2.0)
    point = float(special().stdtrit(clusters - 1, 0.5 + CONFIDENCE / 2))
    reach = point * error * float(np.sqrt(clusters / (clusters - 1)))
    return Change(before, after, difference, difference - reach, difference + reach)
