"""Fills a weightless ONNX graph from a checkpoint, quantised or not, and writes it with its data beside it.

Weights stream from the checkpoint's memory map to the data files a few rows at a time. Knows how a weight is stored in
ONNX, not what the graph computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError, MissingExtra
from ..runtime.files import write_bytes
from ..runtime.quantise import BlockFormat, QuantiseError, quantise
from ..training.checkpoint import Checkpoint
from .onnx_data import DataFiles

INLINE_BYTES = 1024
"""Smaller tensors stay in the graph's own file."""
WORK_WEIGHTS = 1 << 22
"""How many weights are in memory at a time."""

_STORED: dict[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class WeightError(InfimedError):
    """A tensor of the checkpoint is missing, damaged or of the wrong shape."""


@dataclass(frozen=True)
class Source:
    """A weight of the checkpoint as the matrix (out, in) or vector that it is; read piece by piece as float32."""

    checkpoint: Checkpoint
    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        spec = self.checkpoint.tensors.get(self.name)
        if spec is None:
            raise WeightError(f"{self.checkpoint.folder} has no tensor {self.name}; its config.json promises one")
        flat = spec.shape if len(spec.shape) == 1 else (spec.shape[0], int(np.prod(spec.shape[1:])))
        if flat != self.shape:
            raise WeightError(
                f"tensor {self.name} has shape {list(spec.shape)}; config.json asks for {list(self.shape)}"
            )
        if spec.dtype not in _STORED:
            raise WeightError(f"tensor {self.name} is stored as {spec.dtype}; floating-point weights are needed")

    @property
    def dtype(self) -> str:
        """The tensor's type in the checkpoint, in safetensors' words."""
        return self.checkpoint.tensors[self.name].dtype

    def stored(self) -> NDArray[Any]:
        """Return the memory map; BF16, which numpy lacks, as the uint16 of its bits."""
        return self.checkpoint.raw(self.name).view(_STORED[self.dtype]).reshape(self.shape)

    def read(self, part: tuple[slice, ...] | slice) -> NDArray[np.float32]:
        """Return a part as float32. Raises WeightError for NaN or infinity."""
        values = self.stored()[part]
        if self.dtype == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        values = values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise WeightError(f"tensor {self.name} holds NaN or infinity; the checkpoint is damaged")
        return values

    def rows(self) -> Iterator[NDArray[np.float32]]:
        """Yield the matrix (out, in) some rows at a time."""
        step = max(1, WORK_WEIGHTS // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield self.read(slice(start, start + step))

    def turned(self) -> Iterator[NDArray[np.float32]]:
        """Yield the matrix turned around, (in, out), some rows at a time."""
        step = max(1, WORK_WEIGHTS // self.shape[0])
        for start in range(0, self.shape[1], step):
            yield np.ascontiguousarray(self.read((slice(None), slice(start, start + step))).T)


@dataclass(frozen=True)
class Storage:
    """How a quantised matrix is stored and multiplied.

    int8_activations: the kernel rounds what it multiplies by to 8 bits per block too (MatMulNBits' accuracy_level 4).
    """

    format: BlockFormat
    int8_activations: bool

    @property
    def name(self) -> str:
        """The type as manifests name it."""
        return f"{self.format.name}, {'int8' if self.int8_activations else 'float32'} activations"


@dataclass(frozen=True)
class Scheme:
    """How the matrices of a graph are stored: by default, and those of their own. None: float32."""

    matrices: Storage | None
    named: Mapping[str, Storage | None] = field(default_factory=dict)

    def of(self, name: str) -> Storage | None:
        """Return how the matrix of that name is stored."""
        return self.named.get(name, self.matrices)


@dataclass(frozen=True)
class Written:
    """What was written. files: names, the graph first. types: the type each tensor got, by the checkpoint's name."""

    files: tuple[str, ...]
    types: Mapping[str, str]


def write_graph(
    model: Any,
    folder: Path,
    stem: str,
    sources: Mapping[str, Source | NDArray[np.float32]],
    scheme: Scheme,
    on_tensor: Callable[[str], None] = lambda name: None,
) -> Written:
    """Write `stem`.onnx and its data files into `folder`; `model` is used up.

    model: an onnx.ModelProto whose first inputs are the weights, as onnx_trace.trace returns it; what it takes as
    float16 is stored so. sources: each weight by the input's name; an array is stored as it is. The graph file appears
    last; then onnx.checker reads it.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtra("export", "onnx") from None
    graph = model.graph
    data = DataFiles(folder, stem)
    types: dict[str, str] = {}
    try:
        pieces: Iterator[NDArray[Any]]
        for value in [value for value in graph.input if value.name in sources]:
            graph.input.remove(value)
            source = sources[value.name]
            if not isinstance(source, Source):
                _store(graph, data, value.name, source.shape, iter([source]))
                continue
            half = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
            storage = scheme.of(value.name) if len(source.shape) == 2 else None
            if storage is not None:
                _store_blocks(model, data, value.name, source, storage)
            elif len(source.shape) == 2:
                pieces = _halved(source) if half else source.turned()
                _store(graph, data, value.name, source.shape[::-1], pieces)
            else:
                pieces = _halved(source) if half else iter([source.read(slice(None))])
                _store(graph, data, value.name, source.shape, pieces)
            types[source.name] = storage.name if storage else "float16" if half else "float32"
            on_tensor(source.name)
        files = data.close()
    except BaseException:
        data.discard()
        raise
    path = folder / f"{stem}.onnx"
    write_bytes(path, model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise WeightError(f"{path.name} is no valid ONNX ({error}); this is a fault of infimed") from None
    return Written((path.name, *files), types)


def _halved(source: Source) -> Iterator[NDArray[np.float16]]:
    """Yield a matrix turned around, or a vector, as float16. Raises WeightError for what float16 cannot hold."""
    for piece in source.turned() if len(source.shape) == 2 else iter([source.read(slice(None))]):
        with np.errstate(over="ignore"):
            halved = piece.astype(np.float16)
        if not np.isfinite(halved).all():
            raise WeightError(
                f"tensor {source.name} holds {np.abs(piece).max():g}; float16 ends at 65504: take a level of float32"
            )
        yield halved


def _store(graph: Any, data: DataFiles, name: str, shape: tuple[int, ...], pieces: Iterator[NDArray[Any]]) -> None:
    """Add an initialiser whose numbers are `pieces`, one after the other; their type is that of the first."""
    import onnx

    first = next(pieces)
    tensor = graph.initializer.add(name=name, dims=shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(first.dtype))
    size_bytes = int(np.prod(shape)) * first.dtype.itemsize
    if size_bytes < INLINE_BYTES:
        tensor.raw_data = b"".join(piece.tobytes() for piece in chain([first], pieces))
        return
    file, offset = data.begin(size_bytes)
    for piece in chain([first], pieces):
        data.write(piece)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", file), ("offset", str(offset)), ("length", str(size_bytes))):
        tensor.external_data.add(key=key, value=text)


def _store_blocks(model: Any, data: DataFiles, name: str, source: Source, storage: Storage) -> None:
    """Store a matrix quantised, and let every MatMul by it become com.microsoft's MatMulNBits."""
    import onnx

    format = storage.format
    out, inner = source.shape
    rest: list[tuple[NDArray[np.float32], NDArray[np.uint8] | None]] = []

    def packed() -> Iterator[NDArray[np.uint8]]:
        for rows in source.rows():
            try:
                blocks = quantise(rows, format)
            except QuantiseError as error:
                raise WeightError(f"tensor {source.name}: {error}") from None
            rest.append((blocks.scales, blocks.zero_points))
            yield blocks.packed

    shape = (out, format.blocks(inner), format.block * format.bits // 8)
    _store(model.graph, data, f"{name}.packed", shape, packed())
    inputs = [f"{name}.packed", f"{name}.scales"]
    scales = np.concatenate([scale for scale, _ in rest])
    _store(model.graph, data, inputs[1], scales.shape, iter([scales]))
    if not format.symmetric:
        zero_points = np.concatenate([zero for _, zero in rest if zero is not None])
        inputs.append(f"{name}.zero_points")
        _store(model.graph, data, inputs[2], zero_points.shape, iter([zero_points]))
    users = [node for node in model.graph.node if name in node.input]
    for node in users:
        if node.op_type != "MatMul" or node.input[1] != name:
            raise WeightError(f"{name} feeds a {node.op_type} and cannot be quantised; this is a fault of infimed")
        replacement = onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], *inputs],
            list(node.output),
            name=node.name.replace("MatMul", "MatMulNBits"),
            domain="com.microsoft",
            K=inner,
            N=out,
            bits=format.bits,
            block_size=format.block,
        )
        if storage.int8_activations:
            replacement.attribute.append(onnx.helper.make_attribute("accuracy_level", 4))
        node.CopyFrom(replacement)
    if all(entry.domain != "com.microsoft" for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
