"""What open answers are worth: token F1, exact match, BLEU-1 and ROUGE-L of a run, and their change between two.

Means with intervals that are robust to clusters: the sandwich variance of a mean with Student's t on clusters - 1.
Knows rows of predictions, no folder. docs/drift.md defines every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .comparison import share
from .drift_figures import Change, Share, TextDrift
from .intervals import Interval, Reals, special, wilson
from .prediction import Prediction
from .text_metrics import best_bleu1, best_rouge_l

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean of values 0..1 with its clustered 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class TextFigures:
    """The open answers of one run. f1: the primary figure. An INVALID reply is worth 0 in all of them."""

    items: int
    clusters: int
    f1: Mean
    exact: Share
    bleu1: Mean
    rouge_l: Mean


def text_figures(rows: Sequence[Prediction]) -> TextFigures | None:
    """Return the figures over a run's open questions; None where it has none."""
    asked = [row for row in rows if row.answer_type == "open"]
    if not asked:
        return None
    clusters = np.array([row.group for row in asked])
    f1, bleu, rouge = (_mean(values, clusters) for values in _values(asked))
    return TextFigures(
        items=len(asked),
        clusters=len(set(clusters.tolist())),
        f1=f1,
        exact=share(np.array([row.correct for row in asked], dtype=bool), clusters),
        bleu1=bleu,
        rouge_l=rouge,
    )


def text_drift(
    reference: Sequence[Prediction], level: Sequence[Prediction], clusters: NDArray[np.str_]
) -> TextDrift | None:
    """Return how the figures changed over the open questions of two runs; None where there are none.

    clusters: one per row. The rows of both runs stand in one order.
    """
    here = [place for place, row in enumerate(reference) if row.answer_type == "open"]
    if not here:
        return None
    runs = [[rows[place] for place in here] for rows in (reference, level)]
    before, after = ([*_values(rows), np.array([row.correct for row in rows], dtype=np.float64)] for rows in runs)
    f1, bleu, rouge, exact = (_change(one, other, clusters[here]) for one, other in zip(before, after, strict=True))
    return TextDrift(len(here), len(set(clusters[here].tolist())), f1, exact, bleu, rouge)


def _values(rows: Sequence[Prediction]) -> list[Reals]:
    """Return token F1, BLEU-1 and ROUGE-L of each row, best over the answer and its aliases."""

    def worth(metric: Callable[[str, Sequence[str]], float]) -> Reals:
        told = [0.0 if row.extracted is None else metric(row.extracted, (row.answer, *row.aliases)) for row in rows]
        return np.array(told, dtype=np.float64)

    return [np.array([row.score for row in rows], dtype=np.float64), worth(best_bleu1), worth(best_rouge_l)]


def clustered_mean(values: Reals, clusters: NDArray[np.str_]) -> tuple[float, float, int]:
    """Return (mean, its standard error robust to clusters, clusters); the error of a single cluster is infinite.

    The sandwich variance of an intercept: clusters / (clusters - 1) times the sum over clusters of the squared sum of
    deviations, over items squared (Liang and Zeger, Biometrika 73:13, 1986, with the usual correction).
    """
    labels, index = np.unique(clusters, return_inverse=True)
    mean, many = float(values.mean()), len(labels)
    if many < 2:
        return mean, float("inf"), many
    sums = np.bincount(index, weights=values - mean)
    return mean, float(np.sqrt(many / (many - 1) * (sums**2).sum())) / len(values), many


def _reach(values: Reals, clusters: NDArray[np.str_]) -> tuple[float, float, int]:
    """Return (mean, half the interval's width, clusters). Where clusters do not differ at all the width is 0."""
    mean, error, many = clustered_mean(values, clusters)
    if many < 2:
        return mean, float("inf"), many
    return mean, float(special().stdtrit(many - 1, 0.5 + CONFIDENCE / 2)) * error, many


def _mean(values: Reals, clusters: NDArray[np.str_]) -> Mean:
    mean, reach, many = _reach(values, clusters)
    if reach < 1e-12:  # all alike: what so many clusters can say of the next one
        alike: Interval = wilson(mean * many, many, CONFIDENCE)
        return Mean(mean, alike.lower, alike.upper)
    return Mean(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def _change(before: Reals, after: Reals, clusters: NDArray[np.str_]) -> Change:
    change, reach, many = _reach(after - before, clusters)
    if reach < 1e-12:
        reach = wilson(0, many, CONFIDENCE).upper
    return Change(
        float(before.mean()), float(after.mean()), change, max(-1.0, change - reach), min(1.0, change + reach)
    )
