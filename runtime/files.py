"""Writes files so that a half-written one never bears its final name, and hashes them. Knows no format."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
    finally:
        draft.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
