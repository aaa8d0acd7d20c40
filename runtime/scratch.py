"""Folders for temporary files, which a killed process leaves to the next one of its kind to remove.

Each is held by a lock that dies with its process; a dequantised model of 3 billion weights is too large to lie there
until the machine starts again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch(purpose: str, where: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder `infimed-PURPOSE-...` in `where`, removed at the end with all that it holds.

    where: the system's folder for temporary files by default. Those that dead processes of this user left there for
    the same purpose are removed first. Raises OSError where no folder can be made.
    """
    place = Path(tempfile.gettempdir() if where is None else where)
    prefix = f"infimed-{purpose}-"
    for left in place.glob(f"{prefix}*"):
        _remove_dead(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        lock = _lock(folder)
        if lock is not None:
            break  # else another process took it for a dead one's, between its making and its lock
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return the lock of a folder, None where another process has it, it is gone or it is not this user's own."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        own = os.fstat(handle)
        if own.st_uid == os.getuid() and os.path.samestat(own, os.lstat(folder)):
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _remove_dead(folder: Path) -> None:
    lock = _lock(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
