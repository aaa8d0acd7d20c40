"""Totals: what calibration has seen so far, added row by row in a fixed order, and kept so that a killed pass goes on.

Sums are float64 throughout and saved as such: a pass that was broken off and taken up again ends with the bytes of an
unbroken one. Knows no model and no dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtime.files import write_bytes

_DIGEST_BYTES = 32


@dataclass(frozen=True, eq=False)
class Seen:
    """The inputs of one weight. squares: (in,), float64, sum of x^2. largest: (in,), float32, |x|. tokens: how many."""

    squares: NDArray[np.float64]
    largest: NDArray[np.float32]
    tokens: int

    @staticmethod
    def of(inputs: NDArray[np.float32]) -> Seen:
        """Return what is seen of inputs (tokens, in)."""
        wide = inputs.astype(np.float64)
        return Seen(np.square(wide).sum(axis=0), np.abs(inputs).max(axis=0), len(inputs))

    def __add__(self, other: Seen) -> Seen:
        largest = np.maximum(self.largest, other.largest)
        return Seen(self.squares + other.squares, largest, self.tokens + other.tokens)


def joined(parts: list[Mapping[str, Seen]]) -> dict[str, Seen]:
    """Return what several passes saw together, in their order."""
    found: dict[str, Seen] = {}
    for part in parts:
        for name, seen in part.items():
            found[name] = found[name] + seen if name in found else seen
    return found


class Totals:
    """The weighted sums over rows. rows: how many were added."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._weights: dict[str, float] = {}
        self._largest: dict[str, NDArray[np.float32]] = {}
        self._tokens: dict[str, int] = {}

    def add(self, row: Mapping[str, Seen], weight: float) -> None:
        """Add one row: the mean of x^2 over its tokens, times `weight`, for every weight that it reached."""
        for name, seen in row.items():
            mean = weight * (seen.squares / seen.tokens)
            if name in self._sums:
                self._sums[name] = self._sums[name] + mean
                self._weights[name] += weight
                self._largest[name] = np.maximum(self._largest[name], seen.largest)
                self._tokens[name] += seen.tokens
            else:
                self._sums[name], self._weights[name] = mean, weight
                self._largest[name], self._tokens[name] = seen.largest, seen.tokens
        self.rows += 1

    def mean_square(self) -> dict[str, NDArray[np.float32]]:
        """Return the weighted mean of x^2 by name, over the rows that reached the weight: (in,) each."""
        return {name: (self._sums[name] / self._weights[name]).astype(np.float32) for name in sorted(self._sums)}

    def largest(self) -> dict[str, NDArray[np.float32]]:
        """Return the largest |x| by name: (in,) each."""
        return {name: self._largest[name] for name in sorted(self._largest)}

    def tokens(self) -> dict[str, int]:
        """Return the tokens seen by name."""
        return {name: self._tokens[name] for name in sorted(self._tokens)}

    def save(self, path: Path) -> None:
        """Write the totals, whole or not at all."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[np.generic]] = {"rows": np.array([self.rows], np.int64)}
        for name in self._sums:
            tensors[f"{name}.sum"] = self._sums[name]
            tensors[f"{name}.weight"] = np.array([self._weights[name]], np.float64)
            tensors[f"{name}.largest"] = self._largest[name]
            tensors[f"{name}.tokens"] = np.array([self._tokens[name]], np.int64)
        data = save(tensors)
        write_bytes(path, hashlib.sha256(data).digest() + data)

    @staticmethod
    def open(path: Path) -> Totals | None:
        """Return saved totals; None where there are none or where they are damaged."""
        from safetensors.numpy import load

        whole = path.read_bytes() if path.is_file() else b""
        digest, data = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
        if not data or hashlib.sha256(data).digest() != digest:
            return None
        tensors = load(data)
        totals = Totals()
        totals.rows = int(tensors.pop("rows")[0])
        for key, values in tensors.items():
            name, _, kind = key.rpartition(".")
            if kind == "sum":
                totals._sums[name] = values
            elif kind == "weight":
                totals._weights[name] = float(values[0])
            elif kind == "largest":
                totals._largest[name] = values
            else:
                totals._tokens[name] = int(values[0])
        return totals
