"""Figures of open answers: their means and intervals against statsmodels and SciPy, and what stands in the report."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("scipy")

from infimed.evaluation.answer_drift import answer_drift
from infimed.evaluation.intervals import wilson
from infimed.evaluation.open_figures import clustered_mean, text_drift, text_figures
from infimed.evaluation.prediction import Prediction
from infimed.evaluation.scoring import score_reply
from infimed.evaluation.text_metrics import bleu1, rouge_l

REPLIES = ("large left effusion", "left effusion", "no effusion", "", "mass in the left lung", "left lung mass")


def row(index: int, reply: str, answer: str = "left effusion", aliases: tuple[str, ...] = ()) -> Prediction:
    score = score_reply(reply, answer, answer_type="open", aliases=aliases, question="What is seen?")
    return Prediction(
        f"e{index:03}", f"p{index // 3}", "ct", "open", "open", 1, "What is seen?", answer, (), (), (), None, (), reply,
        score.extraction.answer, score.correct, score.value, aliases=aliases,
    )  # fmt: skip


def rows(seed: int, count: int = 60) -> list[Prediction]:
    draw = np.random.default_rng(seed)
    return [row(index, REPLIES[draw.integers(len(REPLIES))]) for index in range(count)]


def test_the_mean_of_clusters_has_the_sandwich_error_of_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    draw = np.random.default_rng(3)
    clusters = np.sort(draw.integers(0, 17, 100)).astype(str)
    values = draw.random(100) + 0.3 * draw.standard_normal(17)[np.unique(clusters, return_inverse=True)[1]]
    fitted = api.OLS(values, np.ones(100)).fit(
        cov_type="cluster", cov_kwds={"groups": np.unique(clusters, return_inverse=True)[1]}, use_t=True
    )
    mean, error, many = clustered_mean(values, clusters)
    assert many == len(set(clusters.tolist()))
    assert mean == pytest.approx(float(fitted.params[0]), abs=1e-9)
    assert error == pytest.approx(float(fitted.bse[0]), abs=1e-9)


def test_the_figures_of_a_run_and_their_intervals_equal_the_references() -> None:
    api = pytest.importorskip("statsmodels.api")
    run = rows(1)
    found = text_figures(run)
    assert found is not None and (found.items, found.clusters) == (60, 20)
    groups = np.array([int(one.group[1:]) for one in run])
    said = [one.extracted or "" for one in run]
    for figure, values in (
        (found.f1, [one.score for one in run]),
        (found.bleu1, [bleu1(text, "left effusion") for text in said]),
        (found.rouge_l, [rouge_l(text, "left effusion") for text in said]),
    ):
        fitted = api.OLS(np.array(values), np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        low, high = fitted.conf_int(0.05)[0]
        assert figure.value == pytest.approx(np.mean(values), abs=1e-9)
        assert (figure.lower, figure.upper) == pytest.approx((low, high), abs=1e-9)
    assert found.exact.correct == sum(text == "left effusion" for text in said)


def test_a_change_is_the_mean_of_the_paired_differences() -> None:
    api = pytest.importorskip("statsmodels.api")
    before, after = rows(1), rows(2)
    clusters = np.array([one.group for one in before])
    found = text_drift(before, after, clusters)
    assert found is not None
    differences = np.array([two.score - one.score for one, two in zip(before, after, strict=True)])
    groups = np.array([int(one.group[1:]) for one in before])
    fitted = api.OLS(differences, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    assert found.f1.change == pytest.approx(found.f1.level - found.f1.reference, abs=1e-12)
    assert (found.f1.lower, found.f1.upper) == pytest.approx(tuple(fitted.conf_int(0.05)[0]), abs=1e-9)


def test_answers_that_are_all_alike_have_no_interval_of_width_0() -> None:
    run = [row(index, "left effusion") for index in range(30)]
    found = text_figures(run)
    assert found is not None and found.f1.value == 1.0
    assert found.f1.lower == pytest.approx(wilson(10, 10).lower)
    drift = text_drift(run, run, np.array([one.group for one in run]))
    assert drift is not None and drift.f1.change == 0 and drift.f1.upper == -drift.f1.lower == wilson(0, 10).upper


def test_one_cluster_says_nothing_of_the_next() -> None:
    run = [dataclasses.replace(one, group="p0") for one in rows(1)]
    found, drift = text_figures(run), text_drift(run, run, np.array(["p0"] * 60))
    assert found is not None and (found.f1.lower, found.f1.upper) == (0.0, 1.0)
    assert drift is not None and (drift.f1.lower, drift.f1.upper) == (-1.0, 1.0)


def test_the_best_alias_counts_and_stands_in_the_row() -> None:
    run = [row(index, "heart attack", "myocardial infarction", ("heart attack",)) for index in range(6)]
    found = text_figures(run)
    assert found is not None and found.bleu1.value == found.rouge_l.value == found.f1.value == 1.0
    assert json.loads(run[0].to_line())["aliases"] == ["heart attack"]
    assert "aliases" not in json.loads(row(0, "lung").to_line())


def test_an_invalid_reply_is_worth_nothing_and_closed_rows_do_not_count() -> None:
    silent = row(0, "")
    assert silent.extracted is None
    found = text_figures([silent, row(3, "left effusion")])
    assert found is not None and found.bleu1.value == found.rouge_l.value == found.f1.value == 0.5
    closed = dataclasses.replace(row(0, "yes"), answer_type="yesno")
    assert text_figures([closed]) is None
    assert answer_drift([closed], [closed], np.array(["p0"])).text is None
