"""The seeded draw by which curation orders groups and rows where nothing else does. Knows names, no rows."""

from __future__ import annotations

import hashlib


def drawn(seed: int, mark: str, name: str) -> str:
    """Return what `name` is sorted by. mark: one sign for each draw, so that roles and budget draw independently."""
    return hashlib.sha256(f"{seed}{mark}{name}".encode()).hexdigest()
