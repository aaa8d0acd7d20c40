"""The plan of a dataset: the same bytes every time, what it says of the dataset, and whether it was kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.dataset import Dataset, write_dataset
from infimed.evaluation.drift import drift
from infimed.evaluation.drift_report import DriftReport, Margins
from infimed.evaluation.example import Example, TextRef
from infimed.evaluation.plan import Assumed, Plan, PlanError, make_plan, questions_digest
from infimed.evaluation.plan_kept import PLAN_NAME, adopt
from infimed.evaluation.plan_text import plan_lines
from infimed.evaluation.prediction import Prediction, PredictionError, items_digest
from infimed.evaluation.report import markdown
from infimed.evaluation.report_html import html

from .planted import OPTIONS, pattern, write_run

CELLS = {("ct", "finding"): 240, ("mri", "count"): 180, ("xray", "view"): 9}
DRAWS = 400


def examples(cells=CELLS, per_group=2):  # type: ignore[no-untyped-def]
    return [
        Example(
            id=f"{modality}-{task}-{index:04d}", content=(TextRef("Which side?"),), answer="left", options=OPTIONS,
            answer_type="choice", modality=modality, task=task, source="made", license="CC0-1.0",
            group=f"{modality}-{index // per_group}", role="test",
        )
        for (modality, task), count in cells.items()
        for index in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", examples(), {}, name="made")


@pytest.fixture(scope="module")
def plan(dataset: Dataset) -> Plan:
    return make_plan(dataset, "gguf-f16", assumed=Assumed(flips=(0.002, 0.3), lead=0.4), draws=DRAWS)


def write_runs(folder: Path, dataset: Dataset, plan: str, levels=("gguf-f16", "gguf-q8_0")) -> None:  # type: ignore[no-untyped-def]
    rows = [Prediction.of(example, correct=False, score=0.0, option_tokens=(1,) * 4) for example in dataset.examples]
    for run in levels:
        write_run(folder, run, rows, pattern(0.9, len(rows), 1), dataset_sha256=dataset.sha256, plan=plan)
    write_run(folder, "prior", rows, pattern(0.4, len(rows), 2), dataset_sha256=dataset.sha256, plan=plan, seconds=0)


def judged(folder: Path, reference: str = "gguf-f16", margins: Margins | None = None) -> DriftReport:
    return drift(folder, reference, margins)


def test_the_same_dataset_gives_the_same_bytes_and_they_read_back(dataset: Dataset, plan: Plan, tmp_path: Path) -> None:
    again = make_plan(dataset, "gguf-f16", assumed=Assumed(flips=(0.002, 0.3), lead=0.4), draws=DRAWS)
    assert again.to_bytes() == plan.to_bytes() and again.sha256 == plan.sha256
    path = tmp_path / "plan.json"
    path.write_bytes(plan.to_bytes())
    assert Plan.read(path) == plan
    path.write_bytes(plan.to_bytes().replace(b'"overall": 0.02', b'"overall": 0.03'))
    assert Plan.read(path).sha256 != plan.sha256
    path.write_bytes(plan.to_bytes().replace(b"\n  ", b"\n"))
    with pytest.raises(PlanError, match="edited or reformatted"):
        Plan.read(path)


def test_clusters_and_cells_are_read_from_the_dataset(plan: Plan) -> None:
    assert (plan.items, plan.clusters, plan.overall.items) == (429, 120 + 90 + 5, 429)
    assert [(part.modality, part.task, part.items, part.clusters) for part in plan.cells] == [
        ("ct", "finding", 240, 120), ("mri", "count", 180, 90)
    ]  # fmt: skip
    assert [(cell.modality, cell.items) for cell in plan.small_cells] == [("xray", 9)]
    assert plan.cells[0].mean_size == 2 and plan.cells[0].hidden_loss == round(1 - 0.05 ** (1 / 120), 4)


def test_rare_flips_are_certified_and_frequent_ones_are_not_and_lack_questions(plan: Plan) -> None:
    rare, frequent = plan.cells[0].outlooks
    assert rare.certifiable and rare.items_missing == 0 and rare.items_needed <= 240 and rare.margin < 0.05
    assert not frequent.certifiable and frequent.margin > 0.05
    assert frequent.items_needed - 240 == frequent.items_missing > 400
    likely, unlikely = plan.joint
    assert likely.cells > 0.75 > likely.cells_and_overall > unlikely.cells > unlikely.cells_and_overall
    text = "\n".join(plan_lines(plan))
    assert "ct \u00d7 finding: 240 questions, 120 clusters" in text and "NOT certifiable" in text
    assert "questions are missing" in text and "xray \u00d7 view (9)" in text


def test_451_single_questions_cannot_certify_2_points_where_one_answer_in_ten_flips(tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "set", examples({("ct", "finding"): 451}, 1), {}, name="made")
    found = make_plan(made, "gguf-f16", assumed=Assumed(flips=(0.1,), lead=0.4), draws=DRAWS).overall.outlooks[0]
    assert not found.certifiable and found.items_needed == pytest.approx(1_610, rel=0.1)
    assert found.items_missing == found.items_needed - 451


def test_assumptions_that_contradict_themselves_are_refused(dataset: Dataset) -> None:
    for wrong in ({"flips": ()}, {"flips": (0.0,)}, {"correlation": 1.0}, {"lead": 0.8}, {"loss": 0.02}):
        with pytest.raises(PlanError):
            Assumed(**wrong)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="no example in the role 'search'"):
        make_plan(dataset, "gguf-f16", role="search")
    with pytest.raises(PlanError, match="margins lie between 0 and 1"):
        make_plan(dataset, "gguf-f16", Margins(overall=2.0))


def test_the_questions_of_a_plan_are_those_of_its_runs(dataset: Dataset, plan: Plan) -> None:
    rows = [Prediction.of(example, correct=True, score=1.0, choice="left") for example in dataset.examples]
    assert questions_digest(dataset.examples) == plan.items_sha256 == items_digest(rows)


def test_a_plan_that_was_kept_is_said_to_be(dataset: Dataset, plan: Plan, tmp_path: Path) -> None:
    given, runs = tmp_path / "given.json", tmp_path / "runs"
    given.write_bytes(plan.to_bytes())
    assert adopt(runs, given, dataset, "test", "per token") == plan.sha256
    assert adopt(runs, None, dataset, "test", "per token") == plan.sha256  # it lies there now
    write_runs(runs, dataset, plan.sha256)
    report = judged(runs)
    assert (report.plan.state, report.plan.sha256, report.plan.changed) == ("kept", plan.sha256, ())
    for told in (markdown(report), html(report)):
        assert "Plan kept" in told and plan.sha256 in told and "No plan was written" not in told
    assert DriftReport.read(_written(report, tmp_path)) == report


def _written(report: DriftReport, folder: Path) -> Path:
    path = folder / "drift.json"
    path.write_bytes(report.to_bytes())
    return path


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("margin", "the margin over all was 0.02, not 0.03"),
        ("cells", "the cells differ by xray x view"),
        ("reference", "the reference was to be gguf-f16, not gguf-q8_0"),
        ("items", "the questions are others than the 429"),
        ("runs", "not made under the plan: gguf-q4_0"),
        ("scoring", "options were to be scored summed, not per token"),
        ("plan", "the plan that gguf-f16, gguf-q8_0, prior were made under is missing"),
    ],
)
def test_what_differs_from_the_plan_is_named(
    dataset: Dataset, plan: Plan, tmp_path: Path, what: str, told: str
) -> None:
    made = plan if what != "items" else dataclasses.replace(plan, items_sha256="0" * 64)
    made = made if what != "scoring" else dataclasses.replace(plan, likelihood="summed")
    if what != "plan":
        (tmp_path / PLAN_NAME).write_bytes(made.to_bytes())
    write_runs(tmp_path, dataset, made.sha256)
    margins, reference = None, "gguf-f16"
    if what == "margin":
        margins = Margins(overall=0.03)
    elif what == "cells":
        margins = Margins(cell_items=5)
    elif what == "reference":
        reference = "gguf-q8_0"
    elif what == "runs":
        _late(tmp_path, dataset)
    report = judged(tmp_path, reference, margins)
    assert report.plan.state == "not kept" and what in report.plan.changed
    assert any(told in reason for reason in report.plan.reasons), report.plan.reasons
    assert "The plan was NOT kept" in markdown(report) and told.replace("<", "&lt;") in markdown(report)


def _late(folder: Path, dataset: Dataset) -> None:
    rows = [Prediction.of(example, correct=False, score=0.0, option_tokens=(1,) * 4) for example in dataset.examples]
    write_run(folder, "gguf-q4_0", rows, np.ones(len(rows), bool), dataset_sha256=dataset.sha256)


def test_a_run_begun_without_the_plan_is_told_even_unfinished(dataset: Dataset, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / PLAN_NAME).write_bytes(plan.to_bytes())
    write_runs(tmp_path, dataset, plan.sha256)
    _late(tmp_path, dataset)
    (tmp_path / "gguf-q4_0.jsonl").rename(tmp_path / "gguf-q4_0.jsonl.part")
    meta = tmp_path / "gguf-q4_0.meta.json"
    from infimed.evaluation.jsonform import to_json
    from infimed.evaluation.prediction import read_meta
    from infimed.runtime.files import canonical_json

    found = read_meta(tmp_path, "gguf-q4_0")
    assert found is not None
    (tmp_path / "gguf-q4_0.started.json").write_bytes(canonical_json(to_json(found.identity)))
    meta.unlink()
    assert judged(tmp_path).plan.reasons == ("not made under the plan: gguf-q4_0",)


def test_a_run_is_not_gone_on_with_under_another_plan(dataset: Dataset, tmp_path: Path) -> None:
    write_runs(tmp_path, dataset, "a" * 64)
    with pytest.raises(PredictionError, match="plan is 'aaaa"):
        write_runs(tmp_path, dataset, "b" * 64)


def test_a_plan_for_other_questions_or_beside_another_plan_is_refused(
    dataset: Dataset, plan: Plan, tmp_path: Path
) -> None:
    given = tmp_path / "given.json"
    given.write_bytes(dataclasses.replace(plan, dataset_sha256="0" * 64).to_bytes())
    with pytest.raises(PlanError, match="is for the dataset with sha256 '0000"):
        adopt(tmp_path / "runs", given, dataset, "test", "per token")
    given.write_bytes(plan.to_bytes())
    with pytest.raises(PlanError, match="is for scoring 'per token', not 'raw sum'"):
        adopt(tmp_path / "runs", given, dataset, "test", "raw sum")
    with pytest.raises(PlanError, match="is for the role 'test', not 'search'"):
        adopt(tmp_path / "runs", given, dataset, "search", "per token")
    assert not (tmp_path / "runs").exists()
    adopt(tmp_path / "runs", given, dataset, "test", "per token")
    given.write_bytes(dataclasses.replace(plan, reference="gguf-f32").to_bytes())
    with pytest.raises(PlanError, match="holds another plan"):
        adopt(tmp_path / "runs", given, dataset, "test", "per token")
    assert adopt(tmp_path / "elsewhere", None, dataset, "test", "per token") == ""
