"""The intervals of independent items equal SciPy's, statsmodels' and published ones."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.intervals import (
    Interval,
    clopper_pearson_upper,
    mcnemar_exact,
    tango_bound,
    tango_score,
    wilson,
)  # fmt: skip

TABLES = [(0, 0, 12), (1, 0, 20), (7, 1, 21), (3, 9, 200), (30, 11, 451), (5, 5, 60), (0, 8, 40), (12, 40, 60)]


def clopper_pearson(successes: int, items: int, confidence: float) -> Interval:
    """The two-sided interval that two one-sided limits make."""
    upper, lower = (
        float(clopper_pearson_upper(k, items, (1 - confidence) / 2)) for k in (successes, items - successes)
    )
    return Interval(1 - lower, upper, confidence)


def tango(harmful: float, healing: float, items: float) -> Interval:
    z = 1.959963984540054
    return Interval(*(float(tango_bound(harmful, healing, items, side)) for side in (z, -z)), 0.95)


@pytest.mark.parametrize(("successes", "items"), [(0, 7), (7, 7), (1, 20), (13, 200), (190, 200), (2500, 5000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_shares_have_the_intervals_of_scipy_and_statsmodels(successes: int, items: int, confidence: float) -> None:
    from scipy.stats import binomtest

    test = binomtest(successes, items)
    for mine, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = test.proportion_ci(confidence, method=method)
        found = mine(successes, items, confidence)
        assert found.lower == pytest.approx(theirs.low, abs=1e-9)
        assert found.upper == pytest.approx(theirs.high, abs=1e-9)
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for mine, method in ((wilson, "wilson"), (clopper_pearson, "beta")):
        low, high = proportion.proportion_confint(successes, items, 1 - confidence, method=method)
        found = mine(successes, items, confidence)
        assert (found.lower, found.upper) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(("harmful", "healing", "items"), TABLES)
def test_mcnemar_equals_scipy_and_statsmodels(harmful: int, healing: int, items: int) -> None:
    from scipy.stats import binomtest

    p = mcnemar_exact(harmful, healing)
    if harmful + healing:
        assert p == pytest.approx(binomtest(harmful, harmful + healing, 0.5).pvalue, abs=1e-9)
    else:
        assert p == 1.0
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    same = (items - harmful - healing) // 2
    table = [[same, harmful], [healing, items - harmful - healing - same]]
    if harmful + healing:
        assert p == pytest.approx(tables.mcnemar(table, exact=True).pvalue, abs=1e-9)


def test_tango_gives_the_published_interval() -> None:
    # airway hyper-responsiveness before and after transplantation, 21 children: (-0.517, -0.026) in Fagerland,
    # Lydersen and Laake, Statistics in Medicine 33:2850 (2014), table VI
    found = tango(7, 1, 21)
    assert (round(found.lower, 3), round(found.upper, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("harmful", "healing", "items"), [*TABLES, (2.5, 1.25, 73.3)])
def test_tango_equals_a_root_found_on_the_likelihood_itself(harmful: float, healing: float, items: float) -> None:
    from scipy.optimize import brentq

    def score(delta: float) -> float:
        """The score statistic with the restricted maximum found as the root of the likelihood's derivative."""

        def slope(q: float) -> float:
            rest = items - harmful - healing
            return healing / (q + delta) + harmful / q - 2 * rest / (1 - 2 * q - delta)

        low, high = max(0.0, -delta) + 1e-13, (1 - delta) / 2 - 1e-13
        if slope(low) <= 0:
            q = low
        elif slope(high) >= 0:
            q = high
        else:
            q = brentq(slope, low, high, xtol=1e-16)
        return (healing - harmful - items * delta) / np.sqrt(items * (2 * q + delta * (1 - delta)))

    z = 1.959963984540054
    found = tango(harmful, healing, items)
    for bound, target in ((found.lower, z), (found.upper, -z)):
        assert bound == pytest.approx(brentq(lambda d, t=target: score(d) - t, -0.9999, 0.9999, xtol=1e-14), abs=1e-9)


def test_tango_mirrors_when_the_flips_are_exchanged_and_narrows_with_items() -> None:
    one, other = tango(30, 11, 451), tango(11, 30, 451)
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower), abs=1e-12)
    assert tango(300, 110, 4510).lower > one.lower


def test_the_score_is_zero_at_the_estimate_and_falls_with_the_difference() -> None:
    assert float(tango_score(7, 1, 21, -6 / 21)) == pytest.approx(0.0, abs=1e-9)
    grid = tango_score(7, 1, 21, np.linspace(-0.99, 0.99, 401))
    assert (np.diff(grid) < 0).all()


def test_bounds_of_many_tables_at_once_are_those_of_each_alone() -> None:
    b, c, n = np.array(TABLES).T
    together = tango_bound(b, c, n, 1.645)
    assert together.tolist() == [float(tango_bound(*row, 1.645)) for row in TABLES]
    limits = clopper_pearson_upper(b, n, 0.05)
    assert limits.tolist() == [float(clopper_pearson_upper(row[0], row[2], 0.05)) for row in TABLES]


def test_no_items_say_nothing() -> None:
    assert (wilson(0, 0).lower, wilson(0, 0).upper) == (0.0, 1.0)
    assert float(clopper_pearson_upper(3.0, 2.5, 0.05)) == 1.0
