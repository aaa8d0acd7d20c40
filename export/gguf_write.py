"""Writes a checkpoint as GGUF at any number of levels, straight from its safetensors, in one pass over the weights.

Headers first, with the room that the weights will take, so that a full disk is told before hours are spent; then the
weights; then each file is read back, checked, and gets its final name on its own. Equal, tensor for tensor and bit for
bit, to llama.cpp's own way: its converter for F32, F16 and BF16, its quantiser on the converter's F16 file for the
rest. Knows neither the family's names nor the layout of a quantised row.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import writing
from ..runtime.gguf_file import GgufError, GgufFile, read_gguf
from ..runtime.levels import QuantLevel
from ..runtime.llama_mix import Fallback, Importance, Mix, choose_types, tensor_bytes
from ..training.checkpoint import Checkpoint
from .activations import Activations
from .gguf_importance import importance_of
from .gguf_model import GgufModel, new_writer, text_model, vision_model
from .gguf_pass import GgufWriteError, Target, fill

FloatType = Literal["F32", "F16", "BF16"]
_NO_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True)
class Written:
    """A file that was written. header: what stands in it. fallbacks: tensors that its main type cannot store."""

    header: GgufFile
    fallbacks: tuple[Fallback, ...]


def write_levels(
    model: GgufModel,
    outputs: Mapping[str, Path],
    levels: Sequence[QuantLevel],
    *,
    threads: int,
    activations: Activations | None = None,
    on_event: OnEvent = ignore,
) -> dict[str, Written]:
    """Write a text model at each of `levels` to outputs[level.name].

    threads: how many blocks are worked on at once; the bytes are the same at any number. activations: what the levels
    with an importance matrix weigh errors by. Raises QuantiseError, ActivationsError or NoImportance before any weight
    is read; GgufWriteError.
    """
    importance = importance_of(model, levels, activations)
    storages = {row.name: (row.storage, importance if row.imatrix else None) for row in levels}
    dataset = activations.dataset_sha256 if activations is not None else ""
    return _write(model, outputs, storages, dataset, threads=threads, on_event=on_event)


def write_towers(
    model: GgufModel, outputs: Mapping[str, Path], *, threads: int, on_event: OnEvent = ignore
) -> dict[str, Written]:
    """Write a vision tower in each type that `outputs` names (F32, F16, Q8_0) to its path. Raises as write_levels."""
    stages = {kind: f"mmproj-{kind.lower()}" for kind in outputs}
    storages: dict[str, tuple[str, Importance | None]] = {stages[kind]: (kind, None) for kind in outputs}
    places = {stages[kind]: path for kind, path in outputs.items()}
    made = _write(model, places, storages, "", threads=threads, on_event=on_event)
    return {kind: made[stage] for kind, stage in stages.items()}


def write_text_model(checkpoint: Checkpoint, path: Path, kind: FloatType, on_event: OnEvent = ignore) -> GgufFile:
    """Write the text model, its tokenizer and chat template, unquantised; return the header of what was written."""
    (done,) = _write(text_model(checkpoint), {kind: path}, {kind: (kind, None)}, "", on_event=on_event).values()
    return done.header


def write_vision_model(checkpoint: Checkpoint, path: Path, kind: FloatType, on_event: OnEvent = ignore) -> GgufFile:
    """Write the vision tower with its merger (mmproj), unquantised; return the header of what was written."""
    (done,) = _write(vision_model(checkpoint), {kind: path}, {kind: (kind, None)}, "", on_event=on_event).values()
    return done.header


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn what the system says of `path` (a full disk, a folder that cannot be written) into a GgufWriteError."""
    try:
        yield
    except OSError as error:
        raise GgufWriteError(
            f"{path} cannot be written ({error.strerror or error}); free the disk or name another folder"
        ) from error


def _write(
    model: GgufModel,
    outputs: Mapping[str, Path],
    storages: Mapping[str, tuple[str, Importance | None]],
    dataset_sha256: str,
    *,
    on_event: OnEvent,
    threads: int = 1,
) -> dict[str, Written]:
    mixes = choose_types(model.architecture, model.mix_keys, model.shapes, storages)
    for name, mix in mixes.items():
        if mix.fallbacks:
            on_event(Event("gguf types", len(mix.types), len(mix.types), "tensors", _told(name, mix.fallbacks)))
    done: dict[str, Written] = {}
    with contextlib.ExitStack() as drafts:
        # The last one entered is published first: in reverse, so that they appear as they were asked for.
        targets = []
        for name in reversed(list(storages)):
            drafts.enter_context(guarded(outputs[name]))
            draft = drafts.enter_context(writing(outputs[name]))
            _clear_leftovers(draft, outputs[name])
            importance = storages[name][1]
            offsets = _write_header(model, draft, mixes[name], importance, dataset_sha256)
            targets.append(Target(name, draft, mixes[name].types, offsets, importance))
        targets.reverse()
        fill(model, targets, threads=threads, on_event=on_event)
        for target in targets:
            header = read_gguf(target.path)
            model.check(header)
            if header.tensor_types != dict(target.types):
                raise GgufError(f"{outputs[target.level]} came out with other types than asked; export it again")
    for name in storages:
        done[name] = Written(read_gguf(outputs[name]), mixes[name].fallbacks)
    return done


def _told(level: str, fallbacks: Sequence[Fallback]) -> str:
    kinds = dict.fromkeys(f"{item.wanted} as {item.given} (rows of {item.width})" for item in fallbacks)
    return f"{level}: {len(fallbacks)} tensors do not fit their type: {', '.join(kinds)}"


def _write_header(
    model: GgufModel, path: Path, mix: Mix, importance: Importance | None, dataset_sha256: str
) -> dict[str, int]:
    """Write all but the weights, give the file its whole size, and return where each tensor begins, in bytes."""
    import gguf

    writer = new_writer(model.architecture)
    model.add_keys(writer)
    writer.add_file_type(mix.file_type)
    if importance is not None:  # as llama.cpp's own quantiser says it, less the file's path
        writer.add_string("quantize.imatrix.dataset", f"sha256:{dataset_sha256}")
        writer.add_uint32("quantize.imatrix.entries_count", len(importance))
    sizes = {tensor.name: tensor_bytes(tensor.shape, mix.types[tensor.name]) for tensor in model.tensors}
    for tensor in model.tensors:
        kind = gguf.GGMLQuantizationType[mix.types[tensor.name]]
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), sizes[tensor.name], kind)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()

    def padded(size: int) -> int:
        return int(-(-size // writer.data_alignment) * writer.data_alignment)

    at = padded(path.stat().st_size)
    offsets = {}
    for name, size in sizes.items():
        offsets[name] = at
        at += padded(size)
    _reserve(path, at)
    return offsets


def _reserve(path: Path, size: int) -> None:
    """Give a file its size, with the room for it on the disk where the file system can promise that."""
    with open(path, "r+b") as file:
        file.truncate(size)  # what is not written afterwards, the padding, is zero
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in _NO_RESERVE:
                error.filename = str(path)
                raise


def _clear_leftovers(draft: Path, output: Path) -> None:
    """Remove the drafts of `output` that killed runs left."""
    for left in output.parent.glob(f".{output.name}.*.part"):
        number = left.name.split(".")[-2]
        if left != draft and not (number.isdecimal() and _runs(int(number))):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
