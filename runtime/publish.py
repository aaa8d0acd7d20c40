"""A folder appears under its name whole, or not at all: it is filled beside its place and renamed.

Knows nothing of what is in the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .. import InfimedError


class PublishError(InfimedError):
    """A folder that cannot be made: its name is taken, or another process is making it."""


def refuse_taken(out: Path) -> None:
    """Raise PublishError where `out` exists already and is not an empty folder."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise PublishError(f"{out} exists already; name a new folder or remove it first")


@contextlib.contextmanager
def publishing(out: Path, *, keep: bool = False) -> Iterator[Path]:
    """Yield a work folder beside `out`, renamed to `out` when the block ends without an error.

    The work folder is `.NAME.partial`, held by a lock that dies with its process; with `keep` what an earlier, broken
    run left in it is kept (a job that resumes), and an error leaves it there; otherwise it starts and ends empty.
    """
    out = Path(os.path.abspath(out))
    refuse_taken(out)
    work = out.parent / f".{out.name}.partial"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise PublishError(f"{out} cannot be made ({error.strerror}); name another folder") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PublishError(f"{out} is being made by another process; wait for it or name another") from error
        if not keep:
            _empty(work)
        yield work
        _sync(work)
        if out.is_dir():
            out.rmdir()
        os.rename(work, out)
    except OSError as error:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise PublishError(f"{out} cannot be finished ({error.strerror}); free the disk or name another") from error
    except BaseException:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync(folder: Path) -> None:
    for path in [*(entry for entry in folder.rglob("*") if entry.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
