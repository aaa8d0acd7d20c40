"""llama.cpp's own quantiser on an F16 file, the reference of our direct way, and activations to quantise by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from infimed.export.activations import Activations
from infimed.export.gguf_model import GgufModel
from infimed.runtime.llama_library import llama_library, path_bytes
from infimed.runtime.llama_mix import Importance, file_type, importance_array


def quantise_by_llama(
    source: Path, target: Path, storage: str, importance: Importance | None = None, threads: int = 1
) -> Path:
    """Quantise a file by llama_model_quantize; a failure is a failure of the test, with what the library said."""
    library = llama_library()
    params = library.llama.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = file_type(storage)
    if importance is not None:
        params.imatrix, _alive = importance_array(library.llama, importance)
    library.log.clear()
    failed = library.llama.llama_model_quantize(path_bytes(source), path_bytes(target), params)
    assert not failed, library.log.reason()
    return target


def random_activations(model: GgufModel, seed: int = 7) -> Activations:
    """Return activations of every weight that multiplies something, wide enough that it shows in each type."""
    draw = np.random.default_rng(seed)
    squares = {
        tensor.source: np.square(draw.standard_normal(tensor.shape[-1]) * 3).astype(np.float32) + np.float32(1e-3)
        for tensor in model.tensors
        if not tensor.is_vector and tensor.name != "token_embd.weight"
    }
    largest = {name: np.sqrt(values) * np.float32(4) for name, values in squares.items()}
    return Activations(squares, largest, dict.fromkeys(squares, 100), "a" * 64, "d" * 64)
