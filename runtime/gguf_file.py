"""Reads the header of a GGUF file: single values and where each tensor lies, every length checked against the file.

Our own reader, because llama.cpp is only handed files whose header holds together, and because the manifest records
the type that each tensor really got. Format: docs/gguf.md of ggml, version 3. Knows no model and no weight.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import InfimedError

MAGIC = b"GGUF"
VERSION = 3
MAX_DIMENSIONS = 4
# A tensor description takes at least this many bytes: name length, dimensions, one dimension, type, offset.
_LEAST_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8


class GgufError(InfimedError):
    """A file that is no GGUF file, or not a whole one."""


@dataclass(frozen=True)
class TensorType:
    """How ggml stores values: blocks of `values` values in `bytes` bytes."""

    name: str
    values: int
    bytes: int


# ggml's numbers for its types (ggml.h), those a file of ours may hold.
TENSOR_TYPES: Mapping[int, TensorType] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    30: TensorType("BF16", 1, 2),
}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor. shape: slowest dimension first, as numpy counts. offset_bytes: from the start of the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset_bytes: int
    bytes: int


@dataclass(frozen=True)
class ArrayLength:
    """Stands for a long array, or one of strings, in the metadata, whose values are not kept.

    distinct: how many different strings it holds; its length for numbers.
    """

    length: int
    distinct: int


Value = int | float | bool | str | ArrayLength | tuple[float, ...]


@dataclass(frozen=True)
class GgufFile:
    """A header that was read. values: the metadata, in the order of the file."""

    path: Path
    values: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]

    @property
    def tensor_types(self) -> dict[str, str]:
        """Return each tensor's type by its name."""
        return {tensor.name: tensor.type for tensor in self.tensors}

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors)


def read_gguf(path: Path) -> GgufFile:
    """Return the header of a GGUF file. Raises GgufError naming what does not fit."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).read()
    except FileNotFoundError:
        raise GgufError(f"{path} is missing; export the level again") from None
    except (OSError, ValueError) as error:  # mmap refuses an empty file with ValueError
        raise GgufError(f"{path} cannot be read as GGUF ({error}); export the level again") from None


_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_VALUES = 16


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.at = 0

    def read(self) -> GgufFile:
        if self.take(4) != MAGIC:
            raise self.refuse("it does not begin with GGUF")
        version = self.number("I")
        if version != VERSION:
            raise self.refuse(f"it is of version {version}; version {VERSION} is read")
        tensor_count, value_count = self.number("Q"), self.number("Q")
        if tensor_count * _LEAST_TENSOR_BYTES + value_count * 12 > self.size:
            raise self.refuse(f"it claims {tensor_count} tensors and {value_count} values in {self.size} bytes")
        values: dict[str, Value] = {}
        for _ in range(value_count):
            key = self.text()
            if key in values:
                raise self.refuse(f"{key} stands in it twice")
            values[key] = self.value(self.number("I"))
        described = [self.describe() for _ in range(tensor_count)]
        return GgufFile(self.path, values, self.place(described, values.get("general.alignment", 32)))

    def describe(self) -> tuple[str, TensorType, tuple[int, ...], int]:
        name = self.text()
        dimensions = self.number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.refuse(f"tensor {name} has {dimensions} dimensions")
        sides = tuple(self.number("Q") for _ in range(dimensions))
        kind = TENSOR_TYPES.get(number := self.number("I"))
        if kind is None:
            raise self.refuse(f"tensor {name} is of type {number}, which is unknown")
        if min(sides) < 1 or sides[0] % kind.values:
            raise self.refuse(f"tensor {name} has rows of {sides[0]} values, which {kind.name} cannot store")
        return name, kind, sides[::-1], self.number("Q")

    def place(
        self, described: list[tuple[str, TensorType, tuple[int, ...], int]], alignment: Value
    ) -> tuple[GgufTensor, ...]:
        if not isinstance(alignment, int) or isinstance(alignment, bool) or alignment < 8 or alignment % 8:
            raise self.refuse(f"its alignment is {alignment}")
        start = -(-self.at // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, kind, shape, offset in described:
            count = 1
            for side in shape:
                count *= side
            size = count // kind.values * kind.bytes
            if offset % alignment or start + offset + size > self.size:
                raise self.refuse(f"tensor {name} ends at byte {start + offset + size} of {self.size}")
            if name in tensors:
                raise self.refuse(f"tensor {name} stands in it twice")
            tensors[name] = GgufTensor(name, kind.name, shape, start + offset, size)
        return tuple(tensors.values())

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            element, length = self.number("I"), self.number("Q")
            if element in _SCALARS and length <= _KEPT_VALUES:
                return tuple(self.unpack(_SCALARS[element]) for _ in range(length))
            return ArrayLength(length, self.skip(element, length))
        if kind not in _SCALARS:
            raise self.refuse(f"a value is of type {kind}, which is unknown")
        number: int | float | bool = self.unpack(_SCALARS[kind])
        return number

    def skip(self, element: int, length: int) -> int:
        """Step over an array and return how many different values it has, as ArrayLength counts them."""
        if element in _SCALARS:
            self.step(length * struct.calcsize("<" + _SCALARS[element]))
            return length
        if element != _STRING:
            raise self.refuse(f"an array holds values of type {element}")
        if length * 8 > self.size - self.at:
            raise self.refuse(f"it claims an array of {length} strings")
        length_at = struct.Struct("<Q").unpack_from
        data, at, last = self.data, self.at, self.size - 8
        seen: set[bytes] = set()
        for _ in range(length):
            if at > last:
                break
            end = at + 8 + length_at(data, at)[0]
            seen.add(data[at + 8 : end])
            at = end
        self.step(at - self.at)
        return len(seen)

    def text(self) -> str:
        raw = self.take(self.number("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse("a name in it is not UTF-8") from None

    def number(self, code: str) -> int:
        return int(self.unpack(code))

    def unpack(self, code: str) -> int | float | bool:
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        return value  # type: ignore[no-any-return]

    def take(self, count: int) -> bytes:
        start = self.at
        self.step(count)
        return self.data[start : start + count]

    def step(self, count: int) -> None:
        if count > self.size - self.at:
            raise self.refuse(f"it ends after {self.size} bytes, in the middle of its header")
        self.at += count

    def refuse(self, what: str) -> GgufError:
        return GgufError(f"{self.path} is no whole GGUF file: {what}; export the level again, or get it again")
