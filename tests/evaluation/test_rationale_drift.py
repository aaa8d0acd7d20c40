"""Planted reasoning: what breaks in a level's reasoning is told with its size and interval, in every form of report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infimed.evaluation.drift import drift
from infimed.evaluation.drift_figures import RationaleDrift
from infimed.evaluation.drift_report import DriftReport
from infimed.evaluation.prediction import Prediction
from infimed.evaluation.rationale_drift import rationale_drift
from infimed.evaluation.report import JSON_NAME, MARKDOWN_NAME, write_report

from .planted import answered, items
from .planted_probes import identity, write_rows

OPTIONS = ("left", "right", "both", "none")
ROWS = items({("ct", "laterality"): 200}, per_group=2)
RECORD = {"modality": "ct", "organ": "liver", "side": "left"}


def run(reply: Callable[[int], str]) -> list[Prediction]:
    return [
        replace(answered(row, True), generated=reply(number), extracted="left", record=RECORD)
        for number, row in enumerate(ROWS)
    ]


def sound(number: int) -> str:
    return "<think>A CT of the liver. The mass lies on the left side.</think>left"


def broken(number: int) -> str:
    if number < 20:  # ten groups: another modality and side, the same answer
        return "<think>An MRI of the liver. The mass lies on the right side.</think>left"
    return "left" if number < 40 else sound(number)


def found_in(level: Callable[[int], str]) -> RationaleDrift:
    clusters = np.array([row.group for row in ROWS])
    told = rationale_drift(run(sound), run(level), clusters)
    assert told is not None
    return told


def test_reasoning_that_breaks_before_the_answers_do_is_told() -> None:
    told = found_in(broken)
    assert (told.items, told.with_reasoning) == (200, 200)
    assert (told.carried.reference, told.carried.level) == (1.0, 0.9)
    assert told.carried.lower < -0.1 < told.carried.upper < 0
    parts = {part.name: {one.outcome: one.change for one in part.shares} for part in told.parts}
    assert parts["modality"]["wrong"].change == pytest.approx(0.1) == parts["side"]["wrong"].change
    assert parts["modality"]["not named"].change == pytest.approx(0.1)
    assert parts["organ"]["wrong"].change == 0 and parts["organ"]["not named"].change == pytest.approx(0.1)
    assert parts["follows"]["contradicts"].level == pytest.approx(0.1)
    for part in told.parts:
        assert sum(one.change.level for one in part.shares) == pytest.approx(1.0)
        assert part.clusters == 100
        for one in part.shares:
            assert one.change.lower <= one.change.change <= one.change.upper


def test_the_interval_of_the_length_is_that_of_the_clusters_means() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    extra = rng.integers(0, 8, 100)
    told = found_in(
        lambda number: sound(number).replace("left side.", "left side." + " it is" * int(extra[number // 2]))
    )
    assert told.words.change == pytest.approx(2 * extra.mean())
    plain = stats.ttest_1samp(2.0 * extra, 0).confidence_interval(0.95)
    assert told.words.lower == pytest.approx(plain.low, abs=0.1 * (plain.high - plain.low))
    assert told.words.upper == pytest.approx(plain.high, abs=0.1 * (plain.high - plain.low))


def test_equal_reasoning_has_changed_in_nothing_and_none_is_not_told() -> None:
    same = found_in(sound)
    assert {one.change.change for part in same.parts for one in part.shares} == {0.0} == {same.words.change}
    clusters = np.array([row.group for row in ROWS])
    assert rationale_drift(run(lambda _: "left"), run(lambda _: "right"), clusters) is None
    assert rationale_drift(ROWS, run(sound), clusters) is None, "a run that generated no replies"


def test_the_report_tells_it_in_json_markdown_and_page(tmp_path: Path) -> None:
    for name, reply in (("gguf-f16", sound), ("gguf-q2_k", broken), ("gguf-q8_0", sound)):
        write_rows(tmp_path / "runs", identity(name), run(reply))
    report = drift(tmp_path / "runs", "gguf-f16")
    paths = write_report(report, tmp_path / "out")
    assert DriftReport.read(tmp_path / "out" / JSON_NAME) == report
    text = (tmp_path / "out" / MARKDOWN_NAME).read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| gguf-q2_k | names the side |"))
    assert "0.0 %, 10.0 %: +10.0 [" in line
    assert "Reasoning, by rule" in paths[-1].read_text("utf-8")
    assert all(level.overall.delta == 0 for level in report.levels), "the answers are the same"
