"""A folder appears under its name whole, or not at all: it is filled beside its place and renamed.

Knows nothing of what is in the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .. import InfimedError
from .files import disk_trouble

_TRIES = 100
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h


class PublishError(InfimedError):
    """A folder that cannot be made: its name is taken, or another process is making it."""


def refuse_taken(out: Path) -> None:
    """Raise PublishError where `out` exists already and is not an empty folder that a rename can replace."""
    refuse_immovable(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise PublishError(f"{out} exists already; name a new folder or remove it first")


def refuse_immovable(out: Path) -> None:
    """Raise PublishError where `out` is what no folder can take the name of: a link or a mount point."""
    if out.is_symlink():
        raise PublishError(f"{out} exists already and is a link; name a new folder or remove the link first")
    if os.path.ismount(out):
        raise PublishError(f"{out} exists already and is a mount point; name a new folder inside it")


@contextlib.contextmanager
def publishing(out: Path, *, keep: bool = False, replace: bool = False) -> Iterator[Path]:
    """Yield a work folder beside `out`, renamed to `out` when the block ends without an error.

    The work folder is `.NAME.partial`, held by a lock that dies with its process: a second maker is refused and
    touches nothing. With `keep` what an earlier, broken run left in it is kept (a job that resumes), and an error
    leaves it there; otherwise it starts and ends empty. With `replace` a folder that is `out` already makes place for
    the work folder when that is whole, and is removed. Parent folders made here do not outlive a failure.
    """
    out = Path(os.path.abspath(out))
    refuse_immovable(out) if replace else refuse_taken(out)
    work = out.parent / f".{out.name}.partial"
    missing_parents = [folder for folder in work.parents if not folder.exists()]
    try:
        lock = _hold(work, out)
        try:
            yield from _filled(work, out, keep, replace)
            if replace and out.exists():
                exchange(work, out)
                shutil.rmtree(work)
            else:
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


def _filled(work: Path, out: Path, keep: bool, replace: bool) -> Iterator[Path]:
    """Yield the held work folder to be filled; take it away on an error, or only if it is empty where it is kept."""
    try:
        if not replace:
            refuse_taken(out)  # its last maker may have finished between our first look and our lock
        if not keep:
            empty(work)
        yield work
        sync(work)
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


def exchange(one: Path, other: Path) -> None:
    """Let two folders change their names, at once where the system can (Linux), so that neither name is ever free."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    places = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if rename is not None and rename(*places) == 0:
        return
    code = ctypes.get_errno() if rename is not None else errno.ENOSYS
    if code not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(code, os.strerror(code), str(other))
    aside = other.with_name(f".{other.name}.{os.getpid()}.old")  # a file system that knows no exchange
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def empty(folder: Path) -> None:
    """Remove everything in a folder, links without following them."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def sync(folder: Path) -> None:
    """Flush a folder and every file in it to the disk."""
    for path in [*(entry for entry in folder.rglob("*") if entry.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
