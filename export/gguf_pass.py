"""One pass over a checkpoint's weights that fills the GGUF files of all asked levels.

A block of rows is read from the memory map once, rounded to half precision once where any level needs it, quantised
once for each type, and written at its place in every file. Threads take one block each, so the bytes are the same at
any number of them, quantising and writing overlap, and memory holds a few blocks. Knows no header and no mix.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from ..runtime.events import Event, OnEvent
from ..runtime.ggml_rows import RowsError, halves, quantise, singles
from ..runtime.llama_mix import Importance, tensor_bytes
from .gguf_model import DTYPES, GgufModel
from .gguf_names import GgufTensor

# A block's arrays (float32, half, rounded float32, quantised) then stay near the processor's cache.
_BLOCK_VALUES = 1 << 19
_BLOCKS_PER_THREAD = 3
# The smallest magnitude that a type rounds to infinity; F16 stands for all that is rounded through it.
_LIMITS = {"F32": math.inf, "F16": 65520.0, "BF16": 2.0**128 - 2.0**119}


class GgufWriteError(InfimedError):
    """A GGUF file that cannot be written: the disk, or a weight that the type cannot hold."""


@dataclass(frozen=True, eq=False)
class Target:
    """A file to be filled. types, offsets_bytes: of each tensor by name. importance: what its quantised rows weigh."""

    level: str
    path: Path
    types: Mapping[str, str]
    offsets_bytes: Mapping[str, int]
    importance: Importance | None = None


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a tensor goes in one file: an open descriptor, the tensor's first byte, and what its rows take."""

    handle: int
    path: Path
    offset_bytes: int
    row_bytes: int


@dataclass(frozen=True, eq=False)
class _Job:
    """One tensor's way into the files.

    whole: (rows, ...) on the memory map. head_rows: rows of one head, where their order changes, else 1. places,
    weighed: by type, without and with the importance.
    """

    tensor: GgufTensor
    whole: NDArray[np.generic]
    dtype: str
    width: int
    head_rows: int
    places: Mapping[str, tuple[_Place, ...]]
    weighed: Mapping[str, tuple[_Place, ...]]
    importance: NDArray[np.float32] | None
    limit: float


def fill(model: GgufModel, targets: Sequence[Target], *, threads: int, on_event: OnEvent) -> None:
    """Write every tensor of `model` into every target, whose headers are there and whose files have their size.

    The types of a target that are quantised start from weights rounded to half precision, as llama.cpp's way through an
    F16 file does. Raises GgufWriteError for NaN, infinity and what a type cannot hold, OSError naming the file.
    """
    handles: list[int] = []
    try:
        for target in targets:
            handles.append(os.open(target.path, os.O_WRONLY))
        _run(model, targets, handles, threads, on_event)
    finally:
        for handle in handles:
            os.close(handle)


def _run(model: GgufModel, targets: Sequence[Target], handles: Sequence[int], threads: int, on_event: OnEvent) -> None:
    told = _Told(model, targets, on_event)
    waiting: deque[tuple[bool, Future[None]]] = deque()

    def wait() -> None:
        ends_tensor, future = waiting.popleft()
        future.result()
        if ends_tensor:
            told.tensor()

    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            for tensor in model.tensors:
                job = _job(model, tensor, targets, handles)
                for first, last in _blocks(job):
                    waiting.append((last == len(job.whole), pool.submit(_block, job, first, last)))
                    if len(waiting) > max(1, threads) * _BLOCKS_PER_THREAD:
                        wait()
            while waiting:
                wait()
        finally:
            for _, future in waiting:
                future.cancel()


class _Told:
    """Tells each level's progress, tensor by tensor."""

    def __init__(self, model: GgufModel, targets: Sequence[Target], on_event: OnEvent) -> None:
        self._on_event = on_event
        self._sizes = {
            target.level: [tensor_bytes(tensor.shape, target.types[tensor.name]) for tensor in model.tensors]
            for target in targets
        }
        self._tensors = 0

    def tensor(self) -> None:
        """Tell that one more tensor lies in every file."""
        self._tensors += 1
        for level, sizes in self._sizes.items():
            note = f"tensor {self._tensors} of {len(sizes)}"
            self._on_event(Event(level, sum(sizes[: self._tensors]), sum(sizes), "bytes", note))


