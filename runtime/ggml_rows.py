"""The bit layout of a quantised row in GGUF: quantises and dequantises through libggml's own functions, never ours.

Rows of float32 become a type's bytes and back, equal bit for bit to what llama.cpp writes and reads, since it is the
same code. Also rounds to half precision and back, and reads a file's tensor as float32, some rows at a time. The calls
release the interpreter's lock, so threads may work on different rows. Knows no model and no mix of types.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError, MissingExtra
from .gguf_file import TENSOR_TYPES, GgufTensor, TensorType
from .llama_library import LlamaError

BLOCK_VALUES = 1 << 20
_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}


class RowsError(InfimedError):
    """Rows that a type cannot store, or bytes that are not its rows."""


def row_bytes(type_name: str, width: int) -> int:
    """Return the bytes of a row of `width` values. Raises RowsError where they do not fill whole blocks."""
    kind = _kind(type_name)
    if width < 1 or width % kind.values:
        raise RowsError(f"rows of {width} values cannot be {type_name}, which stores blocks of {kind.values}")
    return width // kind.values * kind.bytes


def needs_importance(type_name: str) -> bool:
    """Tell whether libggml refuses to quantise to that type without an importance matrix."""
    _kind(type_name)
    return bool(_library().base.ggml_quantize_requires_imatrix(_NUMBERS[type_name]))


def quantise(
    rows: NDArray[np.float32], type_name: str, importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Return (rows, bytes of a row), uint8, for (rows, width) float32 that are finite.

    importance: (width,), how much an error of each column weighs, or None. Raises RowsError, also where libggml's own
    check of what it wrote fails.
    """
    if rows.ndim != 2 or rows.dtype != np.float32 or not rows.flags.c_contiguous:
        raise RowsError(f"rows are {rows.dtype} {rows.shape}; contiguous float32 of two dimensions is needed")
    count, width = rows.shape
    stored = np.empty((count, row_bytes(type_name, width)), np.uint8)
    weights = None
    if importance is not None:
        weights = np.ascontiguousarray(importance, np.float32)
        if weights.shape != (width,):
            raise RowsError(f"an importance of shape {weights.shape} is not one of {width} columns")
    elif needs_importance(type_name):
        raise RowsError(f"{type_name} cannot be made without an importance matrix")
    if not count:
        return stored
    base, number = _library().base, _NUMBERS[type_name]
    address = weights.ctypes.data if weights is not None else None
    written = base.ggml_quantize_chunk(number, rows.ctypes.data, stored.ctypes.data, 0, count, width, address)
    if written != stored.nbytes:
        raise RowsError(f"libggml wrote {written} bytes of {type_name}, {stored.nbytes} were expected")
    if not base.ggml_validate_row_data(number, stored.ctypes.data, stored.nbytes):
        raise RowsError(f"quantising to {type_name} gave no valid numbers; the weights are damaged or too large")
    return stored


def dequantise(stored: NDArray[np.uint8], type_name: str, values: int) -> NDArray[np.float32]:
    """Return what a type's bytes stand for: (values,), float32.

    stored: uint8 of any shape, whole blocks. Raises RowsError where their number is not that of `values`.
    """
    data = np.ascontiguousarray(stored).reshape(-1)
    if data.dtype != np.uint8 or data.nbytes != row_bytes(type_name, values):
        raise RowsError(f"{data.nbytes} bytes of {data.dtype} are not {values} values of {type_name}")
    if type_name == "F32":
        return data.view(np.float32).copy()
    found = np.empty(values, np.float32)
    _library().to_float(_NUMBERS[type_name])(data.ctypes.data, found.ctypes.data, values)
    return found


def halves(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return contiguous float32 rounded to the nearest half, even at ties; infinity beyond its range."""
    found = np.empty(values.shape, np.float16)
    _library().to_half(values.ctypes.data, found.ctypes.data, values.size)
    return found


def singles(values: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return contiguous halves as float32, exactly."""
    found = np.empty(values.shape, np.float32)
    _library().to_single(values.ctypes.data, found.ctypes.data, values.size)
    return found


def tensor_rows(
    path: Path, tensor: GgufTensor, block_values: int = BLOCK_VALUES
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row, (rows, width) float32) of a file's tensor, about `block_values` values at a time.

    The dimensions before the last count as rows. The bytes come from a memory map; one block is in memory.
    """
    width = tensor.shape[-1]
    count, size = math.prod(tensor.shape[:-1]), row_bytes(tensor.type, width)
    step = max(1, block_values // width)
    stored = np.memmap(path, np.uint8, "r", offset=tensor.offset_bytes, shape=(count, size))
    for at in range(0, count, step):
        block = stored[at : at + step]
        yield at, dequantise(block, tensor.type, len(block) * width).reshape(-1, width)


class _Traits(ctypes.Structure):
    """ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block_values", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


class _Library:
    """libggml's functions. base: quantisers and type traits. to_half, to_single: conversions of half precision."""

    def __init__(self, base: Any, to_half: Any, to_single: Any) -> None:
        address, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
        for function, result, arguments in (
            (base.ggml_get_type_traits, ctypes.POINTER(_Traits), [number]),
            (base.ggml_quantize_requires_imatrix, ctypes.c_bool, [number]),
            (base.ggml_quantize_chunk, ctypes.c_size_t, [number, address, address, size, size, size, address]),
            (base.ggml_validate_row_data, ctypes.c_bool, [number, address, ctypes.c_size_t]),
            (to_half, None, [address, address, size]),
            (to_single, None, [address, address, size]),
        ):
            function.restype, function.argtypes = result, arguments
        self.base, self.to_half, self.to_single = base, to_half, to_single
        for kind_number, kind in TENSOR_TYPES.items():
            traits = base.ggml_get_type_traits(kind_number).contents
            theirs = (traits.type_name.decode().upper(), traits.block_values, traits.block_bytes)
            if theirs != (kind.name, kind.values, kind.bytes):
                raise LlamaError(f"libggml stores {theirs} where {kind} is known; install llama-cpp-python 0.3.36")

    def to_float(self, number: int) -> Any:
        """Return the C function (bytes, values, count) of a type."""
        return self.base.ggml_get_type_traits(number).contents.to_float


@lru_cache(maxsize=1)
def _library() -> _Library:
    """Find libggml among what libllama loaded, once per process; the same file loaded twice would be two libraries."""
    try:
        from llama_cpp import llama_cpp
    except ModuleNotFoundError as error:
        raise MissingExtra("llama", "llama_cpp") from error
    try:
        # A library's handle leads to the functions of those it depends on, too.
        found = ctypes.CDLL(llama_cpp._lib._name, handle=llama_cpp._lib._handle)
        try:  # the processor's own instructions
            to_half, to_single = found.ggml_cpu_fp32_to_fp16, found.ggml_cpu_fp16_to_fp32
            found.ggml_cpu_init()  # fills the table by which the last few halves of an array are converted
        except AttributeError:  # a build with one library per processor: the same, more slowly
            to_half, to_single = found.ggml_fp32_to_fp16_row, found.ggml_fp16_to_fp32_row
        return _Library(found, to_half, to_single)
    except (OSError, RuntimeError, AttributeError) as error:
        raise LlamaError(f"libggml does not load ({error}); install llama-cpp-python again") from error


def _kind(type_name: str) -> TensorType:
    number = _NUMBERS.get(type_name)
    if number is None:
        raise RowsError(f"{type_name!r} is no type that GGUF files here hold; types: {', '.join(_NUMBERS)}")
    return TENSOR_TYPES[number]
