"""The bytes of a vision tower as a level stores it, from the shapes of its tensors; none is opened.

What stays as it is: vectors, and the matrix that sees raw pixels; also rows that fill no block of a type.
"""

from __future__ import annotations

import math

from ..runtime.gguf_file import TENSOR_TYPES
from ..runtime.levels import LEVELS, TENSORRT_BLOCK, QuantLevel
from ..runtime.shape import ModelShape


def tower_bytes(shape: ModelShape, row: QuantLevel) -> int:
    """Return the size of the tower's weights at that level; 0 where the family takes no images."""
    sizes = shape.vision_sizes
    if sizes is None:
        return 0
    return sum(_bytes(sides, row) for sides in sizes.shapes().values())


def _bytes(sides: tuple[int, ...], row: QuantLevel) -> int:
    values = math.prod(sides)
    if row.format == "gguf":
        kind = next(kind for kind in TENSOR_TYPES.values() if kind.name == row.vision.upper())
        if len(sides) == 1:
            return 4 * values
        return 2 * values if sides[-1] % kind.values else values // kind.values * kind.bytes
    # The graph's own type is that of a level of full or of half precision; a quantised one says what it was made in.
    own = 2 if row.vision == "fp16" or (row.format == "tensorrt" and row.vision != "fp32") else 4
    unblocked = row.format == "tensorrt" and row.vision == "int4" and sides[-1] % TENSORRT_BLOCK
    if len(sides) != 2 or unblocked:
        return own * values
    bits = next(one.weight_bits for one in LEVELS if one.format == row.format and one.storage == row.vision)
    return math.ceil(bits * values / 8)
