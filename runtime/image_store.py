"""Keeps what a vision tower makes of images in a folder, so that levels which share the tower encode an image once.

The levels are opened one after the other, as two large ones do not fit a small machine together: the first writes, the
others read. One file per image, an NPZ whose CRC-32 tells a torn one, which counts as absent. Knows no engine.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .files import writing

STORE_FOLDER = ".images"
STORE_BYTES = 4 * 2**30
"""What a store may take of the disk, and never more than half of what is free when it is opened."""


class ImageStore:
    """The embeddings of one tower's images, by the image's key (PreparedImage.key).

    A full store takes no more and keeps what it has: levels ask for images in one order, so what was put away first is
    what every level finds again; the least recently used would always be the next one needed. What cannot be written or
    read is encoded again: a store only ever saves time.
    """

    def __init__(self, folder: Path, limit_bytes: int = STORE_BYTES, *, keeps: bool = True) -> None:
        """Open a tower's store. keeps: whether anything is put away; not by the last level that reads it."""
        self._folder = folder
        self._keeps = keeps
        self._room = 0
        if keeps:
            folder.mkdir(parents=True, exist_ok=True)
            held = sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".npz")
            self._room = min(limit_bytes, held + shutil.disk_usage(folder).free // 2) - held

    def get(self, key: str) -> NDArray[np.float32] | None:
        """Return an image's embeddings, (image tokens, hidden), to the last bit; None where they are absent or torn."""
        try:
            with np.load(self._folder / f"{key}.npz", allow_pickle=False) as held:
                found = held["embeddings"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return found if found.dtype == np.float32 and found.ndim == 2 else None

    def put(self, key: str, embeddings: NDArray[np.float32]) -> None:
        """Keep an image's embeddings, (image tokens, hidden), while there is room."""
        if not self._keeps or embeddings.nbytes > self._room:
            return
        self._room -= embeddings.nbytes
        try:
            with writing(self._folder / f"{key}.npz") as draft, draft.open("wb") as stream:
                np.savez(stream, embeddings=embeddings)
        except OSError:
            self._keeps = False  # a full disk, or a folder that another process removed at its end


class SharedImages:
    """The stores of one evaluation: one for each vision tower that several of its levels have.

    Use as a context: the folder is removed when the block ends well. After a kill or an error it stays, and the same
    command goes on with it.
    """

    def __init__(self, runs: Path, towers: Sequence[str], limit_bytes: int = STORE_BYTES) -> None:
        """towers: what each level's tower is known by, in the order of asking; empty where it is shared with none."""
        self._folder = runs / STORE_FOLDER
        self._towers = tuple(towers)
        self._limit_bytes = limit_bytes

    def __enter__(self) -> SharedImages:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, level: int) -> ImageStore | None:
        """Return the store for the level at this place of the order; None where no other level has its tower."""
        tower = self._towers[level]
        if not tower or self._towers.count(tower) == 1:
            return None
        stores = len({one for one in self._towers if one and self._towers.count(one) > 1})
        keeps = tower in self._towers[level + 1 :]
        return ImageStore(self._folder / tower, self._limit_bytes // stores, keeps=keeps)
