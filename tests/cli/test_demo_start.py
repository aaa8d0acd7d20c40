"""What the demo refuses before it draws or removes anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
from infimed.cli.app import run
from infimed.cli.demo import MARK


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    folder = tmp_path / "earlier"
    folder.mkdir()
    (folder / MARK).write_text("made by `infimed demo`")
    (folder / "report").write_text("kept")
    return folder


def test_a_link_to_an_earlier_demo_is_refused_in_one_line(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = earlier.with_name("link")
    link.symlink_to(earlier)
    assert run(["demo", "--out", str(link)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "is a link" in told
    assert (earlier / "report").read_text() == "kept"


@pytest.mark.parametrize("module", ["torch", "peft", "onnxscript", "scipy"])
def test_a_missing_library_is_told_before_the_earlier_demo_goes(
    earlier: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert run(["demo", "--out", str(earlier)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{module} is not installed" in told and "pip install '.[" in told
    assert (earlier / "report").read_text() == "kept"
