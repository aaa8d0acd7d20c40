"""What questions in clusters can certify before any run: the power of a PASS, the joint power, the questions needed.

Independent questions by summing over all outcomes (settle.py), clusters by drawing them (worlds.py); the bounds are
the ones that will judge. Knows sizes of clusters and cells, no dataset and no file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .bounds import PairedClusters, from_counts, is_above, lower_bound
from .intervals import Reals, special
from .settle import MOST_ITEMS, POWER, items_needed, power
from .verdict import ALPHA, ALPHA_PASS_COMPETENCE
from .worlds import Counts, Flips, draw_counts, draw_pairs, grown

DRAWS = 4_000
SEED = 1
_CONFIDENCE_Z = 1.645  # a drawn power counts as 0.8 where its one-sided 95 % limit is above it
_CHUNK = 2_000_000
_ROUNDS = 12


@dataclass(frozen=True)
class Lead:
    """What is assumed of the reference. accuracy: of its answers; lead: over the text-only prior, both 0..1."""

    accuracy: float
    lead: float

    def flips(self, correlation: float) -> Flips:
        """Return how prior and reference differ if neither knows of the other's errors."""
        prior = self.accuracy - self.lead
        return Flips(prior * (1 - self.accuracy), self.accuracy * (1 - prior), correlation)


def pass_power(sizes: ArrayLike, flips: Flips, margin: float, lead: Lead, draws: int = DRAWS) -> float:
    """Return the chance of a PASS: the bound above the margin, and a lead as sure as a PASS asks for.

    sizes: questions per cluster. The two are drawn apart, as if flips fell on right and wrong answers alike.
    """
    shown = competence_power(sizes, lead, flips.correlation, draws)
    return shown * margin_power(sizes, flips, margin, draws) if shown else 0.0


def margin_power(sizes: ArrayLike, flips: Flips, margin: float, draws: int = DRAWS, alpha: float = ALPHA) -> float:
    """Return the chance that the lower bound of the difference lies above -margin."""
    size = np.asarray(sizes)
    if size.max() == 1:
        return power(len(size), flips.harmful, flips.healing, margin, "above", alpha)
    pairs = draw_pairs(size, flips, draws, np.random.default_rng(SEED))
    return float(is_above(pairs, -margin, alpha).mean())


def competence_power(sizes: ArrayLike, lead: Lead, correlation: float, draws: int = DRAWS) -> float:
    """Return the chance that the reference's lead is as sure as a PASS asks for."""
    return margin_power(sizes, lead.flips(correlation), 0.0, draws, ALPHA_PASS_COMPETENCE)


def smallest_margin(sizes: ArrayLike, flips: Flips, draws: int = DRAWS) -> float:
    """Return the smallest margin that these clusters certify with power 0.8, competence aside; 1 where none."""
    pairs = draw_pairs(sizes, flips, draws, np.random.default_rng(SEED))
    lower = float(np.quantile(lower_bound(pairs, ALPHA), 1 - POWER, method="lower"))
    return min(1.0, max(0.0, -lower))


def clusters_needed(sizes: ArrayLike, flips: Flips, margin: float, lead: Lead, draws: int = DRAWS) -> int | None:
    """Return how many clusters, in sizes like these, PASS with power 0.8; None where ten million items do not.

    A drawn power must lie above 0.8 by its own uncertainty, so that the number is enough and not only about enough.
    """
    size = np.asarray(sizes)
    single, mean = bool(size.max() == 1), float(size.mean())
    start = items_needed(round(flips.harmful, 6), round(flips.healing, 6), margin, ALPHA)
    if start is None or flips.healing - flips.harmful <= -margin:
        return None
    doubt = 0.0 if single else _CONFIDENCE_Z * math.sqrt(POWER * (1 - POWER) / draws)
    effect = 1 + (float((size**2).sum() / size.sum()) - 1) * flips.correlation
    clusters, most = max(8, math.ceil(start if single else start * effect / mean)), max(16, int(MOST_ITEMS / mean))
    low, high = 0, 0
    for _ in range(_ROUNDS):
        found = pass_power(grown(size, clusters), flips, margin, lead, draws)
        if found >= POWER + doubt:
            high = clusters
            if single and not low:  # items_needed is the smallest already
                break
        else:
            low = clusters
        if (high and high <= 1.02 * low + 1) or low >= most:
            break
        clusters = min(most, _next(clusters, found, low, high, POWER + 2 * doubt))
    return high or None


