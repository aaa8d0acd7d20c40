"""Matrices in blocks of integers: stored as com.microsoft's MatMulNBits takes them, and multiplied by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..runtime.hqq import fit_hqq, quantise_hqq
from ..runtime.kquant import quantise_kquant
from ..runtime.quantise import BlockFormat, Blocks, QuantiseError, quantise
from .onnx_filling import MICROSOFT, Filling
from .onnx_source import Source, WeightError

Method = Literal["rtn", "hqq", "kquant"]


@dataclass(frozen=True)
class BlockStorage:
    """How a matrix in blocks is stored and multiplied.

    int8_activations: the kernel rounds what it multiplies by to 8 bits per block too (MatMulNBits' accuracy_level 4).
    method: how scales and zero points are chosen: round-to-nearest of each block's range, HQQ, or k-quant's search.
    """

    format: BlockFormat
    int8_activations: bool = False
    method: Method = "rtn"

    @property
    def name(self) -> str:
        """The type as manifests name it."""
        how = {"rtn": "", "hqq": " by HQQ", "kquant": " by k-quant"}[self.method]
        return f"{self.format.name}{how}, {'int8' if self.int8_activations else 'float32'} activations"

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight with scale and zero point, for rows of whole blocks."""
        return self.format.bits_per_weight

    @staticmethod
    def first_part(name: str) -> str:
        """Return the name of the initialiser with the integers of a weight."""
        return f"{name}.packed"


def store_blocks(filling: Filling, name: str, source: Source, storage: BlockStorage) -> None:
    """Store a matrix quantised, and let every MatMul by it become a MatMulNBits. Raises WeightError."""
    import onnx

    format = storage.format
    out, inner = source.shape
    scales: list[NDArray[np.float32]] = []
    zero_points: list[NDArray[Any]] = []

    def packed() -> Iterator[NDArray[np.uint8]]:
        try:
            for blocks in quantised(filling, source, storage):
                scales.append(blocks.scales)
                if blocks.zero_points is not None:
                    zero_points.append(blocks.zero_points)
                yield blocks.packed
        except QuantiseError as error:
            raise WeightError(f"tensor {source.name}: {error}") from None

    shape = (out, format.blocks(inner), format.block * format.bits // 8)
    inputs = [filling.store(f"{name}.packed", shape, packed())]
    for part, pieces in (("scales", scales), ("zero_points", zero_points)):
        if pieces:
            whole = np.concatenate(pieces)
            inputs.append(filling.store(f"{name}.{part}", whole.shape, [whole]))
    for node in filling.products(name):
        settings: dict[str, Any] = {"K": inner, "N": out, "bits": format.bits, "block_size": format.block}
        if storage.int8_activations:
            settings["accuracy_level"] = 4
        replacement = onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], *inputs],
            list(node.output),
            name=node.name.replace("MatMul", "MatMulNBits"),
            domain=MICROSOFT,
            **settings,
        )
        filling.replace(node, [replacement])
    filling.needs(MICROSOFT)


def quantised(filling: Filling, source: Source, storage: BlockStorage) -> Iterable[Blocks]:
    """Yield the blocks of a matrix piece by piece. Raises QuantiseError."""
    format = storage.format
    if storage.method == "hqq":
        fitted = fit_hqq(source.rows, format, filling.each)
        pairs = zip(source.rows(), fitted, strict=True)
        return filling.each(lambda pair: quantise_hqq(pair[0], pair[1], format), pairs)
    method = quantise_kquant if storage.method == "kquant" else quantise
    return filling.each(lambda rows: method(rows, format), source.rows())
