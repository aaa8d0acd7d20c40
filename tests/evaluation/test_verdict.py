"""Verdicts on outcomes whose truth is planted: how often each of the four words falls."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.bounds import is_above, paired_clusters
from infimed.evaluation.verdict import (
    ALPHA,
    FAIL,
    NOT_COMPETENT,
    NOT_ENOUGH,
    PASS,
    better_prior,
    holm,
    verdict_codes,
)  # fmt: skip

DRAWS = 1_000
STRUCTURES = [pytest.param(1, 0.0, id="items of their own"), pytest.param(2, 0.3, id="2 per image, correlation 0.3"),
              pytest.param(4, 0.1, id="4 per patient, correlation 0.1")]  # fmt: skip


def planted(items, per_cluster, correlation, *, accuracy, prior, loss, healing, seed):  # type: ignore[no-untyped-def]
    """Draw (reference, level, prior, clusters) with P(level right) - P(reference right) = -loss.

    healing: the share of items that go from wrong to right; harmful ones are healing + loss of all items.
    """
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(-(-items // per_cluster)), per_cluster)[:items]

    def luck() -> np.ndarray:
        own, shared = rng.random((DRAWS, items)), rng.random((DRAWS, clusters[-1] + 1))[:, clusters]
        return np.where(rng.random((DRAWS, items)) < correlation**0.5, shared, own)

    reference = luck() < accuracy
    flip = luck()
    lost = reference & (flip < (healing + loss) / accuracy)
    found = ~reference & (flip < healing / (1 - accuracy)) if healing else np.zeros_like(reference)
    return reference, (reference & ~lost) | found, luck() < prior, clusters


def rates(reference, level, prior, clusters, margin):  # type: ignore[no-untyped-def]
    codes = verdict_codes(
        paired_clusters(reference, level, clusters), paired_clusters(prior, reference, clusters), margin
    )
    return np.bincount(codes, minlength=4) / len(codes)


@pytest.mark.parametrize(("per_cluster", "correlation"), STRUCTURES)
@pytest.mark.parametrize("healing", [0.0, 0.02])
def test_a_loss_of_15_points_in_a_cell_of_200_fails_in_80_percent_of_draws(per_cluster, correlation, healing) -> None:  # type: ignore[no-untyped-def]
    drawn = planted(200, per_cluster, correlation, accuracy=0.85, prior=0.4, loss=0.15, healing=healing, seed=1)
    assert rates(*drawn, 0.05)[FAIL] >= 0.80


@pytest.mark.parametrize(("per_cluster", "correlation"), STRUCTURES)
@pytest.mark.parametrize(("items", "margin", "healing"), [(200, 0.05, 0.0), (600, 0.02, 0.01), (900, 0.05, 0.1)])
def test_a_loss_at_exactly_the_margin_passes_in_at_most_6_percent_of_draws(  # type: ignore[no-untyped-def]
    per_cluster, correlation, items, margin, healing
) -> None:
    drawn = planted(items, per_cluster, correlation, accuracy=0.85, prior=0.4, loss=margin, healing=healing, seed=2)
    found = rates(*drawn, margin)
    assert found[PASS] <= 0.06
    assert found[FAIL] <= 0.065  # 1,000 draws of at most 5.4 %


@pytest.mark.parametrize(("per_cluster", "correlation"), STRUCTURES)
@pytest.mark.parametrize("items", [20, 60, 200, 1000])
def test_a_reference_at_chance_never_gives_a_pass(per_cluster, correlation, items) -> None:  # type: ignore[no-untyped-def]
    for chance in (0.5, 0.25):
        reference, _, majority, clusters = planted(
            items, per_cluster, correlation, accuracy=chance, prior=chance, loss=0.0, healing=0.0, seed=3
        )
        grey = planted(items, per_cluster, correlation, accuracy=chance, prior=0, loss=0, healing=0, seed=4)[0]
        prior = np.where(grey.mean(-1, keepdims=True) > majority.mean(-1, keepdims=True), grey, majority)
        found = rates(reference, reference, prior, clusters, 0.05)
        assert found[PASS] == 0
        assert found[NOT_COMPETENT] >= 0.90


@pytest.mark.parametrize(("per_cluster", "correlation"), STRUCTURES)
def test_an_unchanged_level_passes(per_cluster, correlation) -> None:  # type: ignore[no-untyped-def]
    reference, _, prior, clusters = planted(
        800, per_cluster, correlation, accuracy=0.9, prior=0.5, loss=0.0, healing=0.0, seed=4
    )
    assert rates(reference, reference, prior, clusters, 0.02)[PASS] == 1.0


def test_too_few_items_are_not_a_pass_even_when_nothing_changed() -> None:
    reference, _, prior, clusters = planted(40, 1, 0.0, accuracy=0.95, prior=0.3, loss=0.0, healing=0.0, seed=5)
    assert rates(reference, reference, prior, clusters, 0.05)[PASS] == 0
    assert rates(reference, reference, prior, clusters, 0.05)[NOT_ENOUGH] >= 0.99


def test_a_competent_reference_of_small_lead_may_fail_a_level_but_not_pass_it() -> None:
    clusters = np.arange(400)
    reference = (np.arange(400) % 20 < 11)[None]  # 55 %
    prior = (np.arange(400) % 20 < 9)[None]  # 45 %, and wrong only where the reference is right
    # 200 items rule a loss of the margin out and show a lead; only 400 show it as surely as a PASS asks
    for items, verdict in ((200, NOT_ENOUGH), (400, PASS)):
        lead = paired_clusters(prior[:, :items], reference[:, :items], clusters[:items])
        same = paired_clusters(reference[:, :items], reference[:, :items], clusters[:items])
        assert float(lead.harmful[0]) == 0 and float(lead.healing[0]) == items / 10
        assert is_above(same, -0.02, ALPHA)[0] and is_above(lead, 0.0, ALPHA)[0]
        assert verdict_codes(same, lead, 0.02)[0] == verdict
    few = [pairs[:, :120] for pairs in (prior, reference)]
    lead = paired_clusters(*few, clusters[:120])
    worse = few[1] & (np.arange(120) % 20 > 4)
    assert verdict_codes(paired_clusters(few[1], few[1], clusters[:120]), lead, 0.05)[0] == NOT_ENOUGH
    assert verdict_codes(paired_clusters(few[1], worse, clusters[:120]), lead, 0.05)[0] == FAIL


def test_without_a_prior_nothing_is_judged() -> None:
    reference = np.ones((3, 500), dtype=bool)
    assert (
        verdict_codes(paired_clusters(reference, reference, np.arange(500)), None, 0.02).tolist() == [NOT_COMPETENT] * 3
    )


def test_holm_equals_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = [0.01, 0.04, 0.03, 0.005, 0.6, 0.04, 1.0]
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1].tolist(), abs=1e-12)
    assert holm([]) == ()


def test_the_better_prior_is_the_one_right_more_often_and_the_first_of_equals() -> None:
    priors = {"majority answer": np.array([1, 0, 0, 1], bool), "grey image": np.array([1, 1, 0, 1], bool)}
    assert better_prior(priors)[0] == "grey image"
    priors["grey image"] = priors["majority answer"].copy()
    assert better_prior(priors)[0] == "majority answer"
