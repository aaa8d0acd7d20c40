"""Makes quantised GGUF files: the F16 conversion first, then llama.cpp's own quantiser on it.

What type each tensor gets is llama.cpp's choice, which changes from release to release: it is read from what was really
written, never from a table of ours. Why a call failed stands only in llama.cpp's log, which is quoted. Knows neither
tensor names nor bit layouts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import InfimedError
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import writing
from ..runtime.gguf_file import GgufFile, read_gguf
from ..runtime.levels import QuantLevel
from ..runtime.llama_library import llama_library, path_bytes
from ..training.checkpoint import Checkpoint
from .gguf_write import FloatType, guarded, write_text_model

_FLOATS: Mapping[str, FloatType] = {"F32": "F32", "F16": "F16"}
# Rows that llama.cpp holds at once; its default of 8 GiB would hold whole tensors.
_BUFFER_BYTES = 256 << 20


class QuantiseError(InfimedError):
    """llama.cpp refused to quantise, or wrote something else than was asked."""


def write_levels(
    checkpoint: Checkpoint,
    outputs: Mapping[str, Path],
    levels: Iterable[QuantLevel],
    *,
    threads: int,
    on_event: OnEvent = ignore,
) -> dict[str, GgufFile]:
    """Write the text model at each of `levels` to outputs[level.name]; return the headers of what was written.

    The F16 file that quantisation starts from is an asked level's own, or a temporary one beside the first output,
    removed whatever happens. Raises QuantiseError, and what write_text_model raises.
    """
    rows = list(levels)
    quantised = {row.name: _file_type(row.storage) for row in rows if row.storage not in _FLOATS}
    written: dict[str, GgufFile] = {}
    for row in rows:
        if row.storage in _FLOATS:
            written[row.name] = write_text_model(checkpoint, outputs[row.name], _FLOATS[row.storage], on_event)
    if not quantised:
        return written
    halves = [outputs[row.name] for row in rows if row.storage == "F16"]
    first = outputs[next(iter(quantised))]
    work = first.parent / f".{first.name}.work"
    try:
        if not halves:
            shutil.rmtree(work, ignore_errors=True)  # what a killed run left
            with guarded(work):
                work.mkdir()
            halves = [work / "f16.gguf"]
            write_text_model(checkpoint, halves[0], "F16", on_event)
        for name, file_type in quantised.items():
            on_event(Event("quantise", len(written), len(rows), "levels", name))
            written[name] = quantise(halves[0], outputs[name], file_type, threads=threads)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    on_event(Event("quantise", len(rows), len(rows), "levels"))
    return written


def _file_type(storage: str) -> int:
    """Return llama.cpp's number for what a file mostly consists of; it names them all in one way."""
    number = getattr(llama_library().llama, f"LLAMA_FTYPE_MOSTLY_{storage}", None)
    if number is None:
        raise QuantiseError(f"llama.cpp knows no file of type {storage}; export another level")
    return int(number)


def quantise(source: Path, target: Path, file_type: int, *, threads: int) -> GgufFile:
    """Quantise an F16 or F32 GGUF file; return the header of what was written.

    file_type: llama.cpp's number (llama_ftype). Raises QuantiseError.
    """
    library = llama_library()
    before = read_gguf(source)
    params = library.llama.llama_model_quantize_default_params()
    params.nthread = max(1, threads)
    params.ftype = file_type
    params.max_buf_size = _BUFFER_BYTES
    with guarded(target), writing(target) as draft:
        library.log.clear()
        if library.llama.llama_model_quantize(path_bytes(source), path_bytes(draft), params):
            raise QuantiseError(
                f"llama.cpp cannot quantise {target.name}: {library.log.reason()}; free the disk, or "
                "export another level"
            )
        after = read_gguf(draft)
        shapes = {tensor.name: tensor.shape for tensor in before.tensors}
        if {tensor.name: tensor.shape for tensor in after.tensors} != shapes:
            raise QuantiseError(f"llama.cpp wrote other tensors to {target.name} than it was given; export it again")
    return read_gguf(target)
