"""Zero points by half-quadratic quantisation (HQQ; Badri and Shaji, 2023): those that leave few large errors.

Scales stay those of each block's range; the zero points, float32 numbers, minimise the sum of |error|^0.7 by the
proximal iteration of the authors, as onnxruntime's HQQWeightOnlyQuantConfig has it. Equal to onnxruntime's within float
error. Knows no graph and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .quantise import WORK_WEIGHTS, BlockFormat, Blocks, cells_of, pack, refuse_infinite

NORM = 0.7
"""The error's power that is summed: below 1, so that a few large errors may stay."""
BETA, KAPPA = 10.0, 1.01
"""The penalty of the first step, and its growth from step to step."""
STEPS = 20
LARGEST_INVERSE = np.float32(2e4)
"""No scale is finer than the inverse of this."""

Fitted = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Inverse scales and zero points of a piece, (rows, blocks) float32 each."""
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def fit_hqq(pieces: Callable[[], Iterable[NDArray[np.float32]]], format: BlockFormat, each: Each = map) -> list[Fitted]:
    """Return inverse scales and zero points for each piece of a matrix.

    pieces: gives the matrix's rows anew, the same pieces every time; it is read once more than there are steps. The
    steps end for the whole matrix together, when its mean error no longer falls. each: map, or one with threads.
    Raises QuantiseError for NaN or infinity.
    """
    if not format.float_zeros:
        raise ValueError(f"HQQ's zero points are float32 numbers; those of {format.name} are not")
    top = np.float32((1 << format.bits) - 1)
    found = list(each(lambda rows: _begin(rows, format, top), pieces()))
    beta, best = BETA, 1e4
    for _ in range(STEPS):
        step = partial(_step, format, top, beta)
        moved = list(each(step, zip(pieces(), found, strict=True)))
        found = [(inverse, zero) for (inverse, _), (zero, _, _) in zip(found, moved, strict=True)]
        error = sum(part for _, part, _ in moved) / max(sum(count for _, _, count in moved), 1)
        beta *= KAPPA
        if error >= best:
            break
        best = error
    return found


def quantise_hqq(rows: NDArray[np.float32], fitted: Fitted, format: BlockFormat) -> Blocks:
    """Return the blocks of one piece (rows, columns) with the inverse scales and zero points that fit_hqq gave it."""
    inverse, zero = fitted
    top = np.float32((1 << format.bits) - 1)
    packed = np.empty((*inverse.shape, format.block * format.bits // 8), dtype=np.uint8)
    for part, cells in _parts(rows, format):
        packed[part] = pack(_integers(cells, inverse[part], zero[part], top).astype(np.uint8), format.bits)
    return Blocks(packed, np.float32(1) / inverse, zero)


def _parts(rows: NDArray[np.float32], format: BlockFormat) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    count, columns = rows.shape
    step = max(1, WORK_WEIGHTS // (format.blocks(columns) * format.block))
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        yield part, cells_of(rows[part], format)


def _begin(rows: NDArray[np.float32], format: BlockFormat, top: np.float32) -> Fitted:
    """Return the inverse scale and the zero point of each block's own range."""
    made: list[Sequence[NDArray[np.float32]]] = []
    for _, cells in _parts(rows, format):
        low, high = cells.min(axis=-1), cells.max(axis=-1)
        with np.errstate(over="ignore", invalid="ignore"):
            span = high - low
        refuse_infinite(span)
        with np.errstate(over="ignore"):
            # multiplied by the reciprocal, as the reference's library divides: a zero point may lie at a half
            inverse = np.minimum(np.float32(1) / np.where(span == 0, top, span) * top, LARGEST_INVERSE)
        made.append((inverse, np.rint(-low * inverse)))
    inverses, zeros = zip(*made, strict=True)
    return np.concatenate(inverses), np.concatenate(zeros)


def _step(
    format: BlockFormat, top: np.float32, beta: float, one: tuple[NDArray[np.float32], Fitted]
) -> tuple[NDArray[np.float32], float, int]:
    """Return a piece's next zero points, the sum of |error| before them, and of how many numbers."""
    rows, (inverse, zero) = one
    moved = np.empty_like(zero)
    total = 0.0
    for part, cells in _parts(rows, format):
        scale, offset = inverse[part][..., None], zero[part][..., None]
        integers = _integers(cells, inverse[part], zero[part], top)
        error = cells - (integers - offset) / scale
        size = np.abs(error)
        total += float(size.sum(dtype=np.float64))
        # what is taken for an outlier's error and left alone: the proximal operator of |x|^0.7, generalised shrinking
        kept = size - np.float32(1 / beta) * np.power(size + np.float32(1e-8), np.float32(NORM - 1))
        outlier = np.sign(error) * np.maximum(kept, np.float32(0))
        moved[part] = (integers - (cells - outlier) * scale).mean(axis=-1)
    return moved, total, zero.size * format.block


def _integers(
    cells: NDArray[np.float32], inverse: NDArray[np.float32], zero: NDArray[np.float32], top: np.float32
) -> NDArray[np.float32]:
    values = cells * inverse[..., None]
    values += zero[..., None]
    integers: NDArray[np.float32] = np.clip(np.rint(values, out=values), 0, top, out=values)
    return integers
