"""Drawn outcomes follow the model they state: against chances by hand, against drawing every item, and by moments."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy.stats import multinomial

from infimed.evaluation.bounds import from_counts
from infimed.evaluation.worlds import Flips, draw_counts, draw_pairs, grown, outcomes_of

FIELDS = ("harmful", "healing", "clusters_discordant", "clusters_harmful", "clusters_healing", "effective_discordant",
          "design_effect", "inflation")  # fmt: skip


def item_by_item(sizes, flips, draws, rng):  # type: ignore[no-untyped-def]
    """Every item's own fate, or its cluster's copied with probability sqrt(correlation): the model word for word."""
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    own, shared = rng.random((draws, len(cluster))), rng.random((draws, len(sizes)))[:, cluster]
    luck = np.where(rng.random(own.shape) < flips.correlation**0.5, shared, own)
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    harmful = np.add.reduceat(luck < flips.harmful, starts, axis=1, dtype=float)
    healing = np.add.reduceat(
        (luck >= flips.harmful) & (luck < flips.harmful + flips.healing), starts, axis=1, dtype=float
    )
    return from_counts(harmful, healing, sizes)


def test_independent_items_of_a_cluster_have_the_multinomial_chances_of_scipy() -> None:
    flips = Flips(0.1, 0.05)
    found = outcomes_of(4, flips)
    rest = 4 - found.harmful - found.healing
    expected = multinomial.pmf(np.stack([found.harmful, found.healing, rest], 1), 4, [0.1, 0.05, 0.85])
    assert found.chances(flips) == pytest.approx(expected, abs=1e-13) and len(expected) == 15


def test_two_items_of_a_cluster_have_the_stated_correlation() -> None:
    flips = Flips(0.1, 0.06, 0.3)
    found = outcomes_of(2, flips)
    chance = dict(
        zip(zip(found.harmful.tolist(), found.healing.tolist(), strict=True), found.chances(flips), strict=True)
    )
    # both harmful: as independent, or both the cluster's fate (chance sqrt(0.3)^2 = 0.3)
    assert chance[2, 0] == pytest.approx(0.7 * 0.01 + 0.3 * 0.1)
    assert chance[1, 1] == pytest.approx(0.7 * 2 * 0.1 * 0.06)
    assert sum(chance.values()) == pytest.approx(1)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_what_is_drawn_by_size_is_what_is_drawn_item_by_item(correlation: float) -> None:
    sizes, flips = np.random.default_rng(3).geometric(0.4, 60), Flips(0.07, 0.03, correlation)
    fast = draw_pairs(sizes, flips, 6_000, np.random.default_rng(1))
    slow = item_by_item(sizes, flips, 2_000, np.random.default_rng(2))
    assert fast.held.tolist() == slow.held.tolist() and fast.clusters == slow.clusters == 60
    for name in FIELDS:
        one, other = getattr(fast, name), getattr(slow, name)
        error = math.sqrt(one.var() / len(one) + other.var() / len(other))
        assert abs(one.mean() - other.mean()) < 4 * error + 1e-12, name
        assert one.std() == pytest.approx(other.std(), rel=0.12), name


def test_clusters_too_large_to_list_are_drawn_alike() -> None:
    flips, rng = Flips(0.06, 0.02, 0.4), np.random.default_rng(5)
    pairs = draw_pairs(np.full(3, 80), flips, 4_000, rng)
    assert pairs.harmful.mean() == pytest.approx(240 * 0.06, rel=0.08)
    assert pairs.healing.mean() == pytest.approx(240 * 0.02, rel=0.14)
    # the variance of a cluster's count: size p (1 - p) (1 + (size - 1) correlation)
    assert pairs.harmful.var() == pytest.approx(3 * 80 * 0.06 * 0.94 * (1 + 79 * 0.4), rel=0.12)


def test_parts_of_one_cluster_share_its_fate() -> None:
    rng, flips = np.random.default_rng(6), Flips(0.1, 0.1, 0.8)
    fate = rng.random(20_000)
    one, other = draw_counts(2, flips, fate, rng)[0], draw_counts(2, flips, fate, rng)[0]
    assert np.corrcoef(one, other)[0, 1] > 0.8
    assert one.mean() == pytest.approx(0.2, abs=0.015)


def test_a_grown_set_has_the_same_spread_of_sizes() -> None:
    sizes = np.array([9, 1, 1, 2, 1, 2, 4, 1])
    assert grown(sizes, 8).tolist() == sorted(sizes.tolist())
    assert grown(sizes, 24).tolist() == sorted(sizes.tolist() * 3)
    assert grown(sizes, 4).tolist() == [1, 1, 2, 9]
