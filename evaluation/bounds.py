"""The bound that decides a verdict: the paired difference of two runs when items cluster by patient or image.

Questions on one image share its luck, so a bound per item errs far more often than it says. Two rules, chosen by the
number K of clusters that hold a discordant item (docs/drift.md states them with the error rates we measured):
few (K <= 5): minus the largest loss that so few harmful clusters could hide, whichever clusters carry the risk;
score (K > 5): Tango's score bound with counts divided by D (t / z)^2, D the design effect, t Student's point, and where
the difference seen is a gain a correction for counts being whole; and never above the difference seen minus the loss
that no harmful cluster at all could hide.
The upper bound mirrors the lower one with harmful and healing exchanged. Everything is vectorised over draws, so
that the simulation runs the very code that judges. Knows no runs and no verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Reals, clopper_pearson_upper, special, tango_score

FEW_CLUSTERS = 5
SHRINKAGE_CLUSTERS = 4.0  # w = 4 / (K_e + 4): how much of the design effect is taken from the cluster sizes alone
_STEPS = 48  # halvings of [-1, 1]: the bound is within 1e-14


@dataclass(frozen=True)
class PairedClusters:
    """The counts of a paired comparison by cluster, reduced to what the bounds need. Arrays over draws.

    harmful: right before, wrong after. healing: the opposite. clusters_discordant: clusters with any such item (K).
    effective_discordant: K_e = (sum h^2)^2 / sum h^4 over the clusters' numbers h of discordant items: the degrees of
    freedom of the variance between clusters (Satterthwaite, Biometrics Bulletin 2:110, 1946). mean_size: the size of
    the cluster that a random item lies in, sum(size^2) / items. design_effect: D0, at least 1. held: the share of all
    items in the j largest clusters, j = 1 to clusters; not over draws.
    """

    items: Reals
    clusters: int
    harmful: Reals
    healing: Reals
    clusters_discordant: Reals
    clusters_harmful: Reals
    clusters_healing: Reals
    effective_discordant: Reals
    mean_size: Reals
    design_effect: Reals
    held: Reals

    @property
    def largest_share(self) -> float:
        """The share of all items that lies in the largest cluster."""
        return float(self.held[0])

    @property
    def delta(self) -> Reals:
        """The difference of accuracy, after minus before."""
        return (self.healing - self.harmful) / self.items

    @property
    def inflation(self) -> Reals:
        """D: the design effect, drawn towards the mean size where few clusters speak."""
        weight = SHRINKAGE_CLUSTERS / (self.effective_discordant + SHRINKAGE_CLUSTERS)
        return np.maximum(self.design_effect, self.design_effect * (1 - weight) + self.mean_size * weight)

    @property
    def continuity(self) -> Reals:
        """Half an effective item, D / 2, times the share by which gains outweigh losses among the discordant items.

        Without losses the number of gains is as discrete as a binomial, and the score test errs up to 6.4 % at 5 %.
        """
        discordant = self.harmful + self.healing
        gain = np.maximum(self.healing - self.harmful, 0.0) / np.maximum(discordant, 1.0)
        half: Reals = self.inflation * gain / 2
        return half

    def mirrored(self) -> PairedClusters:
        """Exchange harmful and healing: the same comparison seen from the other run."""
        return PairedClusters(
            self.items, self.clusters, self.healing, self.harmful, self.clusters_discordant, self.clusters_healing,
            self.clusters_harmful, self.effective_discordant, self.mean_size, self.design_effect, self.held,
        )  # fmt: skip


def from_counts(harmful: ArrayLike, healing: ArrayLike, sizes: ArrayLike) -> PairedClusters:
    """Reduce counts per cluster. harmful, healing: (..., clusters). sizes: items per cluster, (clusters,)."""
    b, c = np.asarray(harmful, dtype=np.float64), np.asarray(healing, dtype=np.float64)
    size = np.asarray(sizes, dtype=np.float64)
    return from_sums(np.stack([part.sum(-1) for part in summands(b, c, size)], -1), size)


def summands(harmful: Reals, healing: Reals, size: Reals) -> tuple[Reals, ...]:
    """Return what `from_sums` needs the sums of, per cluster: every bound is a function of these sums and the sizes."""
    h, x = harmful + healing, healing - harmful
    flags = [(part > 0).astype(np.float64) for part in (h, harmful, healing)]
    return harmful, healing, *flags, h * h, h**4, x * x, x * size


def from_sums(sums: Reals, sizes: Reals) -> PairedClusters:
    """Reduce the sums over clusters of `summands`, (..., 9). sizes: items per cluster, (clusters,)."""
    total_harmful, total_healing, discordant, harmed, healed, squares, fourths, changes, weighted = np.moveaxis(
        sums, -1, 0
    )
    items, clusters = float(sizes.sum()), sizes.shape[-1]
    total = total_harmful + total_healing
    mean = (total_healing - total_harmful) / items
    # the sum over clusters of (healing - harmful - size mean)^2
    between = np.maximum(changes - 2 * mean * weighted + mean**2 * float((sizes**2).sum()), 0.0)
    within = total - items * mean**2
    # both variances of the mean with their own small-sample factor; with one item per cluster they are equal
    factor = clusters / max(clusters - 1, 1) / (items / max(items - 1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        design = np.where(within > 1e-9, np.maximum(1.0, factor * between / within), 1.0)
        effective = np.where(total > 0, squares**2 / fourths, 0.0)
    return PairedClusters(
        items=np.broadcast_to(np.float64(items), mean.shape).copy(),
        clusters=clusters,
        harmful=total_harmful,
        healing=total_healing,
        clusters_discordant=discordant,
        clusters_harmful=harmed,
        clusters_healing=healed,
        effective_discordant=effective,
        mean_size=np.broadcast_to((sizes**2).sum() / items, mean.shape).copy(),
        design_effect=design,
        held=np.cumsum(np.sort(sizes)[::-1]) / items,
    )


def paired_clusters(before: ArrayLike, after: ArrayLike, clusters: ArrayLike) -> PairedClusters:
    """Reduce outcomes per item. before, after: (..., items) of right or wrong. clusters: a label per item, (items,)."""
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    labels, index = np.unique(np.asarray(clusters), return_inverse=True)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(labels)))

    def per_cluster(flags: NDArray[np.bool_]) -> Reals:
        return np.add.reduceat(flags[..., order].astype(np.float64), starts, axis=-1)

    return from_counts(per_cluster(first & ~second), per_cluster(second & ~first), np.bincount(index))


def hidden_loss(held: Reals, alpha: float, harmful: ArrayLike = 0, copies: float = 1.0) -> Reals:
    """Return the largest loss, as a share of items, that harms at most `harmful` clusters with a chance of alpha.

    The limit of Clopper and Pearson for clusters of any sizes: max over j of held_j times their limit of harmful in j
    clusters, as if the j largest alone were at risk. For clusters of one size it is their limit itself. copies: the
    same sizes this many times over.
    """
    count = np.arange(1, len(held) + 1) * copies
    seen = np.asarray(harmful, dtype=np.float64)
    levels, index = np.unique(seen, return_inverse=True)
    worst = [float((held * clopper_pearson_upper(level, count, alpha)).max()) for level in levels]
    return np.asarray(np.array(worst)[index].reshape(seen.shape))


def lower_bound(pairs: PairedClusters, alpha: float) -> Reals:
    """Return the one-sided lower bound of the difference at level 1 - alpha; it never lies above the difference."""
    low, high = np.full(pairs.items.shape, -1.0), np.full(pairs.items.shape, 1.0)
    point = special().stdtrit(np.maximum(pairs.effective_discordant, 1.0), 1 - alpha)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = _studentised(pairs, middle) > point
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    by_score = np.minimum((low + high) / 2, pairs.delta - hidden_loss(pairs.held, alpha))
    return np.where(_few(pairs), -_loss_by_clusters(pairs, alpha), by_score)


def upper_bound(pairs: PairedClusters, alpha: float) -> Reals:
    """Return the one-sided upper bound of the difference at level 1 - alpha; it never lies below the difference."""
    return -lower_bound(pairs.mirrored(), alpha)


def is_above(pairs: PairedClusters, delta: float, alpha: float) -> NDArray[np.bool_]:
    """Return whether the lower bound lies above `delta`, without searching for the bound itself."""
    point = special().stdtrit(np.maximum(pairs.effective_discordant, 1.0), 1 - alpha)
    by_score = (_studentised(pairs, delta) > point) & (pairs.delta - hidden_loss(pairs.held, alpha) > delta)
    return np.asarray(np.where(_few(pairs), -_loss_by_clusters(pairs, alpha) > delta, by_score))


def is_below(pairs: PairedClusters, delta: float, alpha: float) -> NDArray[np.bool_]:
    """Return whether the upper bound lies below `delta`."""
    return is_above(pairs.mirrored(), -delta, alpha)


def p_below(pairs: PairedClusters, margin: float) -> Reals:
    """Return the p-value against "the difference is -margin or more": small where the run is worse than the margin.

    It is the smallest alpha at which upper_bound falls below -margin; few clusters can never show that.
    """
    mirror = pairs.mirrored()
    p = special().stdtr(np.maximum(mirror.effective_discordant, 1.0), -_studentised(mirror, margin))
    gap = np.maximum(-margin - pairs.delta, 0.0)[..., None]
    hidden = np.maximum(1 - gap / pairs.held, 0.0) ** np.arange(1, len(pairs.held) + 1)
    return np.where(_few(pairs), 1.0, np.maximum(p, hidden.max(-1)))


def _few(pairs: PairedClusters) -> NDArray[np.bool_]:
    return np.asarray(pairs.clusters_discordant <= FEW_CLUSTERS)


def _loss_by_clusters(pairs: PairedClusters, alpha: float) -> Reals:
    """Return the loss that the harmful clusters leave possible, where few are discordant; elsewhere 1."""
    few = _few(pairs)
    loss = np.ones(few.shape)
    if few.any():
        loss[few] = hidden_loss(pairs.held, alpha, pairs.clusters_harmful[few])
    return loss


def _studentised(pairs: PairedClusters, delta: ArrayLike) -> Reals:
    """Return Tango's statistic over the square root of D: what is held against Student's point.

    Dividing b, c and n by s divides the statistic by sqrt(s), so s = D (t / z)^2 against z is D against t.
    """
    score = tango_score(pairs.harmful, pairs.healing, pairs.items, delta, pairs.continuity)
    return np.asarray(score / np.sqrt(pairs.inflation))
