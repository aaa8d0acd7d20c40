"""Reads the weights of an ONNX level back as float32, however it stores them, and rewrites its graph with them.

What the rewritten graph computes in full precision is what the level's weights alone do: products whose activations
were rounded to 8 bits are plain ones again. Knows the forms that onnx_blocks.py, onnx_channels.py, onnx_weights.py and,
for TensorRT, tensorrt_weights.py write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.files import write_bytes
from ..runtime.onnx_file import check_onnx_file
from ..runtime.quantise import BlockFormat, Blocks, dequantise, unpack
from . import onnx_decoder
from .onnx_data import DataFiles
from .onnx_filling import MICROSOFT, Filling
from .onnx_source import WORK_WEIGHTS

Piece = Callable[[int, int], NDArray[np.float32]]
TYPED_PARTS = ("int8", "int4")
"""How the initialisers of integers end that tensorrt_weights.py writes."""


@dataclass(frozen=True)
class Matrix:
    """A matrix as a level stores it. shape: (out, in). columns: gives some inputs of it, (out, stop - start)."""

    name: str
    shape: tuple[int, int]
    columns: Piece
    parts: frozenset[str]

    def turned(self) -> Iterator[NDArray[np.float32]]:
        """Yield the matrix turned around, (in, out), some rows at a time."""
        # whole pairs of blocks: two zero points of 4 bits share a byte
        step = max(256, WORK_WEIGHTS // self.shape[0] // 256 * 256)
        for start in range(0, self.shape[1], step):
            yield np.ascontiguousarray(self.columns(start, min(start + step, self.shape[1])).T)


def read_weights(folder: Path, stem: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each matrix of a graph by its name in the model hub's layout, as the float32 (out, in) that it stands for.

    stem: of the graph's files, "decoder" or what vision_stem() says. Norms and biases are not quantised and left out.
    Raises OnnxFileError.
    """
    model = _load(folder / f"{stem}.onnx")
    prefix = "visual." if stem.startswith("vision") else "model."
    for matrix in matrices(model, folder):
        hub = matrix.name if matrix.name == onnx_decoder.HEAD else prefix + matrix.name
        yield hub, matrix.columns(0, matrix.shape[1])


