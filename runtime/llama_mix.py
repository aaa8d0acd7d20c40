"""Which type each tensor of a GGUF level gets: llama.cpp's own choice, asked for and never re-implemented.

A file of header, keys and tensor descriptions, with a hole where the weights would be, is handed to llama.cpp's
quantiser for a dry run; its log names every tensor's type and each one that fell back because of its row width. The
mixes change from release to release, so there is no table of them here. Reads no weight.
"""

from __future__ import annotations

import ctypes
import math
import re
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from .ggml_rows import row_bytes
from .gguf_file import MAGIC, TENSOR_TYPES, VERSION
from .llama_library import llama_library, path_bytes, pointer
from .tensors import Shapes, TextSizes

Importance = Mapping[str, NDArray[np.float32]]
"""An importance matrix: GGUF tensor name -> (in,), float32, how much an error of each input channel weighs."""
Keys = Mapping[str, int | float | str | tuple[int, ...]]
ALIGNMENT = 32
_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}
# llama.cpp's names of what a file mostly consists of, for the types that its converter writes itself (llama_ftype).
_WHOLE = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16"}
_CHOSEN = re.compile(
    r"\[ *\d+/ *\d+\] (\S+) +- \[[^\]]*\], type = +(\S+), size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((\S+)\))?"
)
_FELL_BACK = re.compile(
    r"warning: (\S+) +- ncols +(\d+) not divisible by +\d+ \(required for type +(\S+)\) "
    r"(?:\(WARNING[^)]*\) )?-> falling back to +(\S+)"
)
_TOTAL = re.compile(r"quant size += +([\d.]+) MiB")


class QuantiseError(InfimedError):
    """llama.cpp has no such type of file, or does not say what it would write."""


@dataclass(frozen=True)
class Fallback:
    """A tensor whose rows of `width` values the wanted type cannot store, and the type that it gets instead."""

    tensor: str
    width: int
    wanted: str
    given: str


@dataclass(frozen=True)
class Mix:
    """The types of a level. file_type: llama.cpp's number of it. types: by tensor name. fallbacks: in its order."""

    file_type: int
    types: Mapping[str, str]
    fallbacks: tuple[Fallback, ...] = ()


def file_type(storage: str) -> int:
    """Return llama.cpp's number for what a file mostly consists of, such as Q4_K_M. Raises QuantiseError."""
    name = _WHOLE.get(storage, f"MOSTLY_{storage}")
    number = getattr(llama_library().llama, f"LLAMA_FTYPE_{name}", None)
    if number is None:
        raise QuantiseError(f"llama.cpp knows no file of type {storage}; export another level")
    return int(number)


def mix_keys(sizes: TextSizes, heads: int, kv_heads: int) -> Keys:
    """Return the metadata of a text model that its mix of types depends on, and what llama.cpp insists on beside."""
    return {
        "block_count": sizes.layers,
        "context_length": 1,
        "embedding_length": sizes.hidden,
        "feed_forward_length": sizes.ffn,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_sections": (0, 0, 0, 0),
    }


def tensor_bytes(shape: tuple[int, ...], kind: str) -> int:
    """Return the size of a tensor, slowest dimension first, in that type. Raises RowsError where rows do not fit."""
    return math.prod(shape[:-1]) * row_bytes(kind, shape[-1])


def choose_types(
    architecture: str, keys: Keys, shapes: Shapes, storages: Mapping[str, tuple[str, Importance | None]]
) -> dict[str, Mix]:
    """Return the mix of each level for a model's tensors.

    keys: of the architecture, without its prefix, those that the mixes depend on. storages: level name -> its storage,
    and its importance matrix or None. F32, F16 and BF16 are what the converter writes: vectors in F32, all else in that
    type. Raises QuantiseError.
    """
    mixes = {
        name: Mix(file_type(storage), {tensor: _plain(shape, storage) for tensor, shape in shapes.items()})
        for name, (storage, _) in storages.items()
        if storage in _WHOLE
    }
    asked = {name: value for name, value in storages.items() if name not in mixes}
    numbers = {name: file_type(storage) for name, (storage, _) in asked.items()}
    if asked:
        with _file_without_weights(architecture, keys, shapes) as path:
            for name, (_, importance) in asked.items():
                mixes[name] = _dry_run(shapes, path, name, numbers[name], importance)
    return mixes


