"""The figures of robustness on fixed tables, beside SciPy and statsmodels, and simulated at the margin."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.bounds import hidden_loss, lower_bound, paired_clusters, upper_bound
from infimed.evaluation.robustness_figures import excess, position_bias, relative


def groups(count: int, each: int = 1) -> np.ndarray:
    return np.array([f"g{index // each:04d}" for index in range(count)])


def test_total_variation_is_half_the_city_block_distance_of_the_two_distributions() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(1)
    for places in (2, 4, 5):
        given, keys = rng.integers(0, places, 300) // (1 + rng.integers(0, 2, 300)), rng.integers(0, places, 300)
        shares = [np.bincount(one, minlength=places) / 300 for one in (given, keys)]
        found = position_bias(given, keys, groups(300, 3))
        assert found.value == pytest.approx(distance.cityblock(*shares) / 2, abs=1e-12)
        assert 0 <= found.interval.lower <= found.value <= found.interval.upper <= 1


def test_by_hand_always_the_first_place_of_four_is_three_quarters_of_bias() -> None:
    keys = np.tile(np.arange(4), 50)
    found = position_bias(np.zeros(200, int), keys, groups(200, 4))
    assert found.value == 0.75
    assert found.interval.lower > 0.6 and found.interval.upper >= 0.75


def test_who_answers_by_content_in_every_order_of_a_circle_has_no_bias_whatever_he_says() -> None:
    keys = np.tile(np.arange(4), 60)
    content = np.repeat(np.random.default_rng(2).integers(0, 4, 60), 4)
    found = position_bias((keys + content) % 4, keys, groups(240, 4))
    assert found.value == 0 and found.interval.lower == 0 and 0 < found.interval.upper < 0.1


def test_one_cluster_says_nothing_of_bias() -> None:
    found = position_bias([0, 0, 1], [0, 1, 2], ["a", "a", "a"])
    assert (found.interval.lower, found.interval.upper) == (0, 1)


def test_answers_at_random_show_no_bias_in_nineteen_of_twenty_sets() -> None:
    rng = np.random.default_rng(5)
    shown = 0
    for _ in range(40):
        keys = np.tile(np.arange(4), 80)
        shown += position_bias(rng.integers(0, 4, 320), keys, groups(320, 8)).interval.lower > 0
    assert shown <= 4  # 2.5 % are expected; more than 4 of 40 fall in one set in 500


def test_relative_robustness_by_hand() -> None:
    clean = np.array([1] * 8 + [0] * 2)
    kept = np.array([1] * 5 + [0.5] * 2 + [0] + [0, 0])
    assert relative(kept, clean, groups(10)).value == 6 / 8
    assert relative(clean, clean, groups(10)).value == 1
    assert relative(np.zeros(10), np.zeros(10), groups(10)).value == 0


def test_the_interval_of_relative_robustness_is_the_sandwich_of_statsmodels_with_fewer_degrees_of_freedom() -> None:
    api = pytest.importorskip("statsmodels.api")
    special = pytest.importorskip("scipy.special")
    rng = np.random.default_rng(3)
    clean = (rng.random(900) < 0.8).astype(float)
    kept = clean * (rng.random(900) < 0.7)
    labels = groups(900, 3)
    found = relative(kept, clean, labels)
    residual = kept - found.value * clean
    codes = np.unique(labels, return_inverse=True)[1]
    fitted = api.OLS(residual, np.ones(900)).fit(cov_type="cluster", cov_kwds={"groups": codes})
    error = float(fitted.bse[0]) / clean.mean()
    moves = np.bincount(codes, residual)
    effective = np.abs(moves).sum() ** 2 / (moves**2).sum()
    reach = special.stdtrit(effective - 1, 0.975) * error
    assert found.interval.upper - found.value == pytest.approx(reach, rel=1e-9)
    assert found.value - found.interval.lower == pytest.approx(reach, rel=1e-9)


def test_a_corruption_that_moves_nothing_could_still_hide_a_loss() -> None:
    clean = np.array([1.0] * 90 + [0.0] * 10)
    found = relative(clean, clean, groups(100))
    hidden = float(hidden_loss(np.arange(1, 101) / 100, 0.025))
    assert found.value == 1 and found.interval.lower == pytest.approx(1 - hidden / 0.9)


def outcomes(seed: int, items: int, rates: tuple[float, float, float, float]) -> list[np.ndarray]:
    """Return right or wrong of reference and level, clean and probed."""
    rng = np.random.default_rng(seed)
    return [(rng.random(items) < rate).astype(float) for rate in rates]


def test_the_excess_is_the_interaction_of_a_linear_model_over_all_four_runs() -> None:
    api = pytest.importorskip("statsmodels.api")
    r_clean, r_probed, q_clean, q_probed = outcomes(7, 400, (0.9, 0.8, 0.88, 0.7))
    found = excess((q_probed - r_probed) - (q_clean - r_clean), groups(400, 2))
    level = np.repeat([0, 0, 1, 1], 400)
    probed = np.repeat([0, 1, 0, 1], 400)
    design = np.column_stack([np.ones(1600), level, probed, level * probed])
    fitted = api.OLS(np.concatenate([r_clean, r_probed, q_clean, q_probed]), design).fit()
    assert float(found.value) == pytest.approx(fitted.params[3], abs=1e-12)


def test_by_hand_ten_losses_and_two_gains_of_a_hundred_are_an_excess_of_minus_eight_points() -> None:
    d = np.array([-1] * 8 + [-2] + [1] * 2 + [0] * 89)
    found = excess(d, groups(100))
    assert float(found.value) == pytest.approx(-0.08)
    assert float(found.whole.harmful) == 10 and float(found.whole.healing) == 2
    assert float(found.lower(0.05)) < -0.08 < float(found.upper(0.05))


def test_with_one_clean_outcome_for_both_it_is_the_bound_of_a_plain_comparison_less_what_hides() -> None:
    rng = np.random.default_rng(11)
    before = rng.random(2000) < 0.9
    after = np.where(rng.random(2000) < 0.05, ~before, before)
    labels = groups(2000, 2)
    plain = paired_clusters(before, after, labels)
    found = excess(after.astype(float) - before.astype(float), labels)
    hides = 2 * float(hidden_loss(plain.held, 0.05))
    assert float(found.lower(0.05)) == pytest.approx(min(float(lower_bound(plain, 0.05)), float(plain.delta) - hides))
    assert float(found.upper(0.05)) == pytest.approx(max(float(upper_bound(plain, 0.05)), float(plain.delta) + hides))


def test_few_moving_clusters_can_hide_twice_the_loss_of_a_plain_comparison_and_show_none() -> None:
    d = np.zeros(300)
    assert float(excess(d, groups(300)).lower(0.05)) == pytest.approx(-2 * (1 - 0.05 ** (1 / 300)))
    d[:4] = -2
    found = excess(d, groups(300))
    assert float(found.upper(0.05)) > 0 and float(found.lower(0.05)) < -0.04
    assert float(found.p_more(0.0)) == 1.0


def test_the_bounds_mirror_each_other_and_never_exclude_the_mean() -> None:
    rng = np.random.default_rng(13)
    for moved in (0.02, 0.2, 0.9):
        d = rng.integers(-2, 3, (50, 240)) * (rng.random((50, 240)) < moved) / rng.integers(1, 4)
        found, turned = excess(d, groups(240, 4)), excess(-d, groups(240, 4))
        lower, upper = found.lower(0.05), found.upper(0.05)
        assert (lower <= found.value + 1e-12).all() and (found.value <= upper + 1e-12).all()
        assert upper == pytest.approx(-turned.lower(0.05))


def test_extremes_stay_within_what_is_possible() -> None:
    for value in (-2.0, 2.0):
        found = excess(np.full(200, value), groups(200))
        assert float(found.value) == value
        assert float(found.lower(0.05)) <= value <= float(found.upper(0.05))
        assert float(found.lower(0.05)) >= -2 and float(found.upper(0.05)) <= 2


@pytest.mark.parametrize(
    ("clusters", "each", "moved", "sizes", "margin"),
    [(400, 1, 0.1, (1.0, 2.0), 0.05), (200, 3, 0.15, (1.0, 1.0), 0.05), (300, 2, 0.3, (1 / 3, 2 / 3), 0.05)],
)
def test_at_exactly_the_margin_pass_and_fail_err_in_about_one_of_twenty_draws(
    clusters: int, each: int, moved: float, sizes: tuple[float, float], margin: float
) -> None:
    rng = np.random.default_rng(clusters + each)
    draws, items = 800, clusters * each
    typical = sum(sizes) / 2
    down = (moved + margin / typical) / 2
    shared = np.repeat(rng.random((draws, clusters)), each, axis=1)
    u = np.where(rng.random((draws, items)) < 0.5, shared, rng.random((draws, items)))
    size = np.where(rng.random((draws, items)) < 0.5, *sizes)
    d = np.where(u < down, -size, np.where(u < moved, size, 0.0))
    found = excess(d, groups(items, each))
    assert d.mean() == pytest.approx(-margin, abs=0.003)
    # 5 % and three standard errors of 800 draws
    assert (found.lower(0.05) > -margin).mean() <= 0.073
    assert (found.upper(0.05) < -margin).mean() <= 0.073
    assert (found.lower(0.05) > -3 * margin).mean() > 0.5  # and it can decide
