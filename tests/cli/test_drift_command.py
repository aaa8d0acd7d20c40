"""The verb drift for machines: exit codes, the pictures of flips, and a report made again byte for byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
from infimed.cli.app import run
from infimed.evaluation.dataset import Dataset
from infimed.evaluation.phantoms import write_phantoms
from infimed.evaluation.prediction import Prediction

from ..evaluation.planted import items, pattern, write_run

CELLS = {("ct", "finding"): 110, ("mri", "count"): 110}


def write(folder: Path, cells: dict[tuple[str, str], int], *, lost: int = 0, known: bool = True) -> Path:
    """Write a reference, a level that lost `lost` answers of the first cell, and the priors; return the folder."""
    rows = items(cells)
    count = len(rows)
    right = pattern(0.9, count, 1)
    level = right.copy()
    level[np.flatnonzero(right)[:lost]] = False
    prior = pattern(0.4 if known else 0.9, count, 2)
    for name, flags in (("gguf-f16", right), ("gguf-q4_0", level), ("prior", prior), ("gguf-f16.grey", prior)):
        write_run(folder, name, rows, flags)
    return folder


def drift(runs: Path, out: Path, *more: str) -> int:
    return run(["drift", str(runs), "--reference", "gguf-f16", "--out", str(out), *more])


@pytest.mark.parametrize(
    ("cells", "lost", "known", "more", "code"),
    [
        (CELLS, 0, True, [], 0),
        (CELLS, 40, True, ["--open-cells"], 1),
        ({("ct", "finding"): 30, ("mri", "count"): 190}, 0, True, [], 4),
        ({("ct", "finding"): 30, ("mri", "count"): 190}, 0, True, ["--open-cells"], 0),
        ({("ct", "finding"): 40}, 0, True, ["--open-cells"], 4),
        (CELLS, 0, False, [], 5),
    ],
    ids=["PASS", "FAIL", "NOT ENOUGH in a cell", "open cells", "NOT ENOUGH", "NOT COMPETENT"],
)
def test_each_verdict_has_its_exit_code(tmp_path: Path, cells, lost, known, more, code) -> None:  # type: ignore[no-untyped-def]
    runs = write(tmp_path / "runs", cells, lost=lost, known=known)
    assert drift(runs, tmp_path / "report", *more) == code
    assert (tmp_path / "report" / "drift.html").is_file()


def test_help_tells_the_exit_codes(capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(["drift", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    for words in ("Exit codes: 0 every level PASSes", "1 a level FAILs", "5 no FAIL", "4 neither", "2 wrong use"):
        assert words in told


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_report_is_made_again_byte_for_byte_from_the_stored_outcomes(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    runs = write(tmp_path / "runs", CELLS, lost=30)
    drift(runs, tmp_path / "report", "--margin", "0.03", "--cell-margin", "0.06", "--abstain-below", "0.6")
    before = files(tmp_path / "report")
    shutil.copytree(runs, tmp_path / "elsewhere")
    capsys.readouterr()
    again = ["drift", str(tmp_path / "elsewhere"), "--recompute", str(tmp_path / "report")]
    assert run([*again, "--out", str(tmp_path / "new")]) == 0
    assert "the same bytes: drift.json, drift.md, drift.html" in capsys.readouterr().out
    assert files(tmp_path / "new") == before == files(tmp_path / "report")


def test_another_outcome_or_an_edited_report_is_told_with_the_first_difference(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    runs = write(tmp_path / "runs", CELLS, lost=30)
    drift(runs, tmp_path / "report")
    kept = tmp_path / "report" / "drift.json"
    found = json.loads(kept.read_bytes())
    found["levels"][0]["overall"]["verdict"] = "PASS"
    kept.write_text(json.dumps(found))
    (tmp_path / "report" / "drift.md").unlink()
    capsys.readouterr()
    assert run(["drift", str(runs), "--recompute", str(tmp_path / "report")]) == 1
    told = capsys.readouterr().out
    assert "drift.json differs: levels[0].overall.verdict is 'PASS', the runs yield 'FAIL'" in told
    assert "drift.md is missing" in told and "drift.html" not in told
    assert run(["drift", str(runs), "--recompute", str(tmp_path / "report"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["same"] is False


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--recompute", "report", "--margin", "0.1"], "--margin has no place beside --recompute"),
        (["--recompute", "nothing"], "is no drift report"),
        (["--recompute", "report", "--out", "report"], "the report itself; name another folder"),
        (["--reference", "gguf-f16"], "--out"),
        (["--reference", "gguf-f16", "--out", "new", "--data", "nothing"], "is no folder"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(tmp_path: Path, capsys, monkeypatch, arguments, told) -> None:  # type: ignore[no-untyped-def]
    drift(write(tmp_path / "runs", {("ct", "finding"): 60}), tmp_path / "report")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert run(["drift", "runs", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not (tmp_path / "new").exists()


def test_the_dataset_brings_the_pictures_of_the_flips_and_another_one_is_refused(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    data = write_phantoms(tmp_path / "data", 12, 1, ("ct",), per_image=2, roles={"test": 1.0})
    asked = [row for row in data.examples if row.options]
    rows = [Prediction.of(row, correct=False, score=0.0, option_tokens=(1,) * len(row.options)) for row in asked]
    right = np.ones(len(rows), bool)
    lost = right.copy()
    lost[:5] = False
    for name, flags in (("gguf-f16", right), ("gguf-q4_0", lost)):
        write_answers(tmp_path / "runs", name, rows, flags, data)
    out = tmp_path / "report"
    drift(tmp_path / "runs", out, "--data", str(data.folder))
    found = json.loads((out / "drift.json").read_bytes())
    assert found["pictured"] and found["flips"]
    page = (out / "drift.html").read_text("utf-8")
    assert page.count('<img src="data:image/png;base64,') == len(found["flips"])
    capsys.readouterr()
    assert run(["drift", str(tmp_path / "runs"), "--recompute", str(out)]) == 2
    assert "shows pictures of the dataset" in capsys.readouterr().err
    assert run(["drift", str(tmp_path / "runs"), "--recompute", str(out), "--data", str(data.folder)]) == 0
    other = write_phantoms(tmp_path / "other", 3, 2, ("ct",), per_image=1, roles={"test": 1.0})
    assert drift(tmp_path / "runs", tmp_path / "none", "--data", str(other.folder)) == 2
    assert "give that dataset with --data" in capsys.readouterr().err and not (tmp_path / "none").exists()


def write_answers(folder: Path, run_name: str, rows: list[Prediction], right: np.ndarray, data: Dataset) -> None:
    """Write a run over a real dataset's rows: the key, or the option after it."""
    from dataclasses import replace

    from infimed.evaluation.journal import Journal
    from infimed.evaluation.prediction import Identity, Subject

    subject = Subject("bundle", run_name, "e" * 64, 1_000)
    identity = Identity(run_name, subject, "own", "phantoms", data.sha256, "test")
    with Journal(folder, identity, [row.example_id for row in rows]) as journal:
        for row, flag in zip(rows, right, strict=True):
            at = (row.options.index(row.answer) + (0 if flag else 1)) % len(row.options)
            shares = [0.8 if place == at else 0.2 / (len(row.options) - 1) for place in range(len(row.options))]
            journal.append(
                replace(
                    row, choice=row.options[at], correct=bool(flag), score=float(flag), probabilities=tuple(shares),
                    option_logprobs_nats=tuple(float(np.log(share)) for share in shares),
                ),
                0.1,
            )  # fmt: skip
        journal.finish()
