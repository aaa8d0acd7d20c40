"""The number of items that settles a verdict has the power it claims, by drawing outcomes anew."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.bounds import from_counts, lower_bound, upper_bound
from infimed.evaluation.settle import items_needed, items_to_settle, power

# (margin, share of flips, items) simulated elsewhere for power 0.8 at a true difference of 0
SIMULATED = [(0.02, 0.002, 151), (0.02, 0.005, 237), (0.02, 0.01, 390), (0.02, 0.02, 480), (0.02, 0.05, 870),
             (0.02, 0.1, 1610), (0.05, 0.02, 124), (0.05, 0.05, 190), (0.05, 0.1, 275), (0.05, 0.3, 760)]  # fmt: skip


@pytest.mark.parametrize(("margin", "flips", "items"), SIMULATED)
def test_the_items_needed_at_no_true_loss_are_those_simulated_elsewhere(
    margin: float, flips: float, items: int
) -> None:
    found = items_needed(flips / 2, flips / 2, margin)
    assert found is not None and 0.93 * items <= found <= 1.10 * items


@pytest.mark.parametrize(
    ("harmful", "healing", "margin", "side"),
    [(0.05, 0.05, 0.05, "above"), (0.01, 0.01, 0.02, "above"), (0.17, 0.02, 0.05, "below"), (0.10, 0.0, 0.05, "below")],
)
def test_the_power_is_what_drawing_the_outcomes_shows(harmful: float, healing: float, margin: float, side: str) -> None:
    items = items_needed(harmful, healing, margin)
    assert items is not None
    rng = np.random.default_rng(7)
    fate = rng.random((4_000, items))
    pairs = from_counts(fate < harmful, (fate >= harmful) & (fate < harmful + healing), np.ones(items))
    settled = lower_bound(pairs, 0.05) > -margin if side == "above" else upper_bound(pairs, 0.05) < -margin
    assert settled.mean() == pytest.approx(power(items, harmful, healing, margin, side), abs=0.025)  # type: ignore[arg-type]
    assert settled.mean() >= 0.775


def test_a_difference_at_the_margin_is_never_settled_by_items() -> None:
    assert items_needed(0.06, 0.01, 0.05) is None
    assert items_needed(0.06, 0.0100001, 0.05) is None


def test_clusters_multiply_the_items_and_an_open_verdict_needs_more_than_there_are() -> None:
    harmful, healing = np.zeros(60), np.zeros(60)
    harmful[:6], healing[6:12] = 1, 1
    alone = items_to_settle(from_counts(harmful, healing, np.ones(60)), 0.02)
    together = items_to_settle(from_counts(4 * harmful, 4 * healing, np.full(60, 4)), 0.02)
    assert alone is not None and together is not None
    assert alone > 60 and together > 3.5 * alone


def test_large_clusters_need_so_many_items_that_a_loss_in_them_alone_would_be_seen() -> None:
    sizes = np.array([30] * 4 + [1] * 1500)
    for noise in (0, 40):
        harmful, healing = np.zeros(len(sizes)), np.zeros(len(sizes))
        harmful[4 : 4 + noise], healing[100 : 100 + noise] = 1, 1
        needed = items_to_settle(from_counts(harmful, healing, sizes), 0.02)
        assert needed is not None and needed > 2 * sizes.sum()
        copies = -(-needed // sizes.sum())
        grown = from_counts(np.tile(harmful, copies), np.tile(healing, copies), np.tile(sizes, copies))
        assert float(lower_bound(grown, 0.05)) > -0.02
        fewer = from_counts(np.tile(harmful, copies - 1), np.tile(healing, copies - 1), np.tile(sizes, copies - 1))
        assert noise or float(lower_bound(fewer, 0.05)) < -0.02


def test_no_flips_at_all_need_the_items_that_rule_out_the_margin_by_themselves() -> None:
    # (1 - 0.02)^149 < 0.05 <= (1 - 0.02)^148
    assert items_to_settle(from_counts(np.zeros(50), np.zeros(50), np.ones(50)), 0.02) == 149


def test_few_flips_in_uneven_clusters_need_a_number_that_is_enough_and_no_fantasy() -> None:
    sizes = np.array([10, 8, 6, 5, 4, 3, 3, 2, 1, 1] * 9)
    for flips in (0, 1, 2, 3):
        harmful = np.zeros(len(sizes))
        harmful[9 : 9 + 10 * flips : 10] = 1  # each in a cluster of one
        found = items_to_settle(from_counts(harmful, np.zeros(len(sizes)), sizes), 0.02)
        assert found is not None and found < 4_000
        copies = -(-found // sizes.sum())
        grown = from_counts(np.tile(harmful, copies), np.zeros(len(sizes) * copies), np.tile(sizes, copies))
        assert float(lower_bound(grown, 0.05)) > -0.02
