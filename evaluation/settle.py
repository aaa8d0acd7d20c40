"""How many items would settle a verdict: exact power of the bound at given rates of harmful and healing flips.

Power is summed over all outcomes of independent items under the two rules of bounds.py; clusters enter as a factor, the
design effect. `infimed drift --plan` can stand on this. Knows no runs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .bounds import FEW_CLUSTERS, PairedClusters, hidden_loss
from .intervals import Reals, clopper_pearson_upper, special, tango_score

POWER = 0.8
MOST_ITEMS = 10_000_000  # beyond this the honest answer is that items alone will not settle it
_GRID = 61  # outcomes per axis; denser outcomes are thinned evenly
_REACH_SD = 5.0

Side = Literal["above", "below"]


def power(items: int, harmful: float, healing: float, margin: float, side: Side, alpha: float = 0.05) -> float:
    """Return the chance that the bound falls on one side of -margin with this many independent items.

    harmful, healing: the shares of items that flip each way. "above": the lower bound is above -margin (PASS).
    "below": the upper bound is below it (FAIL).
    """
    b, c = np.meshgrid(_axis(items, harmful), _axis(items, healing), indexing="ij")
    inside = b + c <= items
    b, c = b[inside], c[inside]
    gammaln, xlogy = special().gammaln, special().xlogy
    same = max(0.0, 1 - harmful - healing)
    log_weight = (
        gammaln(items + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(items - b - c + 1)
        + xlogy(b, harmful) + xlogy(c, healing) + xlogy(items - b - c, same)
    )  # fmt: skip
    weight = np.exp(log_weight - log_weight.max())
    return float((weight * _settled(b, c, items, margin, side, alpha)).sum() / weight.sum())


def _settled(b: Reals, c: Reals, items: int, margin: float, side: Side, alpha: float) -> NDArray[np.bool_]:
    """Return which outcomes of independent items put the bound on its side: bounds.py with clusters of one."""
    if side == "below":
        b, c, margin = c, b, -margin
    discordant = b + c
    values, index = np.unique(discordant, return_inverse=True)
    point = special().stdtrit(np.maximum(values, 1.0), 1 - alpha)[index]
    whole = np.maximum(c - b, 0.0) / np.maximum(discordant, 1.0) / 2  # as bounds.py has it for D = 1
    by_score = np.asarray(tango_score(b, c, float(items), -margin, whole) > point)
    by_score &= (c - b) / items + np.expm1(math.log(alpha) / items) > -margin
    few = discordant <= FEW_CLUSTERS
    by_score[few] = clopper_pearson_upper(b[few], float(items), alpha) < margin
    return by_score


@lru_cache(maxsize=4096)
def items_needed(
    harmful: float, healing: float, margin: float, alpha: float = 0.05, wanted: float = POWER
) -> int | None:
    """Return the number of independent items with power `wanted` to settle it, None where more than ten million.

    The side is the one on which the true difference, healing - harmful, lies.
    """
    delta = healing - harmful
    side: Side = "above" if delta > -margin else "below"
    if delta == -margin:
        return None
    low, high = 8, 16
    while power(high, harmful, healing, margin, side, alpha) < wanted:
        low, high = high, high * 2
        if high > MOST_ITEMS:
            return None
    while high - low > max(1, low // 500):
        middle = (low + high) // 2
        if power(middle, harmful, healing, margin, side, alpha) < wanted:
            low = middle
        else:
            high = middle
    return high


def items_to_settle(pairs: PairedClusters, margin: float, alpha: float = 0.05) -> int | None:
    """Return how many items, clustered like these and flipping like these, would settle the verdict.

    pairs: one comparison (not several draws). None where the difference seen lies so near the margin that items alone
    will hardly settle it. Never fewer than one more than there are.
    """
    items = float(pairs.items)
    harmful, healing = float(pairs.harmful) / items, float(pairs.healing) / items
    independent = items_needed(round(harmful, 6), round(healing, 6), margin, alpha)
    unhidden = _items_that_hide_less(pairs, margin, alpha)
    if independent is None or unhidden is None:
        return None
    return max(math.ceil(independent * float(pairs.inflation)), unhidden, round(items) + 1)


def _items_that_hide_less(pairs: PairedClusters, margin: float, alpha: float) -> int | None:
    """Return how many items, clustered like these, hide less than what lies between the difference and the margin."""
    items, delta = float(pairs.items), float(pairs.delta)
    variance = (float(pairs.harmful + pairs.healing) / items - delta**2) * float(pairs.inflation)
    reach = float(special().ndtri(POWER)) * math.sqrt(max(variance, 0.0) / items)
    many = float(special().gammaincinv(FEW_CLUSTERS + 1, POWER))  # Poisson: more than FEW_CLUSTERS come that often
    most = MOST_ITEMS / items

    def enough(copies: float) -> bool:
        if 0 < copies * float(pairs.clusters_discordant) < many:  # the rule of few clusters may still judge
            seen = math.ceil(copies * float(pairs.clusters_harmful))
            return delta > -margin and float(hidden_loss(pairs.held, alpha, seen, copies)) < margin
        return float(hidden_loss(pairs.held, alpha, copies=copies)) + reach / math.sqrt(copies) < abs(delta + margin)

    low, high = 1.0, 1.0
    while not enough(high):
        low, high = high, 2 * high
        if high > most:
            return None
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return math.ceil(items * high)


def _axis(items: int, share: float) -> Reals:
    """Return the counts that can occur, thinned to a grid."""
    middle, reach = items * share, _REACH_SD * math.sqrt(items * share * (1 - share)) + 6
    low, high = max(0, math.floor(middle - reach)), min(items, math.ceil(middle + reach))
    if share == 0.0:
        return np.zeros(1)
    step = max(1, math.ceil((high - low) / _GRID))
    return np.arange(low, high + 1, step, dtype=np.float64)
