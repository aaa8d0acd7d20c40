"""Sketches of weights: 64 numbers by which an exported tensor is held against the checkpoint's without having it.

A sketch is u_k^T W v_k for fixed random signs u_k and v_k, beside W's norm. The mean square of the differences between
two sketches is an unbiased estimate of ||A - B||^2 (Frobenius), good to 18 % of that square at 64 pairs: quantisation
moves it by its own error, a transposed, swapped or zeroed tensor by the whole norm. Knows no file and no format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PAIRS = 64
"""How many sketches are kept of a tensor."""
SLACK = 1.5
"""An estimate lies above the true error by more than this with probability below 1e-8 (chi-squared, 64 degrees)."""
WORK_WEIGHTS = 1 << 21
"""How many weights are multiplied at a time, in float64."""


def sketch(blocks: Iterable[NDArray[np.float32]], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return (1 + PAIRS,) float64: the norm of a tensor, then its sketches.

    blocks: its rows in their order, some at a time; (rows,) of a vector, else (rows, ...) and taken as a matrix.
    Raises ValueError where they are not `shape` together.
    """
    columns = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    left, right = _signs("rows", shape[0]), _signs("columns", columns)
    sums, square, row = np.zeros((PAIRS, columns)), 0.0, 0
    for block in blocks:
        matrix = np.asarray(block).reshape(len(block), -1)
        if matrix.shape[1] != columns:
            raise ValueError(f"rows of {matrix.shape[1]} values in place of {columns}")
        step = max(1, WORK_WEIGHTS // columns)
        for start in range(0, len(matrix), step):
            wide = matrix[start : start + step].astype(np.float64)
            sums += left[:, row : row + len(wide)].astype(np.float64) @ wide
            square += float(np.einsum("ij,ij->", wide, wide))
            row += len(wide)
    if row != shape[0]:
        raise ValueError(f"{row} rows in place of {shape[0]}")
    return np.concatenate([[square**0.5], (sums * right).sum(axis=1)])


def relative_error(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the estimate of ||W - V|| / ||W|| from the sketches of W and of V; of a W of zeros 0 or infinity."""
    apart = float(np.sqrt(np.mean((reference[1:] - other[1:]) ** 2)))
    norm = float(reference[0])
    if norm == 0.0:
        return 0.0 if float(other[0]) == 0.0 else float("inf")
    return apart / norm


@lru_cache(maxsize=8)
def _signs(axis: str, count: int) -> NDArray[np.int8]:
    """Return (PAIRS, count) of -1 and 1, from SHAKE-256 of the axis: the same on every machine and in every release."""
    raw = hashlib.shake_256(f"infimed sketch of {axis}".encode()).digest(-(-PAIRS * count // 8))
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=PAIRS * count)
    # Column by column, so that a tensor of more rows begins with the same signs.
    return (bits.reshape(count, PAIRS).T.astype(np.int8) * 2 - 1).astype(np.int8)
