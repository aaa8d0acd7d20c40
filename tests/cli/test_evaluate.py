"""The verbs evaluate and drift: what is said, where, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.cli.app import run
from infimed.evaluation.prediction import complete_runs

from ..evaluation.planted import items, pattern, write_run

ROWS = items({("ct", "finding"): 150, ("mri", "count"): 150})


def write_runs(folder: Path, *, loss: int) -> None:
    right = pattern(0.9, 300, 1)
    lost = right.copy()
    lost[np.flatnonzero(right)[:loss]] = False
    write_run(folder, "gguf-f16", ROWS, right)
    write_run(folder, "gguf-q4_k_m", ROWS, lost)
    write_run(folder, "prior", ROWS, pattern(0.4, 300, 2), seconds=0)
    write_run(folder, "gguf-f16.grey", ROWS, pattern(0.4, 300, 3))


def test_a_level_that_passes_ends_with_code_0_and_the_path_of_the_report(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    write_runs(tmp_path / "runs", loss=0)
    code = run(["drift", str(tmp_path / "runs"), "--reference", "gguf-f16", "--out", str(tmp_path / "report")])
    told = capsys.readouterr().out
    assert code == 0
    assert "1 comparison PASSes" in told and "NOT RUN: no run adapter" in told
    assert told.splitlines()[-1] == f"report: {tmp_path / 'report' / 'drift.html'}"


def test_a_level_that_fails_ends_with_code_1_after_the_report_is_written(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    write_runs(tmp_path / "runs", loss=45)
    arguments = ["drift", str(tmp_path / "runs"), "--reference", "gguf-f16", "--out", str(tmp_path / "report")]
    assert run([*arguments, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["levels"][0]["overall"]["verdict"] == "FAIL"
    assert json.loads((tmp_path / "report" / "drift.json").read_bytes()) == report
    assert run([*arguments, "--margin", "0.4", "--cell-margin", "0.6"]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--reference", "prior"], "'prior' answers without the images and is no reference; name one of: gguf-f16"),
        (["--reference", "gguf-f32"], "holds no complete run 'gguf-f32'; it holds: gguf-f16"),
        (["--reference", "gguf-f16", "--margin", "2"], "margins lie between 0 and 1, not 2.0"),
        ([], "--reference"),
    ],
)
def test_wrong_use_is_one_line_and_code_2_and_writes_nothing(tmp_path: Path, capsys, arguments, told) -> None:  # type: ignore[no-untyped-def]
    write_runs(tmp_path / "runs", loss=0)
    assert run(["drift", str(tmp_path / "runs"), "--out", str(tmp_path / "report"), *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_a_killed_level_is_told_and_does_not_fail(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    write_runs(tmp_path / "runs", loss=0)
    (tmp_path / "runs" / "onnx-int4.started.json").write_text("{}")
    assert run(["drift", str(tmp_path / "runs"), "--reference", "gguf-f16", "--out", str(tmp_path / "report")]) == 0
    told = capsys.readouterr().out
    assert "onnx-int4" in told and "NOT RUN: 0 of 300 questions are answered" in told
    report = json.loads((tmp_path / "report" / "drift.json").read_bytes())
    assert [found["run"] for found in report["unfinished"]] == ["onnx-int4"]


def test_a_report_that_would_replace_a_file_is_refused_before_the_work(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "report").write_text("mine")
    for verb in (
        ["drift", str(tmp_path / "none"), "--reference", "gguf-f16"],
        ["evaluate", str(tmp_path), "--data", str(tmp_path)],
    ):
        assert run([*verb, "--out", str(tmp_path / "report")]) == 2
        assert "is a file; name a folder" in capsys.readouterr().err
    assert (tmp_path / "report").read_text() == "mine"


def test_a_path_that_does_not_exist_is_told_as_such(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(["evaluate", str(tmp_path / "x"), "--data", str(tmp_path), "--out", str(tmp_path / "runs")]) == 2
    assert f"{tmp_path / 'x'} does not exist" in capsys.readouterr().err


def test_a_folder_that_is_nothing_to_evaluate_is_refused(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    arguments = ["evaluate", str(tmp_path / "empty"), "--data", str(tmp_path), "--out", str(tmp_path / "runs")]
    assert run([*arguments, "--level", "gguf-f16"]) == 2
    assert "--level gguf-f16 is for bundles" in capsys.readouterr().err
    assert run(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_is_evaluated_with_its_prior_and_grey_run_and_not_twice(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("torch")
    from infimed.evaluation.phantoms import write_phantoms

    from ..models import build_random_checkpoint

    checkpoint = build_random_checkpoint(
        tmp_path / "checkpoint", hidden=64, ffn=96, vision_hidden=32, vision_ffn=48, vision_depth=2,
        fullatt_block_indexes=(1,),
    )  # fmt: skip
    data = write_phantoms(tmp_path / "data", 12, 1, ("ct",), per_image=2, roles={"train": 0.5, "test": 0.5})
    arguments = [
        "evaluate", str(checkpoint), "--data", str(data.folder), "--out", str(tmp_path / "runs"), "--grey", "--prior",
        str(data.folder), "--threads", "1", "--max-tokens", "4", "--json",
    ]  # fmt: skip
    assert run(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in told] == ["prior", "checkpoint", "checkpoint.grey"]
    assert {row["items"] for row in told} == {len(data.in_role("test"))}
    assert complete_runs(tmp_path / "runs") == ("checkpoint", "checkpoint.grey", "prior")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert run(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == before
    capsys.readouterr()
    assert run([*arguments, "--threads", "2"]) == 2  # torch adds in another order
    assert "engine.threads is 1, not 2" in capsys.readouterr().err


def test_a_plan_is_written_before_any_run_and_never_over_another(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    from infimed.evaluation.phantoms import write_phantoms

    data = write_phantoms(tmp_path / "data", 30, 1, ("ct",), per_image=2, roles={"train": 0.5, "test": 0.5}).folder
    plan = tmp_path / "new" / "plan.json"
    arguments = ["drift", "--plan", str(data), "--reference", "gguf-f16", "--out", str(plan), "--flips", "0.05"]
    assert run([*arguments, "--lead", "0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(plan.read_bytes()) and told["assumed"]["lead"] == 0.5
    assert run(arguments) == 2
    assert "is not written over" in capsys.readouterr().err
    plan.unlink()
    assert run(arguments) == 0
    assert "NOT certifiable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["RUNS", "--plan", "DATA"], "give one of the two"),
        ([], "name the folder of the runs"),
        (["RUNS", "--flips", "0.1"], "--flips is an assumption of a plan"),
        (["--plan", "DATA", "--lead", "0.9"], "0 < lead <= accuracy"),
    ],
)
def test_a_plan_and_runs_are_not_mixed(tmp_path: Path, capsys, arguments, told) -> None:  # type: ignore[no-untyped-def]
    write_runs(tmp_path / "RUNS", loss=0)
    arguments = [str(tmp_path / word) if word.isupper() else word for word in arguments]
    assert run(["drift", *arguments, "--reference", "gguf-f16", "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_margins_that_are_not_given_are_the_plans_and_a_change_is_told(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    from infimed.evaluation.dataset import write_dataset
    from infimed.evaluation.drift_report import Margins
    from infimed.evaluation.plan import Assumed, make_plan
    from infimed.evaluation.plan_kept import PLAN_NAME
    from infimed.evaluation.prediction import Prediction

    from ..evaluation.test_plan import examples

    data = write_dataset(tmp_path / "data", examples({("ct", "finding"): 60}), {}, name="made")
    made = make_plan(data, "gguf-f16", Margins(0.11, 0.12), Assumed(flips=(0.1,)), draws=200)
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / PLAN_NAME).write_bytes(made.to_bytes())
    rows = [Prediction.of(row, correct=False, score=0.0, option_tokens=(1,) * 4) for row in data.examples]
    for name in ("gguf-f16", "gguf-q8_0"):
        write_run(runs, name, rows, np.ones(len(rows), bool), plan=made.sha256, dataset_sha256=data.sha256)
    arguments = ["drift", str(runs), "--reference", "gguf-f16", "--out", str(tmp_path / "report")]
    assert run(arguments) == 5  # without a prior no reference is competent
    assert "Plan kept" in capsys.readouterr().out
    assert json.loads((tmp_path / "report" / "drift.json").read_bytes())["margins"]["overall"] == 0.11
    assert run([*arguments, "--cell-margin", "0.3"]) == 5
    assert "Plan NOT kept" in capsys.readouterr().out