def importance_array(llama: Any, importance: Importance) -> tuple[Any, list[Any]]:
    """Return an importance matrix as the C array that llama.cpp takes, and what must outlive it."""
    kept: list[Any] = []
    array = (llama.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(array, importance.items(), strict=False):
        data, text = np.ascontiguousarray(values, np.float32), name.encode()
        kept += [data, text]
        entry.name, entry.data, entry.size = text, pointer(data, ctypes.c_float), data.size
    return array, kept


def _plain(shape: tuple[int, ...], storage: str) -> str:
    return "F32" if len(shape) == 1 else storage


@contextmanager
def _file_without_weights(architecture: str, keys: Keys, shapes: Shapes) -> Iterator[Path]:
    """Give a file that describes the F16 conversion: whole to read, yet of a few kilobytes on the disk."""
    values = {
        "general.architecture": architecture,
        "general.file_type": file_type("F16"),
        **{f"{architecture}.{key}": value for key, value in keys.items()},
    }
    header = [MAGIC, struct.pack("<IQQ", VERSION, len(shapes), len(values))]
    header += [_text(key) + _value(value) for key, value in values.items()]
    offset = 0
    for name, shape in shapes.items():
        kind = _plain(shape, "F16")
        sides = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        header.append(_text(name) + sides + struct.pack("<IQ", _NUMBERS[kind], offset))
        offset += _padded(tensor_bytes(shape, kind))
    with tempfile.TemporaryDirectory(prefix="gguf-") as folder:
        path = Path(folder) / "header.gguf"
        path.write_bytes(b"".join(header))
        with open(path, "r+b") as file:
            file.truncate(_padded(path.stat().st_size) + offset)
        yield path


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: int | float | str | tuple[int, ...]) -> bytes:
    """Return a value with its type before it (ggml's docs/gguf.md): string 8, float32 6, uint32 4, array 9 of int32."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, tuple):
        return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _dry_run(shapes: Shapes, path: Path, level: str, number: int, importance: Importance | None) -> Mix:
    library = llama_library()
    params = library.llama.llama_model_quantize_default_params()
    params.nthread = 1
    params.ftype = number
    params.dry_run = True
    if importance is not None:
        array, _alive = importance_array(library.llama, importance)
        params.imatrix = array
    with library.log.recording() as said:
        failed = library.llama.llama_model_quantize(path_bytes(path), b"", params)
    if failed:
        raise QuantiseError(f"llama.cpp cannot quantise to {level}: {library.log.reason()}; export another level")
    text = "".join(said)
    chosen = {name: (new or old).upper() for name, old, new in _CHOSEN.findall(text)}
    unknown = sorted(set(chosen.values()) - _NUMBERS.keys())
    total = _TOTAL.search(text)
    if chosen.keys() != shapes.keys() or unknown or total is None:
        raise QuantiseError(
            f"llama.cpp's dry run of {level} named {len(chosen)} of {len(shapes)} tensors"
            f"{' and the types ' + ', '.join(unknown) if unknown else ''}; install llama-cpp-python 0.3.36"
        )
    size_mib = sum(tensor_bytes(shapes[name], kind) for name, kind in chosen.items()) / (1 << 20)
    if abs(size_mib - float(total[1])) > 0.01:
        raise QuantiseError(f"llama.cpp means {level} to take {total[1]} MiB, its types take {size_mib:.2f} MiB")
    fallbacks = tuple(
        Fallback(name, int(width), wanted.upper(), given.upper())
        for name, width, wanted, given in _FELL_BACK.findall(text)
    )
    return Mix(number, {name: chosen[name] for name in shapes}, fallbacks)
