"""Fills a weightless ONNX graph from a checkpoint, quantised or not, and writes it with its data beside it.

Weights stream from the checkpoint's memory map to the data files a few rows at a time. Knows which weight is stored in
which way, not what the graph computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.files import write_bytes
from ..runtime.onnx_file import check_onnx_file
from .onnx_blocks import BlockStorage, store_blocks
from .onnx_channels import ChannelStorage, store_channels
from .onnx_data import DataFiles
from .onnx_filling import Filling
from .onnx_source import Source, WeightError
from .tensorrt_weights import TypedStorage, store_typed

Storage = BlockStorage | ChannelStorage | TypedStorage
Sources = Mapping[str, Source | NDArray[np.float32]]


@dataclass(frozen=True)
class Scheme:
    """How the matrices of a graph are stored: by default, and those of their own. None: in the graph's own type.

    dtype: the graph's own type.
    """

    matrices: Storage | None
    named: Mapping[str, Storage | None] = field(default_factory=dict)
    dtype: Literal["float32", "float16"] = "float32"

    def of(self, name: str) -> Storage | None:
        """Return how the matrix of that name is stored."""
        return self.named.get(name, self.matrices)

    @property
    def needs_ranges(self) -> bool:
        """Whether the ranges of activations must be known beforehand."""
        match self.matrices:
            case ChannelStorage():
                return self.matrices.activations == "static"
            case TypedStorage():
                return self.matrices.bits == 8
        return False


@dataclass(frozen=True)
class Written:
    """What was written. files: names, the graph first. types: the type each tensor got, by the checkpoint's name."""

    files: tuple[str, ...]
    types: Mapping[str, str]


def kept(
    folder: Path, stem: str, sources: Sources, scheme: Scheme, metadata: Mapping[str, str] | None = None
) -> Written | None:
    """Return what lies in `folder` already under that stem, None if nothing does.

    metadata: what its graph must state. Raises WeightError or OnnxFileError where it is of another model or damaged.
    """
    import onnx

    path = folder / f"{stem}.onnx"
    if not path.is_file():
        return None
    check_onnx_file(path)
    model = onnx.load(str(path), load_external_data=False)
    stated = {one.key: one.value for one in model.metadata_props}
    if any(stated.get(key) != value for key, value in (metadata or {}).items()):
        raise WeightError(f"{path} was calibrated on something else; export the level into a bundle of its own")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors.values()]
    types = {}
    for name, source in sources.items():
        if not isinstance(source, Source):
            continue
        storage = scheme.of(name) if len(source.shape) == 2 else None
        tensor = tensors.get(storage.first_part(name) if storage else name)
        if tensor is None:
            raise WeightError(f"{path} holds no {name}: it is of another model; export into a bundle of its own")
        types[source.name] = storage.name if storage else str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    files = dict.fromkeys(place["location"] for place in places if place)
    return Written((path.name, *files), types)


def write_graph(
    model: Any,
    folder: Path,
    stem: str,
    sources: Sources,
    scheme: Scheme,
    on_tensor: Callable[[str, int], None] = lambda name, written_bytes: None,
    *,
    threads: int = 1,
    ranges: Mapping[str, float] | None = None,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
) -> Written:
    """Write `stem`.onnx and its data files into `folder`; `model` is used up.

    model: an onnx.ModelProto whose first inputs are the weights, as onnx_trace.trace returns it; a weight that it takes
    as float16 is stored so. sources: each weight by the input's name; an array is stored as it is. ranges: the largest
    size that static activations keep, by the weight they are multiplied by. importance: what an error in each input
    channel of a matrix counts. on_tensor: told of each weight, with the bytes of all so far. The graph file appears
    last; then onnx.checker reads it. Raises WeightError.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtra("export", "onnx") from None
    graph = model.graph
    data = DataFiles(folder, stem)
    filling = Filling(model, data, threads, ranges or {}, importance or {})
    types: dict[str, str] = {}
    try:
        for value in [value for value in graph.input if value.name in sources]:
            graph.input.remove(value)
            source = sources[value.name]
            if not isinstance(source, Source):
                filling.store(value.name, source.shape, [source])
                continue
            half = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
            storage = scheme.of(value.name) if len(source.shape) == 2 else None
            match storage:
                case BlockStorage():
                    store_blocks(filling, value.name, source, storage)
                case ChannelStorage():
                    store_channels(filling, value.name, source, storage)
                case TypedStorage():
                    store_typed(filling, value.name, source, storage)
                case None:
                    filling.store(value.name, source.shape[::-1], _halved(source) if half else _plain(source))
            types[source.name] = storage.name if storage else "float16" if half else "float32"
            on_tensor(source.name, data.written_bytes)
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


def _plain(source: Source) -> Iterator[NDArray[np.float32]]:
    """Yield a matrix turned around, or a vector, as float32."""
    return source.turned() if len(source.shape) == 2 else iter([source.read(slice(None))])


def _halved(source: Source) -> Iterator[NDArray[np.float16]]:
    """Yield a matrix turned around, or a vector, as float16. Raises WeightError for what float16 cannot hold."""
    for piece in _plain(source):
        with np.errstate(over="ignore"):
            halved = piece.astype(np.float16)
        if not np.isfinite(halved).all():
            raise WeightError(
                f"tensor {source.name} holds {np.abs(piece).max():g}; float16 ends at 65504: take a level of float32"
            )
        yield halved
