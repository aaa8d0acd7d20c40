"""Writes files so that a half-written one never bears its final name, and hashes them. Knows no format."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DISK_TROUBLES = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("this user's share of the disk is used up", "free some space"),
    errno.EFBIG: ("a file would be larger than this process may write", "raise the limit (ulimit -f)"),
    errno.EIO: ("the disk fails (input/output error)", "name a folder on another"),
    errno.EROFS: ("the disk is read-only", "name a folder on another"),
}


def disk_trouble(error: BaseException) -> tuple[str, str] | None:
    """Return what happened and what to do where an error says that a disk takes no more; None for another error."""
    number = error.errno if isinstance(error, OSError) else None
    return _DISK_TROUBLES.get(number) if number is not None else None


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys, two spaces and a final newline: same value, same bytes. Refuses NaN."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def strict_json(data: bytes) -> Any:
    """Return the value of UTF-8 JSON. Raises ValueError for a key given twice, NaN and Infinity, too."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) != len(pairs):
            raise ValueError("a key is given twice")
        return found

    def no_number(text: str) -> None:
        raise ValueError(f"{text} is no number")

    return json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=no_number)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside its final name, flush it to the disk, then rename."""
    with writing(path) as draft:
        draft.write_bytes(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a draft's path; when the block ends well it becomes `path`, otherwise it is removed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        _flush(draft)
        os.replace(draft, path)
    except OSError as error:
        if str(error.filename) == str(draft):
            error.filename = str(path)  # the name that was asked for, not one that nobody knows
        raise
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, waiting for it; it dies with its process."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from None
        yield
    finally:
        os.close(handle)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
