"""The paired difference of two runs by a bootstrap of whole clusters, beside the bound that decides and never in it.

Clusters (patients, else images) are drawn with replacement, as many as there are, each with all its items; the
difference of a draw is that of all items drawn (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8). Limits are
percentiles. Where nothing flips every draw says zero, and where few clusters flip the limits are too narrow: that is
why bounds.py decides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .drift_figures import Bootstrap
from .verdict import ALPHA

DRAWS = 10_000
SEED = 1


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, clusters: ArrayLike, *, draws: int = DRAWS, seed: int = SEED
) -> Bootstrap | None:
    """Return the one-sided limits at ALPHA of the difference after minus before; None for a single cluster.

    before, after: (items,) of right or wrong. clusters: a label per item. Clusters with the same size and the same
    difference are drawn together: how often each such kind is drawn is multinomial, so the draws are exactly those of
    the clusters one by one.
    """
    change = np.asarray(after, dtype=np.int64) - np.asarray(before, dtype=np.int64)
    labels, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(labels) < 2:
        return None
    net = np.bincount(index, weights=change, minlength=len(labels))
    kinds, counts = np.unique(np.stack([net, np.bincount(index)], axis=1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(labels), counts / len(labels), size=draws)
    differences = drawn @ kinds[:, 0] / (drawn @ kinds[:, 1])
    lower, upper = np.quantile(differences, (ALPHA, 1 - ALPHA))
    return Bootstrap(float(lower), float(upper), draws, seed)
