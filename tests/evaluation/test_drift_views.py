"""What a report shows beside its verdicts: the flips that are chosen, and reliability by confidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.comparison import share
from infimed.evaluation.flips import HARMFUL_PER_LEVEL, HEALING_PER_LEVEL, choose_flips
from infimed.evaluation.prediction import Prediction
from infimed.evaluation.reliability import reliability

from .planted import answered, items, pattern

ROWS = items({("ct", "finding"): 150, ("mri", "count"): 150}, per_group=2)


def said(right: np.ndarray, confidence: np.ndarray | float = 0.7) -> list[Prediction]:
    sure = np.broadcast_to(confidence, len(ROWS))
    return [answered(row, bool(flag), float(value)) for row, flag, value in zip(ROWS, right, sure, strict=True)]


def test_the_surest_new_errors_are_chosen_one_of_a_patient_and_told_for_every_level() -> None:
    before = np.ones(300, bool)
    before[200:220] = False
    after, sure = before.copy(), np.linspace(0.3, 0.9, 300)
    after[100:140] = False
    after[200:220] = True
    flips = choose_flips(said(before), {"a": said(after, sure), "b": said(before)}, "base")
    harmful = [flip for flip in flips if flip.harmed]
    assert [flip.example_id for flip in harmful] == [ROWS[at].example_id for at in (139, 137, 135, 133, 131, 129)]
    assert len(harmful) == HARMFUL_PER_LEVEL and len(flips) - len(harmful) == HEALING_PER_LEVEL
    one = harmful[0]
    assert (one.reference.answer, one.reference.confidence, one.reference.correct) == ("left", 0.7, True)
    assert [(s.run, s.answer, s.correct) for s in one.levels] == [("a", "right", False), ("b", "left", True)]
    assert one.harmed == ("a",) and flips[-1].healed == ("a",) and one.key == "left"


def test_what_harms_more_levels_comes_first_and_no_flip_gives_no_flips() -> None:
    before = np.ones(300, bool)
    both, one = before.copy(), before.copy()
    both[7], one[7], one[80] = False, False, False
    flips = choose_flips(said(before), {"a": said(both), "b": said(one, 0.9)}, "base")
    assert [(flip.example_id, flip.harmed) for flip in flips] == [
        (ROWS[7].example_id, ("a", "b")), (ROWS[80].example_id, ("b",)),
    ]  # fmt: skip
    assert choose_flips(said(before), {"a": said(before)}, "base") == ()


def test_an_open_reply_without_an_answer_is_told_as_none_and_has_no_confidence() -> None:
    row = replace(
        ROWS[0], options=(), option_tokens=(), answer_type="open", generated="well", extracted="left", correct=True
    )
    flips = choose_flips([row], {"a": [replace(row, extracted=None, correct=False)]}, "base")
    assert [(s.answer, s.confidence) for s in (flips[0].reference, *flips[0].levels)] == [("left", None), (None, None)]


def test_the_bins_are_those_of_the_calibration_error_and_scikit_learn_has_the_same() -> None:
    sure = np.random.default_rng(3).permutation(np.linspace(0.26, 0.99, 300))
    right = np.random.default_rng(4).random(300) < sure
    rows = said(right, sure)
    found = reliability("run", rows)
    assert found is not None and found.items == 300 and [one.items for one in found.bins] == pytest.approx([20.0] * 15)
    gap = sum(one.items * abs(one.accuracy - one.confidence) for one in found.bins) / 300
    assert found.ece == pytest.approx(gap, abs=1e-12)
    calibration = pytest.importorskip("sklearn.calibration")
    confidence = [max(row.probabilities) for row in rows]
    accuracy, mean = calibration.calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    assert [one.accuracy for one in found.bins] == pytest.approx(accuracy.tolist(), abs=1e-9)
    assert [one.confidence for one in found.bins] == pytest.approx(mean.tolist(), abs=1e-9)


def test_a_bins_interval_is_wilsons_on_its_items_over_the_design_effect() -> None:
    right = pattern(0.8, 150, 1).repeat(2)  # both questions of a patient alike: the design effect is 2
    found = reliability("run", said(right, np.linspace(0.3, 0.9, 300)))
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    assert found is not None
    whole = share(right, np.array([row.group for row in ROWS]))
    for one in found.bins:
        spread = [proportion.proportion_confint(one.accuracy * n, n, method="wilson") for n in (20 / 2.2, 20.0)]
        assert spread[0][0] - 1e-9 <= one.lower <= spread[1][0] + 1e-9
    lower, upper = proportion.proportion_confint(240, 300, method="wilson")
    assert whole.upper - whole.lower > 1.3 * (upper - lower)


def test_runs_without_options_have_no_reliability() -> None:
    assert reliability("run", [replace(ROWS[0], options=(), option_tokens=(), answer_type="open")]) is None
