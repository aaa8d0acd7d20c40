"""What changed in the answers themselves: top-1 agreement, INVALID replies, calibration, the words of
open answers, and the reference's replies token by token; on the same rows of two runs.

Of all items, of a cell, or of a probe's rows. Knows rows in one fixed order, no folder and no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .bounds import lower_bound, paired_clusters, upper_bound
from .comparison import divergence_of, share
from .confidence import CONFIDENCE, calibration
from .drift_figures import AnswerDrift, Change, TokenDrift
from .open_figures import text_drift
from .prediction import Prediction


def answer_drift(
    reference: Sequence[Prediction], level: Sequence[Prediction], clusters: NDArray[np.str_]
) -> AnswerDrift:
    """Return the figures of two runs over the same rows in the same order."""
    closed = np.array([bool(row.options) and row.choice is not None for row in reference], dtype=bool)
    same = np.array([one.choice == other.choice for one, other in zip(reference, level, strict=True)], dtype=bool)
    return AnswerDrift(
        items=len(reference),
        top1=share(same[closed], clusters[closed]) if closed.any() else None,
        invalid=_invalid(reference, level, clusters),
        calibration=calibration(reference, level, clusters),
        tokens=_tokens(reference, level, clusters),
        text=text_drift(reference, level, clusters),
    )


def _tokens(
    reference: Sequence[Prediction], level: Sequence[Prediction], clusters: NDArray[np.str_]
) -> TokenDrift | None:
    """Return the figures over the replies that the level was given; a reply of another reference does not count."""
    given = [
        (place, other.forced)
        for place, (one, other) in enumerate(zip(reference, level, strict=True))
        if one.kept is not None and other.forced is not None and other.forced.of == one.kept.digest()
    ]
    if not given:
        return None
    measured = [value for _, forced in given for value in forced.kl_nats]
    missed = [value for _, forced in given for value in forced.missed_nats]
    drawn = [value for _, forced in given for value in forced.drawn_nats]
    same = np.array([flag for _, forced in given for flag in forced.same], dtype=bool)
    groups = clusters[[place for place, _ in given]]
    return TokenDrift(
        items=len(given),
        kl=divergence_of(measured),
        kl_at_most=divergence_of([sum(pair) for pair in zip(measured, missed, strict=True)]),
        mean_nats=float(np.mean(measured) + np.mean(drawn)),
        top1=share(same, np.repeat(groups, [len(forced.same) for _, forced in given])),
        replies=share(np.array([all(forced.same) for _, forced in given], dtype=bool), groups),
    )


def is_invalid(row: Prediction) -> bool:
    """Return whether a reply was generated and names no answer."""
    return row.generated is not None and row.extracted is None


def _invalid(reference: Sequence[Prediction], level: Sequence[Prediction], clusters: NDArray[np.str_]) -> Change | None:
    """Return how the share of INVALID replies changed, where both runs generated one; by cluster-robust bounds."""
    asked = np.array([row.generated is not None for row in reference], dtype=bool)
    asked &= np.array([row.generated is not None for row in level], dtype=bool)
    if not asked.any():
        return None
    before, after = (np.array([is_invalid(row) for row in rows], dtype=bool)[asked] for rows in (reference, level))
    return share_change(before, after, clusters[asked])


def share_change(before: NDArray[np.bool_], after: NDArray[np.bool_], clusters: NDArray[np.str_]) -> Change:
    """Return two runs' shares of flagged rows and the change, by cluster-robust bounds at 2.5 % a side."""
    pairs = paired_clusters(before, after, clusters)
    alpha = (1 - CONFIDENCE) / 2
    return Change(
        float(before.mean()), float(after.mean()), float(pairs.delta), float(lower_bound(pairs, alpha)),
        float(upper_bound(pairs, alpha)),
    )  # fmt: skip
