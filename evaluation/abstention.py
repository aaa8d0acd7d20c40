"""Abstaining: how much of what can be answered is answered, how well, and whether what cannot be is left alone.

A row abstains where its largest option probability lies below a stated threshold, or where its reply says in words that
it cannot tell. Unanswerable rows are those of probes without the right picture. Knows rows of predictions, no folder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .comparison import share
from .drift_figures import Abstention
from .prediction import Prediction
from .reply_text import readable
from .silence import declines


def says_it_cannot_tell(reply: str) -> bool:
    """Return whether a reply says that it cannot answer. By fixed rules; an empty or INVALID reply does not say so."""
    return declines(readable(reply).plain) > 0


def abstains(row: Prediction, threshold: float) -> bool:
    """Return whether a row abstains; a disclaimer beside an answer does not.

    threshold: of the largest option probability, 0..1.
    """
    if row.options and row.probabilities:
        return max(row.probabilities) < threshold or says_it_cannot_tell(row.choice or "")
    return row.extracted is None and says_it_cannot_tell(row.generated or "")


def abstention(
    answerable: Sequence[Prediction], unanswerable: Sequence[Prediction], threshold: float
) -> Abstention | None:
    """Return the figures of one run; None where no row could abstain.

    answerable: rows of the clean run. unanswerable: rows whose picture does not show what is asked. Every answer to
    one of those counts wrong.
    """
    rows = [*answerable, *unanswerable]
    if not rows:
        return None
    can = np.arange(len(rows)) < len(answerable)
    left = np.array([abstains(row, threshold) for row in rows], dtype=bool)
    right = np.array([row.correct for row in rows], dtype=bool) & can
    groups = np.array([row.group for row in rows])
    answered = ~left
    return Abstention(
        threshold=threshold,
        answerable=len(answerable),
        unanswerable=len(unanswerable),
        coverage=share(answered, groups),
        selective_accuracy=share(right[answered], groups[answered]) if answered.any() else None,
        recall=share(left[~can], groups[~can]) if unanswerable else None,
        over_refusal=share(left[can], groups[can]) if len(answerable) else None,
    )
