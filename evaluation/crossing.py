"""Single and cross-modal items apart: how two runs compare on the items of each kind.

An item is cross-modal where it shows an image together with another part: a second image, a report. Knows rows in one
fixed order, no folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..runtime.likelihood import Likelihood
from .comparison import Flags, compare
from .drift_report import Apart, ItemKind
from .prediction import Prediction

CROSS_MODAL: ItemKind = "cross-modal"
SINGLE: ItemKind = "single"


def kinds_of(rows: Sequence[Prediction]) -> dict[ItemKind, NDArray[np.bool_]]:
    """Return which items are of which kind; empty where none is cross-modal: then there is nothing to tell apart."""
    crossing = np.array([row.cross_modal for row in rows], dtype=bool)
    if not crossing.any():
        return {}
    found: dict[ItemKind, NDArray[np.bool_]] = {SINGLE: ~crossing, CROSS_MODAL: crossing}
    return {kind: here for kind, here in found.items() if here.any()}


def apart(
    items: Sequence[Prediction],
    clusters: NDArray[np.str_],
    reference: Sequence[Prediction],
    level: Sequence[Prediction],
    priors: Mapping[str, Flags] | str,
    margin: float,
    likelihood: Likelihood,
) -> tuple[Apart, ...]:
    """Return the comparison on the items of each kind, at the margin over all; see `comparison.compare`."""
    found = []
    for kind, here in kinds_of(items).items():
        index = np.flatnonzero(here).tolist()
        known = priors if isinstance(priors, str) else {name: flags[index] for name, flags in priors.items()}
        picked = [[rows[i] for i in index] for rows in (items, reference, level)]
        compared = compare(picked[0], clusters[index], picked[1], picked[2], known, margin, likelihood)
        found.append(Apart(kind, dataclasses.replace(compared, modality="", task="")))
    return tuple(found)
