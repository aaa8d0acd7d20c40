"""Top-1 agreement, INVALID replies and abstaining on rows counted by hand; probes' runs beside the clean ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.abstention import abstains, abstention, says_it_cannot_tell
from infimed.evaluation.answer_drift import answer_drift
from infimed.evaluation.comparison import share
from infimed.evaluation.drift import drift
from infimed.evaluation.drift_report import DriftReport
from infimed.evaluation.report import markdown
from infimed.evaluation.report_html import html

from .planted import answered, items, pattern, write_run

ROWS = items({("ct", "finding"): 40, ("mri", "count"): 40}, per_group=2)
GROUPS = np.array([row.group for row in ROWS])


def test_the_same_top_answer_is_counted_over_questions_with_options_only() -> None:
    closed = [answered(row, True) for row in ROWS]
    other = [answered(row, index % 4 > 0) for index, row in enumerate(ROWS)]
    opened = [
        dataclasses.replace(row, options=(), option_tokens=(), option_logprobs_nats=(), probabilities=(), choice=None,
                            answer_type="open", generated="left", extracted="left")
        for row in closed[:10]
    ]  # fmt: skip
    found = answer_drift([*opened, *closed[10:]], [*opened, *other[10:]], GROUPS)
    differ = sum(index % 4 == 0 for index in range(10, 80))
    assert found.top1 is not None and (found.top1.correct, found.top1.items) == (70 - differ, 70)
    expected = share(np.arange(10, 80) % 4 > 0, GROUPS[10:])
    assert (found.top1.lower, found.top1.upper) == (expected.lower, expected.upper)
    assert found.invalid is not None and found.invalid.change == 0  # of the ten that were generated


def replied(row, said):  # type: ignore[no-untyped-def]
    return dataclasses.replace(answered(row, said == "left"), generated=said or "?", extracted=said)


def test_invalid_replies_are_counted_where_both_runs_generated_one() -> None:
    before = [replied(row, None if index < 4 else "left") for index, row in enumerate(ROWS)]
    after = [replied(row, None if index < 20 else "left") for index, row in enumerate(ROWS)]
    found = answer_drift(before, after, GROUPS).invalid
    assert found is not None
    assert (found.reference, found.level, found.change) == pytest.approx((4 / 80, 20 / 80, 16 / 80))
    assert 0 < found.lower < found.change < found.upper
    assert answer_drift([answered(row, True) for row in ROWS], after, GROUPS).invalid is None


@pytest.mark.parametrize(
    ("reply", "withheld"),
    [
        ("I cannot tell from this picture.", True), ("It can't be determined.", True), ("Unable to assess", True),
        ("There is not enough information.", True), ("I don\u2019t know", True), ("cannot be determined", True),
        ("unanswerable", True), ("A fracture cannot be excluded.", False), ("no fracture", False), ("", False),
        ("The lesion is not visible, so no.", False),
    ],
)  # fmt: skip
def test_a_reply_withholds_an_answer_only_where_it_says_so(reply: str, withheld: bool) -> None:
    assert says_it_cannot_tell(reply) is withheld


def test_abstention_by_hand() -> None:
    # 40 answerable: 30 sure (24 right), 10 unsure; 20 without the picture: 15 unsure, 5 answered
    sure = [answered(row, index < 24, 0.8) for index, row in enumerate(ROWS[:30])]
    unsure = [answered(row, True, 0.4) for row in ROWS[30:40]]
    blind = [answered(row, index < 3, 0.8 if index < 5 else 0.4) for index, row in enumerate(ROWS[40:60])]
    found = abstention([*sure, *unsure], blind, 0.5)
    assert found is not None and (found.answerable, found.unanswerable) == (40, 20)
    assert (found.coverage.correct, found.coverage.items) == (35, 60)
    # of the 35 answered 24 are right: an answer to a question without its picture is wrong even where it hits the key
    assert found.selective_accuracy is not None
    assert (found.selective_accuracy.correct, found.selective_accuracy.items) == (24, 35)
    assert found.recall is not None and (found.recall.correct, found.recall.items) == (15, 20)
    assert found.over_refusal is not None and (found.over_refusal.correct, found.over_refusal.items) == (10, 40)
    without = abstention([*sure, *unsure], [], 0.0)
    assert without is not None and without.recall is None and without.coverage.value == 1
    assert not abstains(unsure[0], 0.0) and abstention([], [], 0.5) is None


def test_the_report_tells_answers_over_all_and_per_cell_and_what_is_withheld(tmp_path: Path) -> None:
    right = pattern(0.9, 80, 1)
    write_run(tmp_path, "gguf-f16", ROWS, right)
    write_run(tmp_path, "gguf-q4_0", ROWS, right, confidence=0.45)
    write_run(tmp_path, "gguf-f16.grey", ROWS, pattern(0.3, 80, 3), confidence=0.45)
    report = drift(tmp_path, "gguf-f16")
    level = report.levels[0]
    assert level.overall.answers is not None and level.overall.answers.top1 is not None
    assert level.overall.answers.top1.value == 1 and all(cell.answers is not None for cell in level.cells)
    assert level.overall.answers.calibration is not None
    assert level.overall.answers.calibration.ece.change == pytest.approx(0.45 - 0.2)
    assert report.abstention is not None and report.abstention.recall is not None
    assert report.abstention.recall.value == 1 and report.abstention.coverage.value == 0.5
    assert level.abstention is not None and level.abstention.over_refusal is not None
    assert level.abstention.over_refusal.value == 1 and level.abstention.recall is None
    for told in (markdown(report), html(report)):
        assert "How the answers changed" in told and "What is left unanswered" in told
    path = tmp_path / "drift.json"
    path.write_bytes(report.to_bytes())
    assert DriftReport.read(path) == report


def test_probes_that_both_runs_were_asked_with_are_told_one_by_one(tmp_path: Path) -> None:
    from infimed.evaluation.jsonform import to_json
    from infimed.evaluation.predict_probes import PROBES_FOLDER, ProbeRecord
    from infimed.runtime.files import canonical_json

    right = pattern(0.9, 80, 1)
    flipped = right.copy()
    flipped[:8] = ~flipped[:8]
    beside = tmp_path / PROBES_FOLDER
    for run in ("gguf-f16", "gguf-q4_0"):
        write_run(tmp_path, run, ROWS, right)
        write_run(beside, f"{run}.blur-3", ROWS, right if run == "gguf-f16" else flipped, level=run)
        write_run(beside, f"{run}.swap", ROWS, right, level=run)
    write_run(beside, "gguf-q4_0.mirror", ROWS, right, level="gguf-q4_0")
    for label, key in (("blur-3", "same"), ("swap", "abstain"), ("mirror", "mirrored")):
        name, _, severity = label.partition("-")
        record = ProbeRecord(name, int(severity or 0), 0, key, "d" * 64, "test", 80, 80, {}, "a" * 64)  # type: ignore[arg-type]
        (beside / f"{label}.json").write_bytes(canonical_json(to_json(record)))
    level = drift(tmp_path, "gguf-f16").levels[0]
    assert [probe.probe for probe in level.probes] == ["blur-3", "swap"]
    blur, swap = level.probes
    assert (blur.agreement.correct, blur.agreement.items) == (72, 80)
    assert blur.answers.top1 is not None and blur.answers.top1.correct == 72 and blur.answers.calibration is not None
    assert swap.answers.calibration is None and swap.agreement.value == 1
    assert level.abstention is not None and level.abstention.unanswerable == 80
