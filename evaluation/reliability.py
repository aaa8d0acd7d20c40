"""The reliability diagram in numbers: how often a run is right in each fifteenth of its answers by confidence.

The bins are those of the ECE in confidence.py. Knows rows of predictions, no folder and no drawing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .comparison import design_effect
from .confidence import Ranked
from .drift_views import Reliability, ReliabilityBin
from .intervals import wilson
from .prediction import Prediction


def reliability(run: str, rows: Sequence[Prediction]) -> Reliability | None:
    """Return the bins of a run's answers with options; None where there are none."""
    closed = [row for row in rows if row.options and row.probabilities]
    if not closed:
        return None
    right = np.array([row.correct for row in closed], dtype=bool)
    ranked = Ranked(np.array([max(row.probabilities) for row in closed]), right)
    design = design_effect(right, np.array([row.group for row in closed]))
    bins = []
    for mass, confidence, accuracy in ranked.bins():
        interval = wilson(accuracy * mass / design, mass / design)
        bins.append(ReliabilityBin(mass, confidence, accuracy, interval.lower, interval.upper))
    return Reliability(run, len(closed), float(ranked.ece()[0]), tuple(bins))
