"""The files beside an ONNX graph that hold its numbers: written tensor by tensor, in pieces below 2 GB.

Knows bytes and offsets; what is in a tensor is for onnx_weights.py to know.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 2_000_000_000
"""No data file grows beyond this (some file systems and tools stop at 2^31), but for a single larger tensor."""
PAGE_BYTES = 4096
"""A tensor of several pages starts on a page of its own, so that the engine can map it; smaller ones lie closer."""


class DataFiles:
    """The files that hold a graph's numbers: written beside their names, and renamed when all of them are whole.

    written_bytes: of the tensors that were begun so far.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._names: list[str] = []
        self._stream: BinaryIO | None = None
        self._end = 0
        self.written_bytes = 0

    def begin(self, size_bytes: int) -> tuple[str, int]:
        """Return the file and the offset at which the next `size_bytes` written will lie."""
        align = PAGE_BYTES if size_bytes >= 16 * PAGE_BYTES else 64
        offset = -(-self._end // align) * align
        if self._stream is None or (offset and offset + size_bytes > PIECE_BYTES):
            self._finish()
            self._names.append(f"{self._stem}-{len(self._names)}.data")
            self._stream = self._draft(self._names[-1]).open("wb")
            offset = self._end = 0
        self._stream.write(bytes(offset - self._end))
        self._end = offset + size_bytes
        self.written_bytes += size_bytes
        return self._names[-1], offset

    def write(self, piece: NDArray[Any]) -> None:
        """Write the next numbers of the tensor that was begun."""
        assert self._stream is not None
        self._stream.write(np.ascontiguousarray(piece).data)

    def close(self) -> tuple[str, ...]:
        """Give the files their names, and return them."""
        self._finish()
        for name in self._names:
            os.replace(self._draft(name), self._folder / name)
        return tuple(self._names)

    def discard(self) -> None:
        """Remove what was written."""
        if self._stream is not None:
            self._stream.close()
        for name in self._names:
            self._draft(name).unlink(missing_ok=True)

    def _draft(self, name: str) -> Path:
        return self._folder / f".{name}.part"

    def _finish(self) -> None:
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream = None