def _job(model: GgufModel, tensor: GgufTensor, targets: Sequence[Target], handles: Sequence[int]) -> _Job:
    """Return how `tensor` reaches the files; a vector counts as one row."""
    whole, dtype = _stored(model, tensor)
    rows = 1 if tensor.is_vector else tensor.shape[0]
    importance = None
    found: tuple[dict[str, tuple[_Place, ...]], dict[str, tuple[_Place, ...]]] = ({}, {})
    for target, handle in zip(targets, handles, strict=True):
        kind = target.types[tensor.name]
        weights = (target.importance or {}).get(tensor.name) if kind not in _LIMITS else None
        importance = importance if weights is None else weights
        place = _Place(handle, target.path, target.offsets_bytes[tensor.name], tensor_bytes(tensor.shape, kind) // rows)
        group = found[weights is not None]
        group[kind] = (*group.get(kind, ()), place)
    kinds = {*found[0], *found[1]}
    limit = min(_LIMITS.get(kind, _LIMITS["F16"]) for kind in kinds)
    head_rows = rows // tensor.heads if tensor.heads else 1
    return _Job(tensor, whole, dtype, math.prod(tensor.shape) // rows, head_rows, *found, importance, limit)


def _stored(model: GgufModel, tensor: GgufTensor) -> tuple[NDArray[np.generic], str]:
    """Return the part of a stored tensor that `tensor` takes, on the memory map, and the stored type's name."""
    if tensor.values is not None:
        return np.array([tensor.values], np.float32), "F32"
    name = model.stored[tensor.source]
    spec = model.checkpoint.tensors[name]
    whole = model.checkpoint.raw(name).view(DTYPES[spec.dtype]).reshape(spec.shape)
    start, stop = tensor.rows or (0, spec.shape[0])
    whole = whole[start:stop]
    if tensor.frame is not None:
        whole = whole[:, :, tensor.frame]
    return whole[None] if tensor.is_vector else whole, spec.dtype


def _blocks(job: _Job) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK_VALUES // job.width // job.head_rows) * job.head_rows
    count = len(job.whole)
    for first in range(0, count, step):
        yield first, min(first + step, count)


def _block(job: _Job, first: int, last: int) -> None:
    """Read, convert and write rows `first` to `last` of a tensor."""
    values = _singles(job.whole[first:last], job.dtype).reshape(last - first, job.width)
    _check_range(values, job)
    if job.head_rows > 1:  # what turns together lies half a head apart in the checkpoint, side by side in the file
        paired = values.reshape(-1, 2, job.head_rows // 2, job.width).swapaxes(1, 2)
        values = np.ascontiguousarray(paired).reshape(values.shape)
    exact = {"F32": values}
    rounded: NDArray[np.float32] | None = None
    for places, weights in ((job.places, None), (job.weighed, job.importance)):
        for kind in places:
            data: NDArray[np.generic]
            if kind in exact:
                data = exact[kind]
            elif kind == "F16":
                data = halves(values)
            elif kind == "BF16":
                data = quantise(values, "BF16")
            else:
                if rounded is None:
                    rounded = singles(halves(values))
                data = _quantised(rounded, kind, weights, job.tensor)
            for place in places[kind]:
                _write(place, data, first)


def _singles(block: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    """Return stored values as contiguous float32; bfloat16 is the upper half of one."""
    if dtype == "BF16":
        upper: NDArray[np.uint32] = np.left_shift(block, np.uint32(16), dtype=np.uint32, casting="unsafe")
        return upper.view(np.float32)
    if dtype == "F16" and block.flags.c_contiguous:
        return singles(block.view(np.float16))
    return np.ascontiguousarray(block, np.float32)


def _check_range(values: NDArray[np.float32], job: _Job) -> None:
    low, high = float(values.min()), float(values.max())  # both are NaN where any value is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise GgufWriteError(
            f"tensor {job.tensor.source} holds NaN or infinity; the checkpoint is damaged, train it again"
        )
    if max(-low, high) >= job.limit:
        held = next(kind for kind, limit in _LIMITS.items() if limit == job.limit)
        instead = "gguf-f32 or gguf-bf16" if held == "F16" else "gguf-f32"
        raise GgufWriteError(
            f"tensor {job.tensor.source} holds {max(-low, high):g}, more than {held} can; export {instead} only, or an "
            "ONNX level"
        )


def _quantised(
    values: NDArray[np.float32], kind: str, importance: NDArray[np.float32] | None, tensor: GgufTensor
) -> NDArray[np.uint8]:
    try:
        return quantise(values, kind, importance)
    except RowsError as error:
        raise GgufWriteError(f"tensor {tensor.source}: {error}") from None


def _write(place: _Place, data: NDArray[np.generic], first: int) -> None:
    """Write a block at its place, wholly. Raises OSError with the file's name."""
    view = data.reshape(-1).view(np.uint8).data
    at = place.offset_bytes + first * place.row_bytes
    try:
        while view:
            written = os.pwrite(place.handle, view, at)
            view = view[written:]
            at += written
    except OSError as error:
        error.filename = str(place.path)
        raise
