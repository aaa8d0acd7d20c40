"""Turns paired outcomes into a verdict: PASS, FAIL, NOT ENOUGH ITEMS or REFERENCE NOT COMPETENT.

First competence: only a reference that beats the text-only prior on the same items can judge anything. Then the level
against the margin. Vectorised over draws: the tests and the simulation run this very code. Knows no runs and no cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .bounds import PairedClusters, is_above, is_below

Verdict = Literal["PASS", "FAIL", "NOT ENOUGH ITEMS", "REFERENCE NOT COMPETENT"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
PASS, FAIL, NOT_ENOUGH, NOT_COMPETENT = range(4)

ALPHA = 0.05
# A PASS asks for more certainty that the reference beats the prior: at 5 % up to one reference at chance in twenty
# would let every harmless level PASS, and a report has many cells. docs/drift.md has the rates.
ALPHA_PASS_COMPETENCE = 1e-5


def verdict_codes(pairs: PairedClusters, lead: PairedClusters | None, margin: float) -> NDArray[np.int64]:
    """Return an index into VERDICTS for each draw.

    pairs: reference (before) and level (after). lead: text-only prior (before) and reference (after); None where no
    prior was run. margin: the loss of accuracy, 0..1, that is still acceptable.
    """
    if lead is None:
        return np.full(pairs.items.shape, NOT_COMPETENT)
    competent = is_above(lead, 0.0, ALPHA)
    certain = competent & is_above(lead, 0.0, ALPHA_PASS_COMPETENCE)
    worse = is_below(pairs, -margin, ALPHA)
    harmless = is_above(pairs, -margin, ALPHA)
    settled = np.where(worse, FAIL, np.where(harmless & certain, PASS, NOT_ENOUGH))
    return np.where(competent, settled, NOT_COMPETENT)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm's adjusted p-values (Scandinavian Journal of Statistics 6:65, 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


def better_prior(priors: dict[str, NDArray[Any]]) -> tuple[str, NDArray[Any]]:
    """Return the name and outcomes of the prior that is right more often; of equals the first."""
    return max(priors.items(), key=lambda item: float(np.mean(item[1])))
