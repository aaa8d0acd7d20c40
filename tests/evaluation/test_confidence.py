"""Calibration figures against scikit-learn and against definitions written out, on fixed tables and drawn ones."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.confidence import Ranked, brier, calibration, change
from infimed.evaluation.drift_figures import Change

from .planted import answered, items, pattern

SURE = np.array([0.9, 0.8, 0.6, 0.7, 0.5])
RIGHT = np.array([True, True, False, False, True])


def by_hand(sure, right):  # type: ignore[no-untyped-def]
    """(AURC, risk at four fifths) by counting, the most confident first; no two equally confident."""
    wrong = 1 - right[np.argsort(-sure)].astype(float)
    risks = [wrong[:kept].mean() for kept in range(1, len(wrong) + 1)]
    return float(np.mean(risks)), risks[round(0.8 * len(wrong)) - 1]


def test_five_answers_by_hand() -> None:
    ranked = Ranked(SURE, RIGHT)
    # falling confidence: right, right, wrong, wrong, right: risks 0, 0, 1/3, 1/2, 2/5
    assert float(ranked.aurc()[0]) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2 + 2 / 5) / 5)
    assert float(ranked.risk_at()[0]) == pytest.approx(0.5)
    # five bins of one: the distances of confidence from 1 or 0
    assert float(ranked.ece(5)[0]) == pytest.approx((0.1 + 0.2 + 0.6 + 0.7 + 0.5) / 5)
    # one bin: 3 of 5 are right, mean confidence 0.7
    assert float(ranked.ece(1)[0]) == pytest.approx(0.1)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_ece_is_that_of_the_quantile_bins_of_scikit_learn(seed: int) -> None:
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    rng = np.random.default_rng(seed)
    sure = rng.random(600)
    right = rng.random(600) < sure**1.5
    true, said = curve(right, sure, n_bins=15, strategy="quantile")
    assert len(true) == 15
    assert float(Ranked(sure, right).ece()[0]) == pytest.approx(float(np.abs(true - said).mean()), abs=1e-12)


@pytest.mark.parametrize("seed", [1, 2])
def test_aurc_and_risk_are_those_of_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sure, right = rng.random(250), rng.random(250) < 0.7
    ranked = Ranked(sure, right)
    assert (float(ranked.aurc()[0]), float(ranked.risk_at()[0])) == pytest.approx(by_hand(sure, right), abs=1e-12)


def test_the_brier_score_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.ones(4), 200)
    keys = rng.integers(0, 4, 200)
    expected = metrics.brier_score_loss(keys, shares, labels=[0, 1, 2, 3], scale_by_half=False)
    assert brier(shares.tolist(), keys.tolist()).mean() == pytest.approx(expected, abs=1e-12)
    assert brier([(0.7, 0.3), (0.2, 0.8)], [0, 0]).tolist() == pytest.approx([0.18, 1.28])


def test_answers_of_equal_confidence_have_no_order_among_them() -> None:
    sure = np.repeat([0.5, 0.9], 30)
    right = pattern(0.6, 60, 4)
    one = Ranked(sure, right)
    shuffled = np.random.default_rng(5).permutation(60)
    other = Ranked(sure[shuffled], right[shuffled])
    for figure in ("ece", "aurc", "risk_at"):
        assert float(getattr(one, figure)()[0]) == pytest.approx(float(getattr(other, figure)()[0]), abs=1e-12)
    # all alike: whatever the coverage, the risk is the share of errors
    flat = Ranked(np.full(60, 0.7), right)
    assert float(flat.aurc()[0]) == pytest.approx(1 - right.mean())
    assert float(flat.risk_at(0.3)[0]) == pytest.approx(1 - right.mean())
    assert float(flat.ece()[0]) == pytest.approx(abs(0.7 - right.mean()))


def test_an_item_that_counts_twice_is_two_items() -> None:
    rng = np.random.default_rng(6)
    sure, right = rng.random(90), rng.random(90) < 0.6
    times = rng.integers(0, 4, (3, 90)).astype(float)
    weighed = Ranked(sure, right, times)
    for row in range(3):
        index = np.repeat(np.arange(90), times[row].astype(int))
        copied = Ranked(sure[index], right[index])
        assert float(weighed.ece()[row]) == pytest.approx(float(copied.ece()[0]), abs=1e-12)
        assert float(weighed.risk_at()[row]) == pytest.approx(float(copied.risk_at()[0]), abs=1e-12)


def runs(items_of, sure_before, sure_after, right_before, right_after):  # type: ignore[no-untyped-def]
    before = [
        answered(row, *pair) for row, pair in zip(items_of, zip(right_before, sure_before, strict=True), strict=True)
    ]
    after = [
        answered(row, *pair) for row, pair in zip(items_of, zip(right_after, sure_after, strict=True), strict=True)
    ]
    return before, after, np.array([row.group for row in items_of])


def test_an_overconfident_level_is_told_by_its_ece() -> None:
    rows = items({("ct", "finding"): 300}, per_group=3)
    right = pattern(0.7, 300, 1)
    found = calibration(*runs(rows, np.full(300, 0.7), np.full(300, 0.95), right, right))
    assert found is not None and (found.items, found.clusters) == (300, 100)
    assert found.ece.reference == pytest.approx(0, abs=1e-9) and found.ece.level == pytest.approx(0.25)
    assert 0.15 < found.ece.lower < found.ece.change < found.ece.upper < 0.35
    assert found.aurc.change == pytest.approx(0, abs=1e-12) and found.brier.change > 0


def test_items_without_options_have_no_confidence() -> None:
    import dataclasses

    rows = items({("ct", "open"): 30})
    opened = [dataclasses.replace(row, options=(), option_tokens=(), answer_type="open") for row in rows]
    assert calibration(opened, opened, np.array([row.group for row in opened])) is None


def test_of_one_cluster_nothing_is_known() -> None:
    assert change(0.1, 0.3, 0.05, 1) == Change(0.1, 0.3, pytest.approx(0.2), -2.0, 2.0)


def test_intervals_of_the_brier_change_hold_the_truth_as_often_as_they_say_where_patients_share_luck() -> None:
    """40 patients of 5 questions: whether the level is sure of itself hangs on the patient."""
    rng, held, width = np.random.default_rng(8), 0, []
    rows = items({("ct", "finding"): 200}, per_group=5)
    groups = np.array([row.group for row in rows])
    for _ in range(100):
        right = rng.random(200) < 0.7
        sure = np.where(np.repeat(rng.random(40) < 0.5, 5), 0.7, 0.95)
        found = calibration(*runs(rows, np.full(200, 0.7), sure, right, right)[:2], groups)
        assert found is not None
        # right 0.7 of the time; other options share the rest: the difference of the expected scores
        squares = {p: 0.7 * ((1 - p) ** 2 + 3 * ((1 - p) / 3) ** 2) + 0.3 * _wrong(p) for p in (0.7, 0.95)}
        true = 0.5 * (squares[0.95] - squares[0.7])
        held += found.brier.lower <= true <= found.brier.upper
        width.append(found.brier.upper - found.brier.lower)
    assert 0.89 <= held / 100 <= 0.99 and float(np.mean(width)) < 0.2


def _wrong(p: float) -> float:
    """The Brier score where another option has p and the key a third of the rest."""
    rest = (1 - p) / 3
    return p**2 + (1 - rest) ** 2 + 2 * rest**2
