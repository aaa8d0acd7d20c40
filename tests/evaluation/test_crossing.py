"""Single and cross-modal items are told apart: a loss in the one kind is seen there and not in the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infimed.evaluation.drift import drift
from infimed.evaluation.drift_report import DriftReport
from infimed.evaluation.jsonform import from_json, to_json
from infimed.evaluation.prediction import Prediction
from infimed.evaluation.report import JSON_NAME, MARKDOWN_NAME, write_report

from .planted import items, write_run

SINGLE = items({("ct", "finding"): 100})
PAIRS = [replace(row, images=2, parts=2) for row in items({("ct", "change"): 60})]
REPORTS = [replace(row, images=1, parts=2) for row in items({("ct", "agreement"): 40})]
ROWS = [*SINGLE, *PAIRS, *REPORTS]


@pytest.fixture
def report(tmp_path: Path) -> DriftReport:
    right = np.ones(len(ROWS), dtype=bool)
    right[90:100] = False
    lost = right.copy()
    lost[100:120] = False
    for run, outcome in (("gguf-f16", right), ("gguf-q4_0", lost), ("gguf-f16.grey", ~right), ("prior", ~right)):
        write_run(tmp_path / "runs", run, ROWS, list(outcome))
    return drift(tmp_path / "runs", "gguf-f16")


def test_a_loss_in_cross_modal_items_is_seen_there_alone(report: DriftReport) -> None:
    (level,) = report.levels
    found = {one.kind: one.found for one in level.apart}
    assert (found["single"].items, found["cross-modal"].items) == (100, 100)
    assert (found["single"].delta, found["single"].harmful) == (0.0, 0)
    assert found["cross-modal"].delta == pytest.approx(-0.2) and found["cross-modal"].harmful == 20
    assert found["cross-modal"].reference.correct == 100 and found["single"].reference.correct == 90
    assert level.overall.delta == pytest.approx(-0.1)
    known = {part.name: part for part in report.knowledge if part.axis == "items"}
    assert known["single"].lead == pytest.approx(0.8) and known["cross-modal"].lead == 1.0


def test_the_report_has_both_kinds_in_json_markdown_and_page(report: DriftReport, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path / "out")
    assert DriftReport.read(tmp_path / "out" / JSON_NAME) == report
    text = (tmp_path / "out" / MARKDOWN_NAME).read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| gguf-q4_0 | cross-modal items |"))
    assert "100 (100)" in line and "\u221220.0 [" in line and "20 / 0" in line
    assert "| cross-modal items | 100 (100) |" in text
    assert "cross-modal items" in paths[-1].read_text("utf-8")


def test_without_cross_modal_items_nothing_is_told_apart(tmp_path: Path) -> None:
    for run in ("gguf-f16", "gguf-q4_0", "gguf-f16.grey", "prior"):
        write_run(tmp_path / "runs", run, SINGLE, [True] * len(SINGLE))
    found = drift(tmp_path / "runs", "gguf-f16")
    assert not found.levels[0].apart and not [part for part in found.knowledge if part.axis == "items"]
    write_report(found, tmp_path / "out")
    assert "cross-modal" not in (tmp_path / "out" / MARKDOWN_NAME).read_text("utf-8")


def test_rows_of_before_parts_were_counted_are_read_and_two_images_are_cross_modal_all_the_same() -> None:
    old = {name: value for name, value in to_json(PAIRS[0]).items() if name != "parts"}
    row = from_json(Prediction, old)
    assert row.parts == 0 and row.cross_modal and not from_json(Prediction, {**old, "images": 1}).cross_modal
