"""A folder appears under its name whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infimed.runtime import publish
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


HOLDER = (
    "import sys\nfrom pathlib import Path\nfrom infimed.runtime.publish import publishing\n"
    "with publishing(Path(sys.argv[1]), keep=sys.argv[2] == 'keep') as work:\n"
    "    (work / 'hours').write_text('of work')\n    print('holding', flush=True)\n    sys.stdin.read()\n"
    "    (work / 'more').write_text('at the end')\n"
)


@pytest.mark.parametrize("kept", ["keep", "fresh"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_rival_touches_nothing_of_what_the_holder_makes(tmp_path: Path, kept: str, keep: bool) -> None:
    out = tmp_path / "new" / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out), kept], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "holding\n"
    for _ in range(2):
        with pytest.raises(PublishError, match="being made by another process"), publishing(out, keep=keep):
            raise AssertionError("the block must not be entered")
        assert (tmp_path / "new/.out.partial/hours").read_text() == "of work"
    holder.communicate()
    assert holder.returncode == 0
    assert sorted(path.name for path in out.iterdir()) == ["hours", "more"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_link_and_a_mount_point_are_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "mounted")
    for name, says in {"link": "is a link", "mounted": "is a mount point"}.items():
        with pytest.raises(PublishError, match=says), publishing(tmp_path / name):
            raise AssertionError("the block must not be entered")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mounted", "real"]


def test_a_link_in_the_place_of_the_work_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis").write_text("mine")
    for target in ("precious", "nowhere"):
        (tmp_path / ".out.partial").symlink_to(tmp_path / target)
        with pytest.raises(PublishError, match=r"\.out\.partial is a link"), publishing(tmp_path / "out"):
            raise AssertionError("the block must not be entered")
        (tmp_path / ".out.partial").unlink()
    assert (tmp_path / "precious/thesis").read_text() == "mine"


def test_a_folder_renamed_before_it_could_be_locked_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening and our lock one maker finishes; the lock then holds what bears another name."""
    real, work = fcntl.flock, tmp_path / ".out.partial"

    def finished_first(handle: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        work.rename(tmp_path / "done")
        (tmp_path / "done/file").write_text("theirs")
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", finished_first)
    with publishing(tmp_path / "out") as given:
        assert os.path.samestat(given.stat(), work.stat())
        (given / "file").write_text("ours")
    assert (tmp_path / "done/file").read_text() == "theirs" and (tmp_path / "out/file").read_text() == "ours"


def test_what_is_finished_is_kept_where_its_name_was_taken_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"all of it lies in .*\.out\.partial"), publishing(tmp_path / "out") as work:
        (work / "file").write_text("hours of work")
        (tmp_path / "out").mkdir()
        (tmp_path / "out/other").write_text("theirs")
    assert (work / "file").exists() and (tmp_path / "out/other").exists()


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_a_disk_that_takes_no_more_is_one_clear_error_and_leaves_no_parents(tmp_path: Path, kind: int) -> None:
    with pytest.raises(PublishError, match="cannot be finished"), publishing(tmp_path / "a/b/out") as work:
        (work / "half").write_text("x")
        raise OSError(kind, os.strerror(kind))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_parents_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyError), publishing(tmp_path / "a/b/out"):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and list((tmp_path / "a").iterdir()) == []


def test_a_place_where_no_folder_can_be_made_is_refused() -> None:
    with pytest.raises(PublishError, match="cannot be made"), publishing(Path("/proc/infimed/out")):
        raise AssertionError("the block must not be entered")


def test_a_folder_is_replaced_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("x")
    with pytest.raises(KeyboardInterrupt), publishing(tmp_path / "out", replace=True):
        raise KeyboardInterrupt
    assert (tmp_path / "out/old").read_text() == "x" and len(list(tmp_path.iterdir())) == 1
    for libraries in ("Linux", "none"):
        if libraries == "none":  # a system that cannot exchange two names at once
            monkeypatch.setattr(publish.ctypes, "CDLL", lambda *_, **__: object())
        with publishing(tmp_path / "out", replace=True) as work:
            (work / libraries).write_text("y")
            assert not (tmp_path / "out" / libraries).exists()
        assert [path.name for path in (tmp_path / "out").iterdir()] == [libraries]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(PublishError, match="is a link"), publishing(tmp_path / "link", replace=True):
        raise AssertionError("the block must not be entered")
