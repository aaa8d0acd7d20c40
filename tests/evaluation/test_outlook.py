"""The power that a plan states is what drawing shows; its number of questions is enough and not too many."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.bounds import is_above, lower_bound
from infimed.evaluation.outlook import (
    Lead,
    clusters_needed,
    competence_power,
    joint_power,
    margin_power,
    pass_power,
    smallest_margin,
)
from infimed.evaluation.verdict import ALPHA, ALPHA_PASS_COMPETENCE
from infimed.evaluation.worlds import Flips, draw_pairs, grown

from .test_settle import SIMULATED
from .test_worlds import item_by_item

SURE = Lead(0.9, 0.5)


@pytest.mark.parametrize(("margin", "flips", "items"), SIMULATED)
def test_independent_questions_need_at_most_a_tenth_more_than_was_simulated_elsewhere(margin, flips, items) -> None:  # type: ignore[no-untyped-def]
    needed = clusters_needed(np.ones(50, int), Flips.of(flips), margin, SURE)
    assert needed is not None and needed <= 1.1 * items
    drawn = draw_pairs(np.ones(needed, int), Flips.of(flips), 20_000, np.random.default_rng(3))
    assert is_above(drawn, -margin, ALPHA).mean() > 0.8 - 3 * 0.0028


@pytest.mark.parametrize(("flips", "correlation"), [(0.02, 0.3), (0.1, 0.5)])
def test_clusters_like_these_pass_with_power_080_when_drawn_item_by_item(flips: float, correlation: float) -> None:
    sizes = np.array([1, 1, 1, 2, 2, 3, 3, 5])
    needed = clusters_needed(sizes, Flips.of(flips, 0.0, correlation), 0.05, SURE)
    assert needed is not None
    found = {}
    for clusters in (needed, round(0.7 * needed)):
        pairs = item_by_item(grown(sizes, clusters), Flips.of(flips, 0.0, correlation), 1_500, np.random.default_rng(9))
        found[clusters] = float(is_above(pairs, -0.05, ALPHA).mean())
    assert found[needed] >= 0.8 - 2 * 0.0103 and found[round(0.7 * needed)] < 0.8


def test_the_smallest_margin_is_the_one_that_four_draws_in_five_certify() -> None:
    sizes, flips = np.repeat([1, 2, 4], 60), Flips.of(0.05, 0.0, 0.3)
    margin = smallest_margin(sizes, flips)
    bounds = lower_bound(draw_pairs(sizes, flips, 4_000, np.random.default_rng(77)), ALPHA)
    assert float((bounds > -margin - 0.002).mean()) > 0.79 > float((bounds > -margin + 0.004).mean())


def test_a_small_lead_is_not_shown_and_a_pass_asks_for_it() -> None:
    sizes, flips = np.ones(300, int), Flips.of(0.01)
    assert margin_power(sizes, flips, 0.05) > 0.99
    small, large = Lead(0.7, 0.05), Lead(0.9, 0.4)
    assert competence_power(sizes, small, 0.0) < 0.02 and competence_power(sizes, large, 0.0) > 0.99
    assert pass_power(sizes, flips, 0.05, small) < 0.02
    rng = np.random.default_rng(4)
    prior, reference = rng.random((2_000, 300)) < 0.45, rng.random((2_000, 300)) < 0.7
    from infimed.evaluation.bounds import paired_clusters

    drawn = is_above(paired_clusters(prior, reference, np.arange(300)), 0.0, ALPHA_PASS_COMPETENCE).mean()
    assert competence_power(sizes, Lead(0.7, 0.25), 0.0) == pytest.approx(float(drawn), abs=0.03)


def test_no_number_of_questions_certifies_a_loss_at_the_margin() -> None:
    assert clusters_needed(np.ones(9, int), Flips.of(0.1, -0.05), 0.05, SURE) is None


def test_cells_that_share_patients_pass_together_more_often_than_their_powers_multiply() -> None:
    patients, flips = np.repeat(np.arange(250), 2), Flips.of(0.02, 0.0, 0.8)
    cells = np.tile([0, 1], 250)
    every, whole, each = joint_power(patients, cells, flips, [0.03, 0.03, 0.03], SURE, 2_000)
    alone = margin_power(np.ones(250, int), flips, 0.03)
    assert each.tolist() == pytest.approx([alone, alone], abs=0.03)
    assert each.prod() + 0.03 < every <= min(each) and whole <= every
    apart = joint_power(np.arange(500), cells, flips, [0.03, 0.03, 0.03], SURE, 2_000)
    assert apart[0] == pytest.approx(apart[2].prod(), abs=0.03)