def dequantised(folder: Path, stem: str, out_folder: Path) -> tuple[str, ...]:
    """Write the graph at `folder` into `out_folder` with every number in it float32; return the names of its files.

    Each quantised matrix becomes the plain one that it stands for, each integer product a plain MatMul; what rounded
    activations is gone; a float16 graph becomes one of float32 with its weights as they were rounded. Same inputs and
    outputs, but for float16 ones. Raises OnnxFileError.
    """
    model = _load(folder / f"{stem}.onnx")
    import onnx

    graph = model.graph
    found = matrices(model, folder)
    taken = frozenset[str]().union(*(matrix.parts for matrix in found))
    rest = [tensor for tensor in graph.initializer if tensor.name not in taken]
    del graph.initializer[:]
    out_folder.mkdir(parents=True, exist_ok=True)
    data = DataFiles(out_folder, stem)
    filling = Filling(model, data)
    try:
        for matrix in found:
            filling.store(matrix.name, matrix.shape[::-1], matrix.turned())
            for node in graph.node:
                _make_plain(graph, node, matrix.name)
            for node in [node for node in graph.node if matrix.name in node.output]:
                graph.node.remove(node)  # what gave the matrix by undoing its rounding, under the matrix's name
        _drop_unused(graph)
        used = {name for node in graph.node for name in node.input}
        for tensor in rest:
            if tensor.name in used:
                values = _array(tensor, folder)
                kept = values.astype(np.float32) if values.dtype == np.float16 else values
                filling.store(tensor.name, tuple(tensor.dims), [kept])
        _widen(graph)
        files = data.close()
    except BaseException:
        data.discard()
        raise
    if all(node.domain != MICROSOFT for node in graph.node):
        kept_opsets = [entry for entry in model.opset_import if entry.domain != MICROSOFT]
        del model.opset_import[:]
        model.opset_import.extend(kept_opsets)
    path = out_folder / f"{stem}.onnx"
    write_bytes(path, model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    return (path.name, *files)


def matrices(model: Any, folder: Path) -> list[Matrix]:
    """Return every matrix of a loaded graph, in the order it is used in."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, Matrix] = {}
    for node in model.graph.node:
        for name in node.input:
            base, _, part = name.rpartition(".")
            if part == "packed":
                found[base] = _blocks(node, base, tensors, folder)
            elif part == "integers" and name in tensors:
                found[base] = _channels(base, tensors, folder)
            elif part in TYPED_PARTS and name in tensors and node.op_type == "DequantizeLinear":
                found[base] = _typed(node, base, part, tensors, folder)
            elif part == "weight" and name in tensors and len(tensors[name].dims) == 2:
                found[name] = _plain(tensors[name], folder)
    return list(found.values())


def _load(path: Path) -> Any:
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtra("export", "onnx") from None
    check_onnx_file(path)
    return onnx.load(str(path), load_external_data=False)


def _blocks(node: Any, name: str, tensors: Mapping[str, Any], folder: Path) -> Matrix:
    stated = {one.name: one.i for one in node.attribute}
    parts = {part: _array(tensors[f"{name}.{part}"], folder) for part in ("packed", "scales")}
    zeros = _array(tensors[f"{name}.zero_points"], folder) if f"{name}.zero_points" in tensors else None
    bits, block = stated["bits"], stated["block_size"]
    format = BlockFormat(bits, block, zeros is None, float_zeros=zeros is not None and zeros.dtype == np.float32)

    def columns(start: int, stop: int) -> NDArray[np.float32]:
        first, last = start // block, -(-stop // block)
        zero_part = None
        if zeros is not None:
            per = 1 if format.float_zeros else 8 // bits
            zero_part = zeros[:, first // per : -(-last // per)]
        some = Blocks(parts["packed"][:, first:last], parts["scales"][:, first:last], zero_part)
        return dequantise(some, stop - first * block, format)

    names = [f"{name}.{part}" for part in ("packed", "scales", "zero_points")]
    return Matrix(name, (stated["N"], stated["K"]), columns, frozenset(names))


def _channels(name: str, tensors: Mapping[str, Any], folder: Path) -> Matrix:
    integers, scales = (_array(tensors[f"{name}.{part}"], folder) for part in ("integers", "scales"))

    def columns(start: int, stop: int) -> NDArray[np.float32]:
        return np.ascontiguousarray((integers[start:stop].astype(np.float32) * scales).T)

    names = [f"{name}.{part}" for part in ("integers", "scales", "zero_points")]
    return Matrix(name, (integers.shape[1], integers.shape[0]), columns, frozenset(names))


def _typed(node: Any, name: str, part: str, tensors: Mapping[str, Any], folder: Path) -> Matrix:
    """Return a matrix behind a DequantizeLinear: what stands for it is integer times scale, in the scale's float16."""
    integers, scales = tensors[f"{name}.{part}"], _array(tensors[f"{name}.scales"], folder)
    inner, out = (int(side) for side in integers.dims)
    block = next((one.i for one in node.attribute if one.name == "block_size"), 0)
    packed = _bytes(integers, folder)

    def columns(start: int, stop: int) -> NDArray[np.float32]:
        if part == "int8":
            rows = packed[start * out : stop * out].view(np.int8).reshape(-1, out)
            some = scales[None]
        else:
            first, skipped = start * out // 2, start * out % 2
            nibbles = unpack(packed[first : -(-stop * out // 2)], 4)[skipped:][: (stop - start) * out]
            rows = ((nibbles ^ np.uint8(8)).astype(np.int8) - np.int8(8)).reshape(-1, out)
            blocks = np.arange(start, stop) // block
            some = scales[blocks]
        made = (rows.astype(np.float32) * some.astype(np.float32)).astype(scales.dtype)
        return np.ascontiguousarray(made.T.astype(np.float32))

    return Matrix(name, (out, inner), columns, frozenset([f"{name}.{part}", f"{name}.scales"]))


def _bytes(tensor: Any, folder: Path) -> NDArray[np.uint8]:
    """Return an initialiser's bytes; two numbers of 4 bits share one, for which numpy has no type."""
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return np.frombuffer(tensor.raw_data, np.uint8)
    place = {entry.key: entry.value for entry in tensor.external_data}
    shape = (int(place["length"]),)
    return np.memmap(folder / place["location"], np.uint8, "r", offset=int(place["offset"]), shape=shape)


def _plain(tensor: Any, folder: Path) -> Matrix:
    values = _array(tensor, folder)

    def columns(start: int, stop: int) -> NDArray[np.float32]:
        return np.ascontiguousarray(values[start:stop].T.astype(np.float32))

    return Matrix(tensor.name, (values.shape[1], values.shape[0]), columns, frozenset([tensor.name]))


def _array(tensor: Any, folder: Path) -> NDArray[Any]:
    """Return an initialiser's numbers: a memory map where they lie in a file beside the graph."""
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        inline: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
        return inline
    place = {entry.key: entry.value for entry in tensor.external_data}
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    shape = tuple(tensor.dims)
    return np.memmap(folder / place["location"], kind, "r", offset=int(place["offset"]), shape=shape)


def _make_plain(graph: Any, node: Any, name: str) -> None:
    """Let a node that multiplies by the stored form of a matrix multiply by the matrix itself."""
    import onnx

    given = None
    if node.op_type == "MatMulNBits" and node.input[1] == f"{name}.packed":
        given, last = node.input[0], node
    elif node.op_type == "MatMulInteger" and node.input[1] == f"{name}.integers":
        # sums, then as floating-point numbers, then times both scales
        given, last = _maker(graph, node.input[0]).input[0], _user(graph, _user(graph, node.output[0]).output[0])
    elif node.op_type == "MatMul" and node.input[1] == f"{name}.dequantised":
        given, last = _maker(graph, _maker(graph, node.input[0]).input[0]).input[0], node
    elif node.op_type == "MatMul" and node.input[1] == name:
        given, last = _unrounded(graph, node.input[0]), node
    if given is not None:
        product = onnx.helper.make_node("MatMul", [given, name], list(last.output), name=last.name)
        last.CopyFrom(product)


def _maker(graph: Any, value: str) -> Any:
    return next(node for node in graph.node if value in node.output)


def _unrounded(graph: Any, value: str) -> str | None:
    """Return what a pair of QuantizeLinear and DequantizeLinear rounded to give a value; None where none did."""
    makers = {made: node for node in graph.node for made in node.output}
    undoing = makers.get(value)
    if undoing is None or undoing.op_type != "DequantizeLinear":
        return None
    rounding = makers.get(undoing.input[0])
    return str(rounding.input[0]) if rounding is not None and rounding.op_type == "QuantizeLinear" else None


def _user(graph: Any, value: str) -> Any:
    return next(node for node in graph.node if value in node.input)


def _drop_unused(graph: Any) -> None:
    """Remove the nodes whose results nobody takes, and those before them."""
    while True:
        needed = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        kept = [node for node in graph.node if needed & set(node.output)]
        if len(kept) == len(graph.node):
            return
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)


def _widen(graph: Any) -> None:
    """Make every float16 value of a graph a float32 one; its initialisers are stored so already."""
    import onnx

    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = full
    for node in graph.node:
        for one in node.attribute:
            if node.op_type == "Cast" and one.name == "to" and one.i == half:
                one.i = full
            if one.HasField("t") and one.t.data_type == half:
                wide = onnx.numpy_helper.to_array(one.t).astype(np.float32)
                one.t.CopyFrom(onnx.numpy_helper.from_array(wide, one.t.name))
