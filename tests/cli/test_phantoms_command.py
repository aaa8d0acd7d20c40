"""`infimed data phantoms`: a dataset with roles, and one clear line for what cannot be made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infimed.cli.app import run
from infimed.cli.data import app
from infimed.evaluation.phantom_images import PhantomError


def test_phantoms_become_a_dataset_with_roles(tmp_path: Path) -> None:
    arguments = ["phantoms", "--out", str(tmp_path / "d"), "--images", "8", "--seed", "3", "--modality", "ct", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["counts"]["images"] == 8 and set(told["counts"]["modality"]) == {"ct"}
    assert set(told["counts"]["role"]) == {"train", "test"}
    assert (tmp_path / "d" / "manifest.json").is_file()


def test_an_unknown_modality_is_refused_with_the_list(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["phantoms", "--out", str(tmp_path / "d"), "--modality", "pet"])
    assert isinstance(result.exception, PhantomError) and "histopathology" in str(result.exception)
    assert not (tmp_path / "d").exists()


def test_what_would_be_no_dataset_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, says in (
        (["--images", "1", "--task", "laterality", "--seed", "0"], "bring no question of laterality"),
        (["--images", "4", "--modality", "ct", "--modality", "ct"], "modality ct is named twice"),
    ):
        assert run(["data", "phantoms", "--out", str(tmp_path / "d"), *arguments]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1 and says in told
    assert not list(tmp_path.iterdir())