def _next(clusters: int, found: float, low: int, high: int, wanted: float) -> int:
    """Return the number to try next: power rises as the normal tail of the root of the number, within what is known."""
    ndtri = special().ndtri
    reached, goal = (float(ndtri(min(max(value, 0.002), 0.998))) + 1.645 for value in (found, wanted))
    guess = math.ceil(clusters * min(4.0, max(0.3, (goal / max(reached, 0.2)) ** 2)))
    if high and low:
        inside = min(max(guess, low + max(1, (high - low) // 8)), high - max(1, (high - low) // 8))
        return inside if low < inside < high else (low + high) // 2
    if high:
        return max(1, min(guess, high - max(1, high // 50)))
    return max(guess, low + max(1, low // 50))


def joint_power(
    clusters: Counts, cells: Counts, flips: Flips, margins: Sequence[float], lead: Lead, draws: int = 2_000
) -> tuple[float, float, Reals]:
    """Return the chances that every cell PASSes, that they do and the whole too, and that each cell does.

    clusters, cells: of each question, (items,); a cell of -1 counts for the whole only. margins: of each cell, the
    whole's last. A cluster's fate reaches into all cells that it has questions in.
    """
    blocks, size = np.unique(np.stack([clusters, cells], 1), axis=0, return_counts=True)
    rng = np.random.default_rng(SEED + 2)
    step = max(1, _CHUNK // len(size))
    passed = []
    for start in range(0, draws, step):
        count = min(step, draws - start)
        level = _draw_blocks(blocks[:, 0], size, flips, count, rng)
        prior = _draw_blocks(blocks[:, 0], size, lead.flips(flips.correlation), count, rng)
        parts = [np.flatnonzero(blocks[:, 1] == cell) for cell in range(len(margins) - 1)]
        verdicts = [
            is_above(_reduced(level, at, blocks[at, 0], size[at]), -margin, ALPHA)
            & is_above(_reduced(prior, at, blocks[at, 0], size[at]), 0.0, ALPHA_PASS_COMPETENCE)
            for at, margin in zip([*parts, np.arange(len(size))], margins, strict=True)
        ]
        passed.append(np.stack(verdicts, 1))
    flags = np.concatenate(passed)
    each = flags[:, :-1].all(1)
    return float(each.mean()), float((each & flags[:, -1]).mean()), np.asarray(flags[:, :-1].mean(0))


def _draw_blocks(
    cluster: Counts, size: Counts, flips: Flips, draws: int, rng: np.random.Generator
) -> tuple[Reals, Reals]:
    """Draw (harmful, healing), (draws, blocks) each; blocks of one cluster share its fate."""
    fate = rng.random((draws, int(cluster.max()) + 1))[:, cluster]
    harmful, healing = np.zeros((2, draws, len(size)))
    for each in np.unique(size):
        at = np.flatnonzero(size == each)
        harmful[:, at], healing[:, at] = draw_counts(int(each), flips, fate[:, at], rng)
    return harmful, healing


def _reduced(drawn: tuple[Reals, Reals], at: Counts, cluster: Counts, size: Counts) -> PairedClusters:
    """Reduce some blocks, those of one cluster added up."""
    starts = np.flatnonzero(np.r_[True, cluster[1:] != cluster[:-1]])  # np.unique has put a cluster's blocks together
    harmful, healing = (np.add.reduceat(part[:, at], starts, axis=1) for part in drawn)
    return from_counts(harmful, healing, np.add.reduceat(size, starts))
