"""Folders for temporary files: removed at the end, and those of killed processes by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infimed.runtime.scratch import scratch

HOLD = """
import sys
from pathlib import Path
from infimed.runtime.scratch import scratch
with scratch("test", Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"weights")
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(where: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(where)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_after_its_block_and_after_an_error(tmp_path: Path) -> None:
    with scratch("test", tmp_path) as folder:
        (folder / "file").write_bytes(b"1")
    with pytest.raises(ValueError, match="own"), scratch("test", tmp_path):
        raise ValueError("own")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    dead, left = holder(tmp_path)
    alive, held = holder(tmp_path)
    try:
        dead.send_signal(signal.SIGKILL)
        dead.communicate()
        assert left.is_dir() and held.is_dir()
        with scratch("test", tmp_path) as own:
            assert sorted(tmp_path.iterdir()) == sorted((held, own))
            assert (held / "half").read_bytes() == b"weights"
    finally:
        alive.communicate()
    assert alive.returncode == 0 and list(tmp_path.iterdir()) == []


def test_what_others_keep_is_left_alone(tmp_path: Path) -> None:
    """A file, a link, and a folder for another purpose."""
    (tmp_path / "infimed-test-file").write_bytes(b"1")
    (tmp_path / "kept").mkdir()
    (tmp_path / "infimed-test-link").symlink_to(tmp_path / "kept")
    (tmp_path / "infimed-other-x").mkdir()
    before = sorted(tmp_path.iterdir())
    with scratch("test", tmp_path):
        pass
    assert sorted(tmp_path.iterdir()) == before


def test_the_system_s_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch("test") as folder:
        assert folder.parent == tmp_path and os.access(folder, os.W_OK)
