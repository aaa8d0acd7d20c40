"""Checkpoint: a model folder in the Hugging Face layout, read through a memory map and written tensor by tensor.

Knows config.json, safetensors (one file, or shards with an index) and the files that travel with them; builds no model
and needs no torch unless a tensor is asked for as one.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.files import canonical_json, write_bytes
from ..runtime.shape import (
    DTYPE_BYTES,
    INDEX_FILE,
    SINGLE_FILE,
    CheckpointError,
    TensorInfo,
    checkpoint_tensors,
)
from .provenance import PROVENANCE_FILE, Provenance, sha256_files

if TYPE_CHECKING:
    import torch

BLOCK_WEIGHTS = 1 << 20
"""How many weights of a tensor are in memory at a time where it is worked on row by row."""
# Everything beside weights and config.json that a model needs to be talked to.
COMPANION_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
)
_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_TORCH = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, safetensors dtype ("BF16", "F32", ...) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Return the tensor's size in the file."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint. config: config.json. tensors: by name, in the order of the files."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorSpec]
    _places: Mapping[str, TensorInfo] = field(repr=False)

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Open the checkpoint in `folder`; reads headers only. Raises CheckpointError."""
        folder = Path(folder)
        config = _read_json(folder / "config.json")
        places = {place.name: place for place in checkpoint_tensors(folder)}
        specs = {name: TensorSpec(name, place.dtype, place.shape) for name, place in places.items()}
        return Checkpoint(folder, config, specs, places)

    @cached_property
    def sha256(self) -> str:
        """One digest over config, weights and companion files; not over infimed.json, which may quote it."""
        return sha256_files(self.files)

    @property
    def files(self) -> tuple[Path, ...]:
        """Return every file that the checkpoint consists of."""
        weights = {place.file for place in self._places.values()}
        named = {self.folder / name for name in ("config.json", INDEX_FILE, *COMPANION_FILES)}
        return tuple(sorted(weights | {path for path in named if path.is_file()}))

    @property
    def weight_bytes(self) -> int:
        """Return the size of all tensors."""
        return sum(spec.bytes for spec in self.tensors.values())

    @property
    def provenance(self) -> Provenance | None:
        """Return where the checkpoint comes from, None where it brings no infimed.json (a model from elsewhere)."""
        return Provenance.read(self.folder) if (self.folder / PROVENANCE_FILE).is_file() else None

    def raw(self, name: str) -> NDArray[np.uint8]:
        """Return a tensor's bytes as a memory map (copy on write), shape (bytes,)."""
        place = self._place(name)
        size_bytes = place.end - place.begin
        if not size_bytes:
            return np.zeros(0, np.uint8)
        return np.memmap(place.file, np.uint8, "c", offset=place.begin, shape=(size_bytes,))

    def array(self, name: str) -> NDArray[Any]:
        """Return a tensor as numpy: a memory map in its own dtype; BF16, which numpy lacks, as a float32 copy."""
        place = self._place(name)
        return decode(self.raw(name), place.dtype, place.shape)

    def blocks(self, name: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield a tensor some rows at a time: the number of the first row, and the rows' bytes as a memory map.

        A row is what follows the first dimension; a tensor without dimensions is one row.
        """
        raw, spec = self.raw(name), self.tensors[name]
        rows = spec.shape[0] if spec.shape else 1
        row_bytes = spec.bytes // max(rows, 1)
        step = max(1, BLOCK_WEIGHTS * DTYPE_BYTES[spec.dtype] // max(row_bytes, 1))
        for first in range(0, rows, step):
            yield first, raw[first * row_bytes : (first + step) * row_bytes]

    def float_blocks(self, name: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield a tensor of floats as `blocks` does, its rows as float32."""
        spec = self.tensors[name]
        for first, raw in self.blocks(name):
            yield first, decode(raw, spec.dtype, (-1, *spec.shape[1:])).astype(np.float32, copy=False)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor as torch, in its own dtype, on the memory map."""
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingExtra("train", "torch") from error
        place = self._place(name)
        return torch.from_numpy(self.raw(name)).view(torch_dtype(place.dtype)).reshape(place.shape)

    def _place(self, name: str) -> TensorInfo:
        if name not in self._places:
            raise CheckpointError(f"{self.folder}: no tensor {name!r}; the checkpoint is of another architecture")
        return self._places[name]


def decode(raw: NDArray[np.uint8], dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a tensor's bytes as numpy in its own type, without a copy; BF16, which numpy lacks, as a float32 copy."""
    if dtype == "BF16":
        return (raw.view("<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    return raw.view(_NUMPY[dtype]).reshape(shape)


def torch_dtype(dtype: str) -> torch.dtype:
    """Return torch's type of a safetensors name."""
    import torch

    found: torch.dtype = getattr(torch, _TORCH[dtype])
    return found


BytesOf = Callable[[TensorSpec], NDArray[np.uint8] | Iterable[NDArray[np.uint8]]]
"""What a tensor's bytes are, whole or in parts."""


def write_weights(
    folder: Path,
    specs: Sequence[TensorSpec],
    bytes_of: BytesOf,
    max_shard_bytes: int = 4 << 30,
) -> None:
    """Write `specs` in their order as one safetensors file, or as shards with an index where larger than a shard.

    bytes_of: asked for one tensor at a time, (bytes,) uint8 or parts of it in order, written as they come. `folder` is
    one that is being published.
    """
    shards: list[list[TensorSpec]] = [[]]
    for spec in specs:
        if shards[-1] and sum(s.bytes for s in shards[-1]) + spec.bytes > max_shard_bytes:
            shards.append([])
        shards[-1].append(spec)
    if len(shards) == 1:
        _write_file(folder / SINGLE_FILE, shards[0], bytes_of)
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, bytes_of)
    weight_map = {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard}
    total_bytes = sum(spec.bytes for spec in specs)
    write_bytes(
        folder / INDEX_FILE, canonical_json({"metadata": {"total_size": total_bytes}, "weight_map": weight_map})
    )


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, template, preprocessing and generation settings, those that are there."""
    for name in COMPANION_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _write_file(path: Path, specs: Sequence[TensorSpec], bytes_of: BytesOf) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for spec in specs:
        header[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [start, start + spec.bytes]}
        start += spec.bytes
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(encoded)))
        stream.write(encoded)
        for spec in specs:
            given, written_bytes = bytes_of(spec), 0
            for part in [given] if isinstance(given, np.ndarray) else given:
                stream.write(np.ascontiguousarray(part).data)
                written_bytes += part.nbytes
            if written_bytes != spec.bytes:
                raise ValueError(f"tensor {spec.name} is {written_bytes} bytes, its spec says {spec.bytes}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; a checkpoint has config.json and safetensors weights") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy or make the checkpoint again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object; copy or make the checkpoint again")
    return value
