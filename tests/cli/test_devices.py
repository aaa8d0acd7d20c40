"""`infimed devices` and `infimed plan` as a person and as a program reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infimed.cli.app import run
from infimed.cli.devices import _figures
from infimed.devices.profiles import PROFILES

from ..devices.checkpoints import write_bundle, write_checkpoint


def test_the_list_names_every_device_and_marks_what_was_not_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "list"]) == 0
    said = capsys.readouterr().out
    assert all(row.name in said for row in PROFILES)
    assert "51*" in said and "not re-checked" in said


def test_the_list_is_json_where_a_machine_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [row.name for row in PROFILES]
    assert rows[0]["memory_bytes"] == 4 * 10**9


def test_one_device_is_shown_and_an_unknown_one_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "show", "agx-orin-64gb"]) == 0
    assert "204.8" in capsys.readouterr().out
    assert run(["devices", "show", "agx-orin-46gb"]) == 2
    assert "near it: agx-orin-64gb" in capsys.readouterr().err


def test_a_plan_says_what_fits_and_the_best_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(write_checkpoint(tmp_path / "c")), "--device", "orin-nano-8gb"]) == 0
    said = capsys.readouterr().out
    assert "best: gguf-f16 (llama.cpp, 3 layers on the GPU)" in said
    assert "images up to 112 x 112 pixels" in said and "no rate for onnxruntime" in said


def test_a_plan_of_a_bundle_holds_only_its_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(write_bundle(tmp_path / "b")), "--device", "raspberry-pi-5-4gb", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [level["level"] for level in told["levels"]] == ["gguf-q4_k_m", "onnx-int4"]
    assert told["best"] == "onnx-int4" and told["advice"] == ""
    level = told["levels"][0]
    assert level["exact"] and level["memory"]["weights_bytes"] == 1000 and level["fits"]


def test_where_nothing_fits_the_exit_code_is_1_and_the_advice_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_checkpoint(tmp_path / "c", max_tokens=10**9))
    assert run(["plan", folder, "--device", "orin-nano-4gb", "--context", "99999999"]) == 1
    assert "no level fits orin-nano-4gb" in capsys.readouterr().out
    assert run(["plan", folder, "--device", "orin-nano-8gb", "--min-rate", "1e12"]) == 1
    assert "none is predicted to decode as fast" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "orin-nano"], "device 'orin-nano' is not in the table"),
        (["--device", "orin-nano-8gb", "--context", "0"], "0 context tokens"),
        (["--device", "orin-nano-8gb", "--min-rate", "nan"], "a rate of nan tokens per second is none"),
        (["--device", "orin-nano-8gb", "--image-side", "-3"], "-9 image pixels"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(["plan", str(write_checkpoint(tmp_path / "c")), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and says in said and said.count("\n") == 1


def test_a_context_beyond_the_models_is_planned_at_the_models_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", str(write_checkpoint(tmp_path / "c")), "--device", "orin-nano-8gb", "--context", "9" * 400]
    assert run(arguments) == 0
    assert "32,768 context tokens (the model takes no more)" in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["context_tokens"] == told["max_context_tokens"] == 32768


def test_a_folder_that_is_neither_checkpoint_nor_bundle_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(tmp_path), "--device", "orin-nano-8gb"]) == 2
    assert "neither a checkpoint" in capsys.readouterr().err


def test_the_documented_table_is_the_real_one() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "devices.md").read_text("utf-8")
    for row in PROFILES:
        assert f"| `{row.name}` | {' | '.join(_figures(row).values())} |" in text
