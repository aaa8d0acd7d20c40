"""A folder appears under its name whole, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infimed.runtime.publish import PublishError, publishing


def test_the_name_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    with publishing(tmp_path / "out") as work:
        (work / "file").write_text("whole")
        assert not (tmp_path / "out").exists() and work.parent == tmp_path
    assert (tmp_path / "out/file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_nothing_or_what_a_resuming_job_needs(tmp_path: Path) -> None:
    for keep in (False, True):
        with pytest.raises(KeyboardInterrupt), publishing(tmp_path / "out", keep=keep) as work:
            (work / "half").write_text("x")
            raise KeyboardInterrupt
        assert not (tmp_path / "out").exists() and work.exists() is keep
    with publishing(tmp_path / "out", keep=True) as work:
        assert (work / "half").read_text() == "x"


def test_what_a_killed_job_left_does_not_enter_the_next_one(tmp_path: Path) -> None:
    (tmp_path / ".out.partial/deep").mkdir(parents=True)
    (tmp_path / ".out.partial/deep/old").write_text("x")
    with publishing(tmp_path / "out") as work:
        assert list(work.iterdir()) == []


def test_a_name_that_is_taken_is_refused_and_an_empty_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with publishing(tmp_path / "empty") as work:
        (work / "file").write_text("x")
    (tmp_path / "plain").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "plain", "dangling"):
        with pytest.raises(PublishError, match="exists already"), publishing(tmp_path / name):
            raise AssertionError("the block must not be entered")
    assert (tmp_path / "plain").read_text() == "mine"
    with pytest.raises(PublishError, match="cannot be made"), publishing(tmp_path / "plain/below"):
        raise AssertionError("the block must not be entered")


def test_two_processes_cannot_make_one_folder_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom infimed.runtime.publish import publishing\n"
        "with publishing(Path(sys.argv[1]), keep=True) as work:\n"
        "    print('holding', flush=True)\n    sys.stdin.read()\n    os._exit(9)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "holding\n"
    with pytest.raises(PublishError, match="being made by another process"), publishing(tmp_path / "out"):
        raise AssertionError("the block must not be entered")
    other.communicate()
    with publishing(tmp_path / "out") as work:
        (work / "file").write_text("x")
    assert (tmp_path / "out/file").exists()
