"""What changed in the answers themselves: top-1 agreement, INVALID replies, calibration; on the same rows of two runs.

Of all items, of a cell, or of a probe's rows. Knows rows in one fixed order, no folder and no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .bounds import lower_bound, paired_clusters, upper_bound
from .comparison import share
from .confidence import CONFIDENCE, calibration
from .drift_report import AnswerDrift, Change
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
    pairs = paired_clusters(before, after, clusters[asked])
    alpha = (1 - CONFIDENCE) / 2
    return Change(
        float(before.mean()), float(after.mean()), float(pairs.delta), float(lower_bound(pairs, alpha)),
        float(upper_bound(pairs, alpha)),
    )  # fmt: skip
