"""What the demo prints where; its steps are tested in the rooms that do them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from infimed.cli import demo_steps
from infimed.cli.app import run


class Told:
    """A chain of one step that does nothing."""

    def __init__(self, out: Path, *_: Any) -> None:
        self.steps = (("Data", self.step),)
        self.checks = [demo_steps.check("it learned", True, "90 % after")]
        self.report_page, self.bundle = out / "drift.html", out / "bundle"

    def step(self) -> Iterator[str]:
        yield "12 images"


def test_with_json_stdout_holds_the_checks_alone(tmp_path: Path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(demo_steps, "Chain", Told)
    assert run(["demo", "--out", str(tmp_path / "demo"), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == [{"what": "it learned", "verdict": "held", "told": "90 % after"}]
    assert "12 images" in told.err and "report " in told.err
    assert run(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert "12 images" in capsys.readouterr().out
