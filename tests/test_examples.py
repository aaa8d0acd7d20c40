"""The examples of docs/examples do what their texts say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
from infimed.cli.app import run

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_loss_hidden_in_one_modality_passes_by_the_ratio_and_fails_here(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    example = load("hidden_loss")
    example.main(["--out", str(tmp_path)])
    told = capsys.readouterr().out
    (shown,) = re.findall(r"```\n(.*?)```", (EXAMPLES / "hidden_loss.md").read_text("utf-8"), re.S)
    assert told == f"{shown}report: {tmp_path / 'report' / 'drift.html'}\n"
    before, after = example.outcomes()
    lost = (before & ~after).reshape(len(example.MODALITIES), -1).sum(1)
    gained = (after & ~before).reshape(len(example.MODALITIES), -1).sum(1)
    place = example.MODALITIES.index(example.LOST_IN)
    assert (lost[place] - gained[place]) / example.QUESTIONS == 0.15 and len(example.MODALITIES) == 10
    assert (lost == gained).sum() == 9
    assert after.sum() / before.sum() >= example.RATIO


def test_the_commands_of_the_text_judge_the_same(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    example = load("hidden_loss")
    example.QUESTIONS = 120
    example.judge(tmp_path)
    assert run(["drift", str(tmp_path / "runs"), "--reference", "gguf-f16", "--out", str(tmp_path / "again")]) == 1
    assert run(["drift", str(tmp_path / "runs"), "--recompute", str(tmp_path / "report")]) == 0
    assert "the same bytes" in capsys.readouterr().out
