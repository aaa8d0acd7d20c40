"""The bootstrap of whole clusters against SciPy's and against a binomial in closed form."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy import stats

from infimed.evaluation.bootstrap import DRAWS, paired_bootstrap


def world(seed: int, clusters: int, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcomes before and after, and labels, of clusters of 1 to `most` items that share their luck."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(clusters), rng.integers(1, most + 1, clusters))
    before = rng.random(len(labels)) < 0.7
    harmed = (rng.random(clusters) < 0.15)[labels]
    after = np.where(harmed & (rng.random(len(labels)) < 0.8), ~before, before)
    return before, after, labels


@pytest.mark.parametrize(("clusters", "most"), [(30, 6), (150, 4)])
def test_limits_are_those_of_scipys_bootstrap_over_clusters(clusters: int, most: int) -> None:
    before, after, labels = world(clusters, clusters, most)
    net = np.bincount(labels, after.astype(float) - before)
    size = np.bincount(labels)
    theirs = stats.bootstrap(
        (net, size), lambda x, n, axis: x.sum(axis) / n.sum(axis), paired=True, vectorized=True, n_resamples=40_000,
        confidence_level=0.9, method="percentile", random_state=np.random.default_rng(7),
    )  # fmt: skip
    ours = paired_bootstrap(before, after, labels, draws=40_000)
    assert ours is not None
    spread = theirs.standard_error
    assert abs(ours.lower - theirs.confidence_interval.low) < 0.04 * spread
    assert abs(ours.upper - theirs.confidence_interval.high) < 0.04 * spread


def test_single_items_that_only_lose_are_a_binomial() -> None:
    before = np.ones(400, bool)
    after = np.arange(400) >= 37
    found = paired_bootstrap(before, after, np.arange(400), draws=200_000)
    assert found is not None
    closed = stats.binom(400, 37 / 400)
    assert found.lower == pytest.approx(-closed.ppf(0.95) / 400) and found.upper == pytest.approx(
        -closed.ppf(0.05) / 400
    )


def test_drawing_kinds_of_clusters_is_drawing_clusters_one_by_one() -> None:
    before, after, labels = world(3, 80, 5)
    net, size = np.bincount(labels, after.astype(float) - before), np.bincount(labels)
    rng = np.random.default_rng(9)
    picks = rng.integers(0, len(net), (40_000, len(net)))
    plain = net[picks].sum(1) / size[picks].sum(1)
    found = paired_bootstrap(before, after, labels, draws=40_000)
    assert found is not None
    assert found.lower == pytest.approx(np.quantile(plain, 0.05), abs=0.04 * plain.std())
    assert found.upper == pytest.approx(np.quantile(plain, 0.95), abs=0.04 * plain.std())


def test_clusters_widen_the_limits_and_the_seed_repeats_them() -> None:
    labels = np.repeat(np.arange(60), 8)
    before, after = np.ones(480, bool), labels >= 9  # nine patients of sixty are lost whole
    found, again = (paired_bootstrap(before, after, labels) for _ in range(2))
    alone = paired_bootstrap(before, after, np.arange(len(labels)))
    assert found is not None and alone is not None and found == again
    assert (found.draws, found.seed) == (DRAWS, 1) == (10_000, 1)
    assert found.upper - found.lower > 2 * (alone.upper - alone.lower)
    assert paired_bootstrap(before, after, labels, seed=2) != found


def test_no_flip_gives_zero_width_and_one_cluster_gives_nothing() -> None:
    same = np.ones(50, bool)
    found = paired_bootstrap(same, same, np.arange(50))
    assert found is not None and (found.lower, found.upper) == (0.0, 0.0)
    assert paired_bootstrap(same, same, np.zeros(50)) is None
