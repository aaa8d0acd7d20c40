"""The one layout of a quantised row: blocks of integers with a scale each, as onnxruntime's MatMulNBits reads them.

Quantises by round-to-nearest and dequantises again, in numpy, equal bit for bit to onnxruntime's own quantiser; other
ways to choose scales and zero points are in hqq.py and kquant.py. Export writes with it; what was written is read back
by parity, tests and benchmarks. Knows no graph and no file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError

BELOW_HALF = np.float32(np.nextafter(np.float32(0.5), np.float32(0)))
"""Adding this and cutting off is C's roundf for numbers that are not negative; adding 0.5 errs just below one half."""
WORK_WEIGHTS = 1 << 18
"""How many weights are turned at a time: the intermediate arrays of a step then stay in the processor's cache."""


class QuantiseError(InfimedError):
    """A row cannot be quantised."""


@dataclass(frozen=True)
class BlockFormat:
    """How a row is stored: `block` weights share one float32 scale and, unless symmetric, one zero point.

    bits: 4 or 8 per weight. A weight is (integer - zero point) * scale; the zero point of a symmetric block is the
    middle of the range. float_zeros: zero points are float32 numbers, not integers of `bits` bits.
    """

    bits: int
    block: int
    symmetric: bool
    float_zeros: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.block < 16 or self.block & (self.block - 1):
            raise ValueError(f"{self.bits} bits in blocks of {self.block}: 4 or 8 bits, a power of two from 16 on")
        if self.symmetric and self.float_zeros:
            raise ValueError("a symmetric block has no zero point that could be a float32 number")

    @property
    def name(self) -> str:
        """The format's name in manifests, such as int4-block32-asymmetric."""
        zeros = "symmetric" if self.symmetric else "float-zeros" if self.float_zeros else "asymmetric"
        return f"int{self.bits}-block{self.block}-{zeros}"

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight with scale and zero point, for rows of whole blocks."""
        zero_bits = 0 if self.symmetric else 32 if self.float_zeros else self.bits
        return self.bits + (32 + zero_bits) / self.block

    def blocks(self, columns: int) -> int:
        """How many blocks a row of `columns` weights takes; the last one is filled up with zeros."""
        return -(-columns // self.block)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Quantised rows.

    packed: (rows, blocks, block * bits / 8), uint8; of two 4-bit integers in a byte the first is the low one. scales:
    (rows, blocks), float32. zero_points: (rows, ceil(blocks * bits / 8)), uint8, packed alike; (rows, blocks), float32,
    where the format's are float32 numbers; None if symmetric.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8] | NDArray[np.float32] | None


def quantise(rows: NDArray[np.float32], format: BlockFormat) -> Blocks:
    """Quantise (rows, columns) float32 along the columns, each weight to the nearest of its block's even steps.

    Raises QuantiseError for NaN or infinity.
    """
    count, columns = rows.shape
    blocks = format.blocks(columns)
    packed = np.empty((count, blocks, format.block * format.bits // 8), dtype=np.uint8)
    scales = np.empty((count, blocks), dtype=np.float32)
    zero_points = None if format.symmetric else np.empty((count, -(-blocks * format.bits // 8)), dtype=np.uint8)
    step = max(1, WORK_WEIGHTS // (blocks * format.block))
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        cells = cells_of(rows[part], format)
        scale, zero = _scales(cells, format)
        refuse_infinite(scale)
        integers = _integers(cells, scale, zero, format)
        integers.reshape(len(integers), -1)[:, columns:] = 0
        scales[part] = scale
        packed[part] = pack(integers, format.bits)
        if zero_points is not None:
            zero_points[part] = pack(zero.astype(np.uint8), format.bits)
    return Blocks(packed, scales, zero_points)


def dequantise(blocks: Blocks, columns: int, format: BlockFormat) -> NDArray[np.float32]:
    """Return what the blocks stand for: (rows, columns), float32."""
    integers = unpack(blocks.packed, format.bits).astype(np.float32)
    if blocks.zero_points is None:
        integers -= np.float32(1 << (format.bits - 1))
    elif format.float_zeros:
        integers -= blocks.zero_points[..., None]
    else:
        zero = unpack(blocks.zero_points.astype(np.uint8, copy=False), format.bits)[:, : blocks.scales.shape[1]]
        integers -= zero[..., None].astype(np.float32)
    integers *= blocks.scales[..., None]
    return integers.reshape(len(integers), -1)[:, :columns]


def cells_of(rows: NDArray[np.float32], format: BlockFormat) -> NDArray[np.float32]:
    """Return (rows, blocks, block): a view where the rows fill whole blocks, else a copy filled up with zeros."""
    count, columns = rows.shape
    blocks = format.blocks(columns)
    if columns == blocks * format.block:
        return np.asarray(rows, dtype=np.float32).reshape(count, blocks, format.block)
    cells = np.zeros((count, blocks * format.block), dtype=np.float32)
    cells[:, :columns] = rows
    return cells.reshape(count, blocks, format.block)


def refuse_infinite(scale: NDArray[np.float32]) -> None:
    """Raise QuantiseError where a block has no finite scale."""
    if not np.isfinite(scale).all():
        raise QuantiseError("a row holds NaN, infinity or numbers too far apart; the weights are damaged")


def _scales(cells: NDArray[np.float32], format: BlockFormat) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and zero point of each block: (rows, blocks) each, float32.

    Symmetric: the number of largest magnitude becomes the lowest integer, whose magnitude is the larger one. Otherwise
    the range from the least to the greatest number, widened to hold zero, is divided evenly.
    """
    low, high = cells.min(axis=-1), cells.max(axis=-1)
    if format.symmetric:
        middle = np.float32(1 << (format.bits - 1))
        extreme = np.where(np.abs(high) > np.abs(low), high, low)
        return np.divide(-extreme, middle, dtype=np.float32), np.full_like(low, middle)
    low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
    top = np.float32((1 << format.bits) - 1)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = (high - low) / top
        offset = np.divide(-low, scale, out=np.zeros_like(low), where=scale != 0)
    return scale, np.trunc(np.clip(offset, 0, top) + BELOW_HALF)


def _integers(
    cells: NDArray[np.float32], scale: NDArray[np.float32], zero: NDArray[np.float32], format: BlockFormat
) -> NDArray[np.uint8]:
    """Return each weight's integer: clip(round(weight * (1 / scale) + zero)), in float32 throughout."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
        values = cells * inverse[..., None]
        values += zero[..., None]
        # fmax and fmin, so that 0 * infinity (a block of subnormal numbers) becomes 0 and not an undefined integer
        np.fmin(np.fmax(values, 0, out=values), np.float32((1 << format.bits) - 1), out=values)
        values += BELOW_HALF
        integers: NDArray[np.uint8] = values.astype(np.uint8)
        return integers


def pack(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack along the last axis; an odd last integer of 4 bits shares its byte with an 8, as in onnxruntime."""
    if bits == 8:
        return integers
    if integers.shape[-1] % 2:
        integers = np.concatenate([integers, np.full_like(integers[..., :1], 8)], axis=-1)
    high: NDArray[np.uint8] = integers[..., 1::2] << np.uint8(4)
    return integers[..., 0::2] | high


def unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return the integers of packed bytes, along the last axis."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
