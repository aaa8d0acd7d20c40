"""The weights of an ONNX or TensorRT level under the hub's names, and what its graphs state of themselves.

How a matrix is stored and what it stands for is read by onnx_stored.py; this adds norms, biases and the embedding
table, so that every tensor of the checkpoint is there. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.quantise import BlockFormat
from .level_weights import EMBEDDING, HEAD, LevelWeight, WeightsError
from .onnx_decoder import INVERSE_FREQUENCIES
from .onnx_stored import TYPED_PARTS, Matrix, matrices

_BLOCK_WEIGHTS = 1 << 22
_PATCHES = "patch_embed.proj.weight"


def onnx_weights(
    decoder: Path, vision: Path | None, embeddings: Path, config: Mapping[str, Any]
) -> tuple[LevelWeight, ...]:
    """Return the weights of a level's two graphs and of its embedding table, by the checkpoint's tensors.

    config: config.json. Raises WeightsError, OnnxFileError or MissingExtra.
    """
    table = np.load(embeddings, mmap_mode="r", allow_pickle=False)

    def rows() -> Iterator[NDArray[np.float32]]:
        step = max(1, _BLOCK_WEIGHTS // table.shape[1])
        for start in range(0, len(table), step):
            part = np.asarray(table[start : start + step])
            wide = (part.astype(np.uint32) << 16).view(np.float32) if part.dtype == np.uint16 else part
            yield wide.astype(np.float32)

    found = [LevelWeight(EMBEDDING, table.shape, frozenset({"float32"}), rows)]
    for path, before in ((decoder, "model."), (vision, "visual.")):
        if path is None:
            continue
        model = _load(path)
        types = _stored_types(model)
        for matrix in matrices(model, path.parent):
            shape: tuple[int, ...] = matrix.shape
            if matrix.name == _PATCHES:
                eyes = config.get("vision_config") or {}
                side, frames = int(eyes.get("patch_size", 14)), int(eyes.get("temporal_patch_size", 2))
                shape = (shape[0], shape[1] // (frames * side * side), frames, side, side)
            name = HEAD if matrix.name == HEAD else before + matrix.name
            found.append(LevelWeight(name, shape, frozenset({types[matrix.name]}), _whole(matrix)))
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 1 and tensor.name.endswith((".weight", ".bias")):
                kind = frozenset({types[tensor.name]})
                values = _array(tensor, path.parent)
                found.append(LevelWeight(before + tensor.name, values.shape, kind, _vector(values)))
    return tuple(found)


def rotary_frequencies(path: Path) -> NDArray[np.float64] | None:
    """Return the inverse rotary frequencies that a graph computes with, None where it has none."""
    for tensor in _load(path).graph.initializer:
        if tensor.name == INVERSE_FREQUENCIES:
            return np.asarray(_array(tensor, path.parent), dtype=np.float64).reshape(-1)
    return None


def graph_metadata(path: Path) -> dict[str, str]:
    """Return what a graph states of itself. Raises WeightsError or MissingExtra."""
    return {entry.key: entry.value for entry in _load(path).metadata_props}


def graph_inputs(path: Path) -> dict[str, tuple[int | None, ...]]:
    """Return the sides of each input of a graph, None where any will do. Raises WeightsError or MissingExtra."""
    return {
        value.name: tuple(
            side.dim_value if side.HasField("dim_value") else None for side in value.type.tensor_type.shape.dim
        )
        for value in _load(path).graph.input
    }


def _stored_types(model: Any) -> dict[str, str]:
    """Return how each weight is stored, in the words of the manifest without those on activations."""
    import onnx

    found = {}
    float_zeros = {
        tensor.name.removesuffix(".zero_points")
        for tensor in model.graph.initializer
        if tensor.name.endswith(".zero_points") and tensor.data_type == onnx.TensorProto.FLOAT
    }
    for tensor in model.graph.initializer:
        stem, _, part = tensor.name.rpartition(".")
        if part == "integers":
            found[stem] = "int8-channel-symmetric"
        elif part in ("weight", "bias"):
            found[tensor.name] = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            stated = {one.name: one.i for one in node.attribute}
            stem = str(node.input[1]).removesuffix(".packed")
            symmetric = len(node.input) < 4 or not node.input[3]
            format = BlockFormat(stated["bits"], stated["block_size"], symmetric, float_zeros=stem in float_zeros)
            found[stem] = format.name
        elif node.op_type == "DequantizeLinear":
            stem, _, part = str(node.input[0]).rpartition(".")
            if part in TYPED_PARTS and stem in node.output:  # a weight; activations bear another name
                blocks = "".join(f"block{one.i}" for one in node.attribute if one.name == "block_size")
                found[stem] = f"{part}-{blocks or 'channel'}-symmetric"
    return found


def _whole(matrix: Matrix) -> Callable[[], Iterator[NDArray[np.float32]]]:
    return lambda: iter([matrix.columns(0, matrix.shape[1])])


def _vector(values: NDArray[Any]) -> Callable[[], Iterator[NDArray[np.float32]]]:
    return lambda: iter([np.asarray(values, dtype=np.float32)])


def _array(tensor: Any, folder: Path) -> NDArray[Any]:
    import onnx

    made: NDArray[Any] = onnx.numpy_helper.to_array(tensor, base_dir=str(folder))
    return made


def _load(path: Path) -> Any:
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtra("export", "onnx") from None
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own kinds, for a file that is none
        raise WeightsError(f"{path} cannot be read as ONNX ({type(error).__name__}); export the level again") from None
