"""infimed evaluate --probe and what infimed drift tells of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("scipy")
from infimed.cli.app import run
from infimed.evaluation.robustness_report import Robustness

from ..evaluation.planted_probes import row, varied, write_clean, write_probe


def test_an_unknown_probe_is_answered_with_the_list_before_anything_is_opened(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    arguments = ["evaluate", str(tmp_path), "--data", str(tmp_path), "--out", str(tmp_path / "runs")]
    assert run([*arguments, "--probe", "bluer"]) == 2
    error = capsys.readouterr().err
    assert "there is no probe 'bluer'; choose among all, shuffle" in error and "downscale" in error
    assert run([*arguments, "--probe", "blur:9"]) == 2
    assert "the severity is 1, 2, 3, 4 or 5" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_drift_tells_each_level_under_each_probe_and_its_exit_code_stays(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    rows = [row(f"patient{number:03d}/{number}") for number in range(300)]
    clean = write_clean(tmp_path / "runs", "gguf-f16", rows, lambda number: "left")
    write_clean(tmp_path / "runs", "gguf-q4_0", rows, lambda number: "left")
    for name in ("prior", "gguf-f16.grey"):
        write_clean(tmp_path / "runs", name, rows, lambda number: "none")
    for level, lost in (("gguf-f16", 0), ("gguf-q4_0", 60)):
        answers = [varied(one, "changed", "none" if n < lost else "left") for n, one in enumerate(clean)]
        write_probe(tmp_path / "runs", level, "noise", answers, 4)
    arguments = ["drift", str(tmp_path / "runs"), "--reference", "gguf-f16", "--out", str(tmp_path / "report")]
    assert run(arguments) == 0
    told = capsys.readouterr().out
    (line,) = [line for line in told.splitlines() if "noise-4" in line]
    assert line.split()[:4] == ["gguf-q4_0", "noise-4", "\u2715", "FAIL"] and "extra \u221220.0 points" in line
    found = Robustness.read(tmp_path / "report" / "robustness.json")
    assert found.contrasts[0].verdict == "FAIL" and found.contrasts[0].margin == 0.05
    assert run([*arguments, "--cell-margin", "0.4"]) == 0
    assert Robustness.read(tmp_path / "report" / "robustness.json").contrasts[0].verdict == "PASS"


def test_a_checkpoint_is_asked_probes_and_not_twice(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("torch")
    from infimed.evaluation.phantoms import write_phantoms

    from ..models import build_random_checkpoint

    checkpoint = build_random_checkpoint(
        tmp_path / "checkpoint", hidden=64, ffn=96, vision_hidden=32, vision_ffn=48, vision_depth=2,
        fullatt_block_indexes=(1,),
    )  # fmt: skip
    data = write_phantoms(tmp_path / "data", 6, 1, ("ct", "mri"), per_image=2, roles={"test": 1.0})
    arguments = [
        "evaluate", str(checkpoint), "--data", str(data.folder), "--out", str(tmp_path / "runs"), "--threads", "1",
        "--max-tokens", "3", "--json", "--probe", "gamma:3", "--probe", "shuffle", "--probe", "mirror",
    ]  # fmt: skip
    assert run(arguments) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    labels = ["checkpoint", "checkpoint.shuffle", "checkpoint.mirror", "checkpoint.gamma-3"]
    assert [one["run"] for one in found] == labels
    assert all(Path(one["file"]).is_file() for one in found) and Path(found[1]["file"]).parent.name == "probes"
    assert f"gamma covers {len(data.examples)} of {len(data.examples)} questions" in told.err
    assert run(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert [one["correct"] for one in again] == [one["correct"] for one in found]
