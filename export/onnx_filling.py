"""A weightless ONNX graph while its weights are filled in: initialisers with their data, and products replaced.

Knows graphs, names and files; how a weight is stored is for onnx_blocks.py and onnx_channels.py to know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_data import DataFiles
from .onnx_source import WeightError

INLINE_BYTES = 1024
"""Smaller tensors stay in the graph's own file."""
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Filling:
    """A graph that is being filled.

    model: an onnx.ModelProto. data: where the numbers go. threads: for quantising. ranges: the largest size that static
    activations keep, by the weight they are multiplied by. importance: what an error in an input channel counts, (in,).
    shared: values that several products use, by what they are of.
    """

    model: Any
    data: DataFiles
    threads: int = 1
    ranges: Mapping[str, float] = field(default_factory=dict)
    importance: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    shared: dict[tuple[str, float], tuple[str, ...]] = field(default_factory=dict)

    def store(
        self,
        name: str,
        shape: tuple[int, ...],
        pieces: Iterable[NDArray[Any]],
        kind: int | None = None,
        size_bytes: int | None = None,
    ) -> str:
        """Add an initialiser whose numbers are `pieces`, one after the other; return its name.

        kind, size_bytes: ONNX's number of the type and the bytes of all; by default as the first piece's numpy type
        says, which has none for numbers that share a byte.
        """
        import onnx

        rest = iter(pieces)
        first = next(rest)
        kind = onnx.helper.np_dtype_to_tensor_dtype(first.dtype) if kind is None else kind
        tensor = self.model.graph.initializer.add(name=name, dims=shape, data_type=kind)
        size_bytes = int(np.prod(shape)) * first.dtype.itemsize if size_bytes is None else size_bytes
        if size_bytes < INLINE_BYTES:
            tensor.raw_data = b"".join(piece.tobytes() for piece in chain([first], rest))
            return name
        file, offset = self.data.begin(size_bytes)
        for piece in chain([first], rest):
            self.data.write(piece)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, text in (("location", file), ("offset", str(offset)), ("length", str(size_bytes))):
            tensor.external_data.add(key=key, value=text)
        return name

    def products(self, name: str) -> list[Any]:
        """Return the nodes that multiply by the weight of that name. Raises WeightError where it is used otherwise."""
        users = [node for node in self.model.graph.node if name in node.input]
        for node in users:
            if node.op_type != "MatMul" or node.input[1] != name:
                raise WeightError(f"{name} feeds a {node.op_type} and cannot be quantised; this is a fault of infimed")
        return users

    def replace(self, node: Any, others: list[Any]) -> None:
        """Put other nodes, the last of which gives the same value, in the place of one."""
        nodes = self.model.graph.node
        place = next(index for index, one in enumerate(nodes) if one.name == node.name)
        node.CopyFrom(others[-1])
        for other in reversed(others[:-1]):
            nodes.insert(place, other)

    def needs(self, domain: str) -> None:
        """Name the domain of operators, version 1, among those that the graph uses."""
        import onnx

        if all(entry.domain != domain for entry in self.model.opset_import):
            self.model.opset_import.append(onnx.helper.make_opsetid(domain, 1))

    def raise_opset(self, version: int) -> None:
        """Let the graph be of that version of the standard operators, at least."""
        for entry in self.model.opset_import:
            if entry.domain == "":
                entry.version = max(entry.version, version)

    def each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield work(item) for each item in order, by as many threads as there are; few items are alive at a time."""
        if self.threads == 1:
            yield from map(work, items)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: deque[Future[Any]] = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
