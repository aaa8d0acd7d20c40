"""Writes activations as an importance matrix in llama.cpp's GGUF form, which its tools read and combine.

The keys and tensors are those of llama.cpp's tools/imatrix/imatrix.cpp. Knows the family's names through
family_mappings.py, and nothing of quantising.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.files import writing
from .activations import Activations
from .family_mappings import mapping_of
from .gguf_names import GgufTensor


def importance_rows(activations: Activations, config: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Return mean x^2 per input channel by GGUF tensor name, of text model and tower: (in,) float32 each.

    A tensor that activations do not hold is left out, as are vectors. config: of the checkpoint (config.json). Raises
    GgufUnsupported for a family that GGUF cannot express, ActivationsError for activations of another width.
    """
    return {
        tensor.name: _row(activations, tensor)
        for tensor in _matrices(config)
        if tensor.source in activations.mean_square
    }


def _matrices(config: Mapping[str, Any]) -> list[GgufTensor]:
    mapping = mapping_of(config)
    tensors = mapping.tensors(mapping.shape(config))
    if mapping.vision_tensors:
        tensors += mapping.vision_tensors(config)
    return [tensor for tensor in tensors if not tensor.is_vector]


def _row(activations: Activations, tensor: GgufTensor) -> NDArray[np.float32]:
    values = activations.importance(tensor.source, int(np.prod(tensor.source_shape[1:])))
    if tensor.frame is None:
        return values
    # One slice in time of a 3D convolution: its share of the channels.
    sliced = values.reshape(tensor.source_shape[1:])[:, tensor.frame]
    return np.ascontiguousarray(sliced).reshape(-1)


def _tokens_each(counts: Mapping[str, int], rows: int) -> int:
    """Return how many tokens a row has on average: llama.cpp counts in chunks of one size."""
    return max(1, max((count for name, count in counts.items() if name.startswith("blk.")), default=0) // max(1, rows))


def write_imatrix(path: Path, activations: Activations, config: Mapping[str, Any], *, rows: int) -> None:
    """Write the importance matrix of a checkpoint whose config.json is `config`. rows: of the calibration, as chunks.

    The dataset is named by the sha256 of its rows; no path enters the file. Same activations, same bytes. Raises as
    importance_rows, and MissingExtra.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtra("export", "gguf") from error

    weighed = importance_rows(activations, config)
    counts = {tensor.name: activations.counts.get(tensor.source, 0) for tensor in _matrices(config)}
    with writing(path) as draft:
        writer = gguf.GGUFWriter(draft, "none")
        del writer.kv_data[0]["general.architecture"]  # gguf-py always adds one; an importance matrix has none
        writer.add_string("general.type", "imatrix")
        writer.add_array("imatrix.datasets", [activations.dataset_sha256])
        writer.add_uint32("imatrix.chunk_count", rows)
        writer.add_uint32("imatrix.chunk_size", _tokens_each(counts, rows))
        for name, mean_square in sorted(weighed.items()):
            count = np.float32(counts[name])
            writer.add_tensor(f"{name}.in_sum2", mean_square * count)
            writer.add_tensor(f"{name}.counts", np.full(1, count))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
