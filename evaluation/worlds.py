"""Draws outcomes of two runs over clusters of stated sizes: how often the bounds decide, and how often they err.

The model: an item copies its cluster's fate with probability sqrt(correlation) and else has its own; a fate is harmful,
healing or neither. Clusters of one size are alike, so a draw needs only how many of them show each pair of counts:
thousands of clusters cost no more than a few. Knows no dataset and no verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bounds import PairedClusters, from_sums, summands
from .intervals import Reals, special

Counts = NDArray[np.int64]
_RARE = 1e-14  # pairs of counts this rare are left out: of a billion clusters not one shows them
_CHUNK = 4_000_000  # counts held at once
_TABLED = 64  # a larger cluster has too many pairs of counts to list; its items are drawn


@dataclass(frozen=True)
class Flips:
    """How two runs differ. harmful, healing: shares of items that flip each way. correlation: of two items' fates."""

    harmful: float
    healing: float
    correlation: float = 0.0

    @classmethod
    def of(cls, discordant: float, delta: float = 0.0, correlation: float = 0.0) -> Flips:
        """Return flips of a share `discordant` of items whose difference, healing minus harmful, is `delta`."""
        return cls((discordant - delta) / 2, max(0.0, (discordant + delta) / 2), correlation)


@dataclass(frozen=True)
class Outcomes:
    """Every pair of counts that a cluster of one size can show, with its chance under each fate of the cluster.

    harmful, healing: (pairs,). neither, lost, healed: chances given the cluster's fate, (pairs,) each, summing to 1.
    """

    harmful: Counts
    healing: Counts
    neither: Reals
    lost: Reals
    healed: Reals

    def chances(self, flips: Flips) -> Reals:
        """Return the chance of each pair, whatever the fate."""
        same = 1 - flips.harmful - flips.healing
        return same * self.neither + flips.harmful * self.lost + flips.healing * self.healed


@lru_cache(maxsize=4096)
def outcomes_of(size: int, flips: Flips) -> Outcomes:
    """Return the pairs of counts of a cluster of `size` items, the most frequent first."""
    grid = size + 1
    under = {fate: np.zeros((grid, grid)) for fate in ("neither", "lost", "healed")}
    copying = math.sqrt(flips.correlation)
    binomial, log = special().gammaln, special().xlogy
    for copies in range(grid):
        weight = math.exp(
            binomial(grid) - binomial(copies + 1) - binomial(size - copies + 1)
            + log(copies, copying) + log(size - copies, 1 - copying)
        )  # fmt: skip
        if weight < _RARE:
            continue
        own = weight * _trinomial(size - copies, flips)
        rest = grid - copies
        under["neither"][:rest, :rest] += own
        under["lost"][copies:, :rest] += own
        under["healed"][:rest, copies:] += own
    harmful, healing = (axis.ravel() for axis in np.indices((grid, grid)))
    flat = {fate: chance.ravel() for fate, chance in under.items()}
    found = Outcomes(harmful, healing, **flat)
    kept = np.flatnonzero(found.chances(flips) > _RARE)
    order = kept[np.argsort(-found.chances(flips)[kept], kind="stable")]
    return Outcomes(harmful[order], healing[order], **{fate: _to_one(chance[order]) for fate, chance in flat.items()})


def _trinomial(items: int, flips: Flips) -> Reals:
    """Return the chances of (harmful, healing) among independent items: (items + 1, items + 1)."""
    b, c = np.indices((items + 1, items + 1)).astype(np.float64)
    rest = items - b - c
    gammaln, xlogy = special().gammaln, special().xlogy
    logs = (
        gammaln(items + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(np.maximum(rest, 0) + 1)
        + xlogy(b, flips.harmful) + xlogy(c, flips.healing)
        + xlogy(np.maximum(rest, 0), max(0.0, 1 - flips.harmful - flips.healing))
    )  # fmt: skip
    return np.asarray(np.where(rest >= 0, np.exp(logs), 0.0))


def _to_one(chances: Reals) -> Reals:
    total = chances.sum()
    return chances / total if total > 0 else chances


def draw_pairs(sizes: ArrayLike, flips: Flips, draws: int, rng: np.random.Generator) -> PairedClusters:
    """Draw outcomes of clusters of these sizes and reduce them for the bounds. sizes: items each, (clusters,)."""
    size = np.asarray(sizes, dtype=np.int64)
    sums = np.zeros((draws, 9))
    for each, clusters in zip(*np.unique(size, return_counts=True), strict=True):
        if each > _TABLED:
            fate = rng.random((draws, clusters))
            parts = summands(*draw_counts(int(each), flips, fate, rng), np.full(1, float(each)))
            sums += np.stack([part.sum(-1) for part in parts], -1)
            continue
        found = outcomes_of(int(each), flips)
        chances = _to_one(found.chances(flips))
        values = np.stack(
            summands(found.harmful.astype(np.float64), found.healing.astype(np.float64), np.full(1, float(each))), -1
        )
        step = max(1, _CHUNK // len(chances))
        for start in range(0, draws, step):
            seen = rng.multinomial(clusters, chances, size=min(step, draws - start))
            sums[start : start + step] += seen @ values
    return from_sums(sums, size.astype(np.float64))


def draw_counts(size: int, flips: Flips, fate: Reals, rng: np.random.Generator) -> tuple[Reals, Reals]:
    """Draw (harmful, healing) of clusters, or parts of clusters, of one size whose fates are given.

    fate: uniform numbers, any shape; below `harmful` the fate is harmful, in the next `healing` it is healing.
    """
    lost = fate < flips.harmful
    healed = ~lost & (fate < flips.harmful + flips.healing)
    if size > _TABLED:
        copies = rng.binomial(size, math.sqrt(flips.correlation), fate.shape)
        harmful = rng.binomial(size - copies, flips.harmful)
        healing = rng.binomial(size - copies - harmful, min(1.0, flips.healing / max(1 - flips.harmful, 1e-12)))
        return (harmful + copies * lost).astype(np.float64), (healing + copies * healed).astype(np.float64)
    found = outcomes_of(size, flips)
    luck = rng.random(fate.shape)
    code = np.searchsorted(np.cumsum(found.neither), luck, side="right")
    for here, chances in ((lost, found.lost), (healed, found.healed)):
        code[here] = np.searchsorted(np.cumsum(chances), luck[here], side="right")
    code = np.minimum(code, len(found.harmful) - 1)
    return found.harmful[code].astype(np.float64), found.healing[code].astype(np.float64)


def grown(sizes: ArrayLike, clusters: int) -> Counts:
    """Return `clusters` sizes spread as `sizes` are: the same set with more patients, or with fewer."""
    ordered = np.sort(np.asarray(sizes, dtype=np.int64))
    places = (np.arange(clusters) + 0.5) / clusters * len(ordered)
    return np.asarray(ordered[np.minimum(places.astype(np.int64), len(ordered) - 1)])
