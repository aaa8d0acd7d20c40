"""Drift over planted runs: verdicts per cell, the stored checkpoint first, and runs that cannot be compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.drift import DriftError, drift
from infimed.evaluation.drift_report import Comparison, DriftReport, LevelDrift, Margins, NotRun, ReportError
from infimed.evaluation.prediction import PredictionError
from infimed.evaluation.report import markdown
from infimed.evaluation.report_html import html

from .planted import answered, items, pattern, write_run

CELLS = {("ct", "finding"): 200, ("fundus", "laterality"): 200, ("mri", "count"): 150, ("xray", "view"): 12}
ROWS = items(CELLS, per_group=2)
COUNT = len(ROWS)
AT = {cell: np.array([i for i, row in enumerate(ROWS) if (row.modality, row.task) == cell]) for cell in CELLS}


def reference_outcomes() -> np.ndarray:
    return pattern(0.9, COUNT, 1)


def write_priors(folder: Path, reference: str, majority: float = 0.4, grey: float = 0.35) -> None:
    write_run(folder, "prior", ROWS, pattern(majority, COUNT, 2), weight_bytes=0, seconds=0)
    write_run(folder, f"{reference}.grey", ROWS, pattern(grey, COUNT, 3))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """f16 as the reference, q8_0 the same, q4_k_m with a loss of 15 points in one cell, healed in no other."""
    right = reference_outcomes()
    write_run(tmp_path, "gguf-f16", ROWS, right, weight_bytes=4_000_000)
    write_run(tmp_path, "gguf-q8_0", ROWS, right, confidence=0.69, weight_bytes=2_000_000)
    lost = right.copy()
    candidates = AT["fundus", "laterality"][right[AT["fundus", "laterality"]]]
    lost[np.random.default_rng(5).permutation(candidates)[:30]] = False
    write_run(tmp_path, "gguf-q4_k_m", ROWS, lost, weight_bytes=1_000_000)
    write_priors(tmp_path, "gguf-f16")
    return tmp_path


def row(report: DriftReport, run: str) -> LevelDrift:
    return next(level for level in report.levels if level.facts.run == run)


def cell(level: LevelDrift, modality: str, task: str) -> Comparison:
    return next(found for found in level.cells if (found.modality, found.task) == (modality, task))


def test_an_unchanged_level_passes_over_all_and_in_every_cell(runs: Path) -> None:
    level = row(drift(runs, "gguf-f16"), "gguf-q8_0")
    assert level.overall.verdict == "PASS" and level.no_cell_worse and not level.failed
    assert {found.verdict for found in level.cells} == {"PASS"}
    assert (level.overall.harmful, level.overall.healing, level.overall.delta) == (0, 0, 0.0)
    assert level.overall.agreement == 1.0 and level.overall.mcnemar_p == 1.0
    p, q = np.array([0.7, 0.1, 0.1, 0.1]), np.array([0.69, 0.31 / 3, 0.31 / 3, 0.31 / 3])
    divergence = level.overall.divergence
    assert divergence is not None and divergence.items == COUNT
    expected = float((p * np.log(p / q)).sum())
    assert (divergence.mean_nats, divergence.max_nats) == pytest.approx((expected, expected), rel=1e-4)


def test_a_loss_in_one_cell_fails_that_cell_and_is_named_after_holm(runs: Path) -> None:
    report = drift(runs, "gguf-f16")
    level = row(report, "gguf-q4_k_m")
    lost = cell(level, "fundus", "laterality")
    assert lost.verdict == "FAIL" and lost.named_worse and lost.delta == pytest.approx(-0.15)
    assert (lost.harmful, lost.healing) == (30, 0) and lost.upper < -0.05
    assert lost.p_worse_holm == pytest.approx(min(1.0, 3 * lost.p_worse))
    assert cell(level, "ct", "finding").verdict == "PASS" and not cell(level, "ct", "finding").named_worse
    assert level.named_worse == (lost,)
    assert not level.no_cell_worse and level.failed and report.failed
    assert level.overall.delta == pytest.approx(-30 / COUNT)
    assert level.overall.reference.correct - level.overall.level.correct == 30


def test_small_cells_are_listed_and_not_judged(runs: Path) -> None:
    report = drift(runs, "gguf-f16")
    assert [(found.modality, found.task, found.items) for found in report.small_cells] == [("xray", "view", 12)]
    assert all(len(level.cells) == 3 for level in report.levels)
    printed = drift(runs, "gguf-f16", Margins(cell_items=10))
    assert printed.small_cells == () and len(printed.levels[0].cells) == 4


def test_the_reference_is_judged_first_against_the_better_prior(runs: Path) -> None:
    found = row(drift(runs, "gguf-f16"), "gguf-q8_0").overall.competence
    assert found.prior == "majority answer" and found.accuracy == pytest.approx(0.4, abs=0.01)
    assert 0 < found.lead_lower_pass < found.lead_lower < found.lead == pytest.approx(0.5, abs=0.01)


def test_what_the_reference_knows_is_told_by_modality_and_task_with_two_sided_intervals(runs: Path) -> None:
    report = drift(runs, "gguf-f16")
    named = [(part.axis, part.name, part.items) for part in report.knowledge]
    assert named == [
        ("all", "", COUNT), ("modality", "ct", 200), ("modality", "fundus", 200), ("modality", "mri", 150),
        ("modality", "xray", 12), ("task", "count", 150), ("task", "finding", 200), ("task", "laterality", 200),
        ("task", "view", 12),
    ]  # fmt: skip
    known = report.knowledge[0]
    assert known.lead == pytest.approx(known.reference.value - known.prior_share.value)
    assert known.lower < row(report, "gguf-q8_0").overall.competence.lead_lower < known.lead < known.upper
    (runs / "prior.meta.json").unlink()
    assert drift(runs, "gguf-f16").knowledge == ()


@pytest.mark.parametrize(("majority", "grey", "named"), [(0.9, 0.2, "majority answer"), (0.2, 0.9, "grey image")])
def test_a_reference_no_better_than_either_prior_gives_no_verdict(tmp_path: Path, majority, grey, named) -> None:  # type: ignore[no-untyped-def]
    right = reference_outcomes()
    for run in ("gguf-f16", "gguf-q8_0"):
        write_run(tmp_path, run, ROWS, right)
    write_priors(tmp_path, "gguf-f16", majority, grey)
    level = row(drift(tmp_path, "gguf-f16"), "gguf-q8_0")
    assert {found.verdict for found in (level.overall, *level.cells)} == {"REFERENCE NOT COMPETENT"}
    assert level.overall.competence.prior == named and named in level.overall.reason
    assert not level.no_cell_worse and not level.failed


@pytest.mark.parametrize("missing", ["prior", "gguf-f16.grey"])
def test_without_both_parts_of_the_prior_nothing_passes(runs: Path, missing: str) -> None:
    for path in runs.glob(f"{missing}.*"):
        if missing != "gguf-f16" or ".grey" not in path.name:
            path.unlink()
    level = row(drift(runs, "gguf-f16"), "gguf-q8_0")
    assert level.overall.verdict == "REFERENCE NOT COMPETENT"
    assert ("--prior" if missing == "prior" else "--grey") in level.overall.reason


def test_questions_without_an_image_need_no_grey_run_and_mixed_ones_use_it_where_images_are(tmp_path: Path) -> None:
    right = reference_outcomes()
    texts = [dataclasses.replace(found, images=0) for found in ROWS]
    for run in ("gguf-f16", "gguf-q8_0"):
        write_run(tmp_path / "text", run, texts, right)
    write_run(tmp_path / "text", "prior", texts, pattern(0.4, COUNT, 2), seconds=0)
    assert row(drift(tmp_path / "text", "gguf-f16"), "gguf-q8_0").overall.verdict == "PASS"
    half = [dataclasses.replace(found, images=index % 2) for index, found in enumerate(ROWS)]
    for run in ("gguf-f16", "gguf-q8_0"):
        write_run(tmp_path / "mixed", run, half, right)
    write_run(tmp_path / "mixed", "prior", half, pattern(0.4, COUNT, 2), seconds=0)
    # on questions without an image the grey run is the reference itself
    write_run(tmp_path / "mixed", "gguf-f16.grey", half, right & (np.arange(COUNT) % 2 == 0))
    assert row(drift(tmp_path / "mixed", "gguf-f16"), "gguf-q8_0").overall.verdict == "PASS"


def test_an_open_verdict_says_how_many_items_would_settle_it(tmp_path: Path) -> None:
    right = reference_outcomes()
    write_run(tmp_path, "gguf-f16", ROWS, right)
    flips = np.random.default_rng(8).permutation(COUNT)[:60]
    write_run(tmp_path, "gguf-q4_0", ROWS, np.where(np.isin(np.arange(COUNT), flips), ~right, right))
    write_priors(tmp_path, "gguf-f16")
    found = row(drift(tmp_path, "gguf-f16", Margins(overall=0.10)), "gguf-q4_0").overall
    assert found.verdict == "NOT ENOUGH ITEMS" and found.lower < -0.10 < found.upper
    assert "either side" in found.reason
    if found.delta > -0.10:
        assert found.items_to_settle is not None and found.items_to_settle > COUNT
    passed = row(drift(tmp_path, "gguf-f16", Margins(overall=0.30)), "gguf-q4_0").overall
    assert passed.verdict == "PASS" and passed.items_to_settle is None


def test_the_first_row_is_the_stored_checkpoint_against_base_plus_adapter(runs: Path) -> None:
    report = drift(runs, "gguf-f16")
    assert isinstance(report.stored, NotRun) and "adapter" in report.stored.reason
    right = reference_outcomes()
    write_run(runs, "adapter", ROWS, right)
    assert "no run checkpoint" in drift(runs, "gguf-f16").stored.reason  # type: ignore[union-attr]
    write_run(runs, "checkpoint", ROWS, right)
    write_run(runs, "checkpoint.grey", ROWS, pattern(0.3, COUNT, 3))
    report = drift(runs, "gguf-f16")
    stored = report.stored
    assert isinstance(stored, LevelDrift)
    assert (stored.facts.run, stored.reference, stored.overall.verdict) == ("checkpoint", "adapter", "PASS")
    assert next(report.rows).facts.run == "checkpoint"
    assert "adapter" not in [level.facts.run for level in report.levels]
    by_adapter = drift(runs, "adapter")
    assert "checkpoint" not in [level.facts.run for level in by_adapter.levels]
    assert isinstance(by_adapter.stored, LevelDrift)


def test_a_sabotaged_merge_fails_in_the_first_row(runs: Path) -> None:
    right = reference_outcomes()
    write_run(runs, "adapter", ROWS, right)
    write_run(runs, "checkpoint", ROWS, right & (np.arange(COUNT) % 4 > 0))
    write_run(runs, "checkpoint.grey", ROWS, pattern(0.3, COUNT, 3))
    (runs / "gguf-q4_k_m.meta.json").unlink()
    report = drift(runs, "gguf-f16")
    assert isinstance(report.stored, LevelDrift) and report.stored.overall.verdict == "FAIL" and report.failed


def test_clusters_weaken_what_independent_items_would_show(tmp_path: Path) -> None:
    right = reference_outcomes()
    for name, per_group in (("alone", 1), ("together", 10)):
        rows = items({("ct", "finding"): 562}, per_group)
        lost = right.copy()
        lost[:20] = False
        write_run(tmp_path / name, "gguf-f16", rows, right)
        write_run(tmp_path / name, "gguf-q4_0", rows, lost)
        write_run(tmp_path / name, "prior", rows, pattern(0.4, COUNT, 2), seconds=0)
        write_run(tmp_path / name, "gguf-f16.grey", rows, pattern(0.4, COUNT, 3))
    alone, together = (drift(tmp_path / name, "gguf-f16").levels[0].overall for name in ("alone", "together"))
    assert alone.delta == together.delta and alone.item_lower == together.item_lower
    assert together.lower < alone.lower
    assert "one cluster holds" not in together.reason
    assert (alone.clusters, together.clusters, together.discordant_clusters) == (562, 57, 2)


def test_an_accuracy_of_few_patients_is_as_uncertain_as_they_are_few() -> None:
    from infimed.evaluation.comparison import share

    one = share(pattern(0.9, 300, 1), np.full(300, "patient"))
    assert one.lower < 0.4 and one.upper > 0.95
    pair = np.repeat(["first", "second"], 150)
    for right in (np.repeat([True, False], 150), np.tile([True, False], 150)):  # as unlike, and as alike as can be
        found = share(right, pair)
        assert found.lower < 0.2 and found.upper > 0.8
    # forty patients who are right throughout say what forty questions would
    assert share(np.ones(400, bool), np.repeat(np.arange(40), 10).astype(str)).lower == pytest.approx(
        share(np.ones(40, bool), np.arange(40).astype(str)).lower, abs=1e-12
    )
    alone = share(pattern(0.9, 300, 1), np.arange(300).astype(str))
    assert (alone.lower, alone.upper) == pytest.approx((0.861, 0.929), abs=5e-4)


def test_a_level_without_a_loss_is_not_passed_where_large_clusters_could_hide_one(tmp_path: Path) -> None:
    rows = items({("ct", "finding"): 600})
    rows = [dataclasses.replace(found, group=f"p{max(0, index - 9)}") for index, found in enumerate(rows)]
    right = pattern(0.9, 600, 1)
    for run in ("gguf-f16", "gguf-q8_0"):
        write_run(tmp_path, run, rows, right)
    write_run(tmp_path, "prior", rows, pattern(0.4, 600, 2), seconds=0)
    write_run(tmp_path, "gguf-f16.grey", rows, pattern(0.4, 600, 3))
    found = drift(tmp_path, "gguf-f16", Margins(overall=0.02)).levels[0].overall
    assert found.verdict == "PASS"  # one patient of ten questions, the others of one
    found = drift(tmp_path, "gguf-f16", Margins(overall=0.0158)).levels[0].overall
    assert found.verdict == "NOT ENOUGH ITEMS" and "one cluster holds 2% of the items" in found.reason
    rows = [dataclasses.replace(found, group=f"p{max(index // 10, index - 36)}") for index, found in enumerate(rows)]
    for path in tmp_path.iterdir():
        path.unlink()
    for run in ("gguf-f16", "gguf-q8_0"):
        write_run(tmp_path, run, rows, right)
    write_run(tmp_path, "prior", rows, pattern(0.4, 600, 2), seconds=0)
    write_run(tmp_path, "gguf-f16.grey", rows, pattern(0.4, 600, 3))
    found = drift(tmp_path, "gguf-f16").levels[0].overall
    assert (found.harmful, found.verdict) == (0, "NOT ENOUGH ITEMS")  # four patients of ten
    assert "clusters of these sizes could hide a loss of 3.51 points with no harm seen" in found.reason
    assert found.items_to_settle is not None and found.items_to_settle > 900


def test_one_large_cluster_is_warned_of(runs: Path) -> None:
    report = drift(runs, "gguf-f16", Margins(cell_items=10))
    assert "one cluster holds" not in cell(report.levels[0], "ct", "finding").reason
    assert "one cluster holds 17% of the items" in cell(report.levels[0], "xray", "view").reason


def test_a_run_that_was_killed_is_told_and_not_passed_over(runs: Path) -> None:
    rows = (runs / "gguf-q4_k_m.jsonl").read_bytes().splitlines(keepends=True)
    (runs / "gguf-q4_k_m.jsonl").unlink()
    (runs / "gguf-q4_k_m.meta.json").rename(runs / "gguf-q4_k_m.started.json")
    (runs / "gguf-q4_k_m.jsonl.part").write_bytes(b"".join(rows[:-1]))
    report = drift(runs, "gguf-f16")
    assert [level.facts.run for level in report.levels] == ["gguf-q8_0"]
    assert [(run.run, run.reason) for run in report.unfinished] == [
        ("gguf-q4_k_m", "561 of 562 questions are answered; infimed evaluate goes on with it")
    ]
    for told in (markdown(report), html(report)):
        assert "gguf-q4_k_m" in told and "NOT RUN: 561 of 562 questions are answered" in told
        assert "NOT RUN to the end: 1 run." in told
    with pytest.raises(DriftError, match="not finished: gguf-q4_k_m"):
        drift(runs, "gguf-q4_k_m")


def test_a_grey_run_of_another_model_than_the_reference_is_stale(runs: Path) -> None:
    path = runs / "gguf-f16.grey.meta.json"
    path.write_bytes(path.read_bytes().replace(b"e" * 64, b"f" * 64))
    with pytest.raises(DriftError, match=r"'gguf-f16\.grey' is not of what 'gguf-f16' is .* one of them is stale"):
        drift(runs, "gguf-f16")


@pytest.mark.parametrize("reference", ["prior", "gguf-f16.grey"])
def test_a_run_without_the_images_is_no_reference(runs: Path, reference: str) -> None:
    with pytest.raises(DriftError, match="is no reference; name one of: gguf-f16, gguf-q4_k_m, gguf-q8_0"):
        drift(runs, reference)


def test_other_items_datasets_roles_and_settings_are_refused(runs: Path) -> None:
    right = reference_outcomes()
    write_run(runs, "gguf-q4_0", ROWS, right, dataset_sha256="0" * 64)
    with pytest.raises(DriftError, match=r"'gguf-q4_0' has dataset_sha256 0000"):
        drift(runs, "gguf-f16")
    (runs / "gguf-q4_0.meta.json").unlink()
    write_run(runs, "gguf-q5_k_m", ROWS[1:], right[1:])
    with pytest.raises(DriftError, match=r"'gguf-q5_k_m' answers other items than 'gguf-f16' \(1 by id\)"):
        drift(runs, "gguf-f16")
    (runs / "gguf-q5_k_m.meta.json").unlink()
    changed = [dataclasses.replace(ROWS[0], wording="Which side, please?"), *ROWS[1:]]
    write_run(runs, "gguf-q6_k", changed, right)
    with pytest.raises(DriftError, match=r"'gguf-q6_k' answers .* \(0 by id\): .* the wording 'Which side, please"):
        drift(runs, "gguf-f16")
    for suffix in (".jsonl", ".meta.json"):
        (runs / f"gguf-q6_k{suffix}").unlink()
    other = next(option for option in ROWS[0].options if option != ROWS[0].answer)
    write_run(runs, "gguf-q6_k", [dataclasses.replace(ROWS[0], answer=other), *ROWS[1:]], right)
    with pytest.raises(DriftError, match=rf"\(0 by id\): item .* has the answer '{other}', not '{ROWS[0].answer}'"):
        drift(runs, "gguf-f16")


def test_a_missing_reference_a_lone_run_and_a_margin_of_100_points_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DriftError, match=r"no complete run 'gguf-f32'; it holds: gguf-f16, gguf-f16\.grey"):
        drift(runs, "gguf-f32")
    with pytest.raises(DriftError, match="margins lie between 0 and 1"):
        drift(runs, "gguf-f16", Margins(overall=2.0))
    write_run(tmp_path / "lone", "gguf-f16", ROWS, reference_outcomes())
    with pytest.raises(DriftError, match="nothing to compare"):
        drift(tmp_path / "lone", "gguf-f16")


def test_a_row_changed_by_hand_is_refused_before_anything_is_judged(runs: Path) -> None:
    path = runs / "gguf-q4_k_m.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"correct": false', b'"correct": true', 1))
    with pytest.raises(PredictionError, match="changed after it was written"):
        drift(runs, "gguf-f16")


def test_the_report_reads_back_equal_and_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    report = drift(runs, "gguf-f16")
    path = tmp_path / "report.json"
    path.write_bytes(report.to_bytes())
    assert DriftReport.read(path) == report
    assert drift(runs, "gguf-f16").to_bytes() == report.to_bytes()
    path.write_bytes(report.to_bytes().replace(b'"FAIL"', b'"FINE"', 1))
    with pytest.raises(ReportError, match="FINE"):
        DriftReport.read(path)


def test_open_answers_agree_by_what_they_say_and_have_no_divergence(tmp_path: Path) -> None:
    opened = [
        dataclasses.replace(found, answer_type="open", options=(), option_tokens=(), task="open") for found in ROWS
    ]
    base = [dataclasses.replace(answered(ROWS[0], True)) for _ in ROWS]
    assert base[0].choice == "left"
    from infimed.evaluation.comparison import compare

    said = [dataclasses.replace(found, generated="The left", extracted="The left", correct=True) for found in opened]
    other = [dataclasses.replace(found, generated="left.", extracted="left.", correct=True) for found in opened]
    clusters = np.array([found.group for found in opened])
    priors = {"majority answer": pattern(0.2, COUNT, 2)}
    found = compare(opened, clusters, said, other, priors, 0.02)
    assert found.agreement == 1.0 and found.divergence is None and found.verdict == "PASS"
