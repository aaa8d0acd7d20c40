"""Intervals and tests for counts of independent items: Wilson, exact McNemar, Clopper-Pearson, Tango.

Knows no clusters (bounds.py) and no verdicts (drift.py). Counts may be real numbers, so that bounds.py can divide them
by a design effect. SciPy is imported late: making predictions needs none of this.

Wilson: JASA 22:209 (1927). Clopper and Pearson: Biometrika 26:404 (1934). McNemar: Psychometrika 12:153 (1947), exact
form. Tango: Statistics in Medicine 17:891 (1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import MissingExtra

Reals = NDArray[np.float64]
_STEPS = 60  # halvings of [-1, 1]: the root is within 2e-18, below the spacing of floats near it


@dataclass(frozen=True)
class Interval:
    """A two-sided interval at a confidence (0..1)."""

    lower: float
    upper: float
    confidence: float


def special() -> Any:
    """Return scipy.special, or say which extra installs it."""
    try:
        import scipy.special
    except ImportError as error:
        raise MissingExtra("evaluate", "scipy") from error
    return scipy.special


def wilson(successes: float, items: float, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share. `items` may be an effective number; 0 items give 0..1."""
    if items <= 0:
        return Interval(0.0, 1.0, confidence)
    z = float(special().ndtri(0.5 + confidence / 2))
    share, weight = successes / items, z * z / items
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * float(np.sqrt(max(share * (1 - share), 0.0) / items + weight / items / 4))
    # at 0 and 1 the formula is exact but its rounding is not
    lower = 0.0 if successes <= 0 else max(0.0, middle - reach)
    upper = 1.0 if successes >= items else min(1.0, middle + reach)
    return Interval(lower, upper, confidence)


def mcnemar_exact(harmful: int, healing: int) -> float:
    """Return the two-sided exact p-value of McNemar's test: a binomial test of 1/2 on the discordant pairs."""
    discordant = harmful + healing
    if discordant == 0:
        return 1.0
    return min(1.0, 2 * float(special().bdtr(min(harmful, healing), discordant, 0.5)))


def clopper_pearson_upper(successes: ArrayLike, items: ArrayLike, alpha: float) -> Reals:
    """Return the one-sided upper limit of a share at level 1 - alpha; real numbers are allowed."""
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(items, dtype=np.float64))
    full = k >= n
    rest = np.where(full, 1.0, n - k)
    return np.asarray(np.where(full, 1.0, special().betaincinv(k + 1, rest, 1 - alpha)))


def tango_score(
    harmful: ArrayLike, healing: ArrayLike, items: ArrayLike, delta: ArrayLike, continuity: ArrayLike = 0.0
) -> Reals:
    """Return Tango's score statistic of a paired difference of shares; positive where the data lie above `delta`.

    harmful: items right before and wrong after. healing: wrong before, right after. The difference is
    (healing - harmful) / items, and the variance that of the maximum likelihood under the difference `delta`
    (Tango 1998, equations 6-9). delta: strictly within -1..1; at 0 with no discordant item the statistic is 0.
    continuity: items taken from the numerator, because counts are whole; 0 is Tango's own.
    """
    b, c, n, d, whole = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (harmful, healing, items, delta, continuity))
    )
    # q: probability of a harmful item, maximum likelihood when the healing ones have q + d
    linear = -c - b + (2 * n - c + b) * d
    constant = -b * d * (1 - d)
    root = np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0.0))
    # the positive root of 2 n q^2 + linear q + constant = 0, without cancellation
    minus = -linear
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(minus >= 0, (minus + root) / (4 * n), -2 * constant / (linear + root))
    q = np.maximum(np.where(np.isnan(q), 0.0, q), np.maximum(0.0, -d))
    variance = n * (2 * q + d * (1 - d))
    distance = c - b - n * d - whole
    with np.errstate(divide="ignore", invalid="ignore"):
        score = distance / np.sqrt(np.maximum(variance, 0.0))
    return np.asarray(np.where(np.abs(distance) <= 1e-12 * np.maximum(n, 1.0), 0.0, score))


def tango_bound(harmful: ArrayLike, healing: ArrayLike, items: ArrayLike, z: ArrayLike) -> Reals:
    """Return the difference whose score statistic is `z`: the lower bound for z > 0, the upper bound for z < 0."""
    b, c, n, target = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (harmful, healing, items, z))
    )
    low, high = np.full(b.shape, -1.0), np.full(b.shape, 1.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = tango_score(b, c, n, middle) > target  # the statistic falls as the difference grows
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)
