"""A folder appears under its name whole, or not at all: it is filled beside its place and renamed.

Knows nothing of what is in the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .. import InfimedError
from .files import disk_trouble

_TRIES = 100


class PublishError(InfimedError):
    """A folder that cannot be made: its name is taken, or another process is making it."""


def refuse_taken(out: Path) -> None:
    """Raise PublishError where `out` exists already and is not an empty folder that a rename can replace."""
    if out.is_symlink():
        raise PublishError(f"{out} exists already and is a link; name a new folder or remove the link first")
    if os.path.ismount(out):
        raise PublishError(f"{out} exists already and is a mount point; name a new folder inside it")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise PublishError(f"{out} exists already; name a new folder or remove it first")


@contextlib.contextmanager
def publishing(out: Path, *, keep: bool = False) -> Iterator[Path]:
    """Yield a work folder beside `out`, renamed to `out` when the block ends without an error.

    The work folder is `.NAME.partial`, held by a lock that dies with its process: a second maker is refused and
    touches nothing. With `keep` what an earlier, broken run left in it is kept (a job that resumes), and an error
    leaves it there; otherwise it starts and ends empty. Parent folders made here do not outlive a failure.
    """
    out = Path(os.path.abspath(out))
    refuse_taken(out)
    work = out.parent / f".{out.name}.partial"
    missing_parents = [folder for folder in work.parents if not folder.exists()]
    try:
        lock = _hold(work, out)
        try:
            yield from _filled(work, out, keep)
            _rename(work, out)
        finally:
            os.close(lock)
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in missing_parents:
                folder.rmdir()
        raise


def _hold(work: Path, out: Path) -> int:
    """Make the work folder, lock it and return the lock. Raises PublishError, with what others made left alone."""
    for _ in range(_TRIES):
        lock = -1
        try:
            work.mkdir(parents=True, exist_ok=True)
            lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.lstat(work)):
                return lock
            os.close(lock)  # renamed by its maker between our opening and our lock: it bears another name now
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            if isinstance(error, FileNotFoundError):
                continue  # taken away by its maker in this moment
            if isinstance(error, BlockingIOError):
                raise PublishError(f"{out} is being made by another process; wait for it or name another") from error
            if work.is_symlink():
                raise PublishError(f"{out} cannot be made: {work} is a link; remove it or name another") from error
            raise PublishError(f"{out} cannot be made ({error.strerror}); name another folder") from error
    raise PublishError(f"{out} cannot be made: no folder can be kept beside it; name another")


def _filled(work: Path, out: Path, keep: bool) -> Iterator[Path]:
    """Yield the held work folder to be filled; take it away on an error, or only if it is empty where it is kept."""
    try:
        refuse_taken(out)  # its last maker may have finished between our first look and our lock
        if not keep:
            _empty(work)
        yield work
        _sync(work)
    except BaseException as error:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):
            work.rmdir()
        if trouble := disk_trouble(error):
            what, remedy = trouble
            raise PublishError(f"{out} cannot be finished: {what}; {remedy} and give the command again") from error
        raise


def _rename(work: Path, out: Path) -> None:
    """Give the work folder its name, in place of an empty folder too; what is finished is never thrown away."""
    try:
        os.rename(work, out)
    except OSError as error:
        told = f"{out} cannot be given its name ({error.strerror}); all of it lies in {work}: rename that"
        raise PublishError(told) from error


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
