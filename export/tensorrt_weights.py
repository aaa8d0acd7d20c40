"""Matrices as TensorRT takes them: integers behind explicit Q/DQ in a float16 graph, standard operators only.

A rounded matrix becomes an initialiser and a DequantizeLinear that bears the matrix's name, so the products stay as
they were traced; at 8 bits what they multiply goes through QuantizeLinear and DequantizeLinear too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..runtime.levels import TENSORRT_BLOCK
from . import onnx_source
from .onnx_filling import Filling
from .onnx_source import Source
from .tensorrt_quantise import channel_scales, round_blocks, round_channels, scales_of

OPSET = 21
"""The first with INT4 and blocks of DequantizeLinear; a graph without them keeps the opset it was traced with."""


@dataclass(frozen=True)
class TypedStorage:
    """How a matrix of a float16 graph is rounded. bits: 8, per channel, activations too; 4, in blocks, weights only."""

    bits: Literal[8, 4]

    @property
    def name(self) -> str:
        """The type as manifests name it."""
        if self.bits == 8:
            return "int8-channel-symmetric, static int8 activations"
        return f"int4-block{TENSORRT_BLOCK}-symmetric, float16 activations"

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight; the scale of a channel is shared by a whole row."""
        return 8.0 if self.bits == 8 else 4 + 16 / TENSORRT_BLOCK

    def first_part(self, name: str) -> str:
        """Return the name of the initialiser with the integers of a weight."""
        return f"{name}.int{self.bits}"


def store_typed(filling: Filling, name: str, source: Source, storage: TypedStorage) -> None:
    """Store a matrix (in, out) rounded, and let what multiplies by it be as its bits say.

    Raises WeightError; KeyError where the range of 8-bit activations is missing from filling.ranges.
    """
    undo = _store_channels(filling, name, source) if storage.bits == 8 else _store_blocks(filling, name, source)
    before = [undo]
    for node in filling.products(name):
        after = type(node)()
        after.CopyFrom(node)
        if storage.bits == 8:
            pair, after.input[0] = _rounding(filling, node.input[0], filling.ranges[name])
            before += pair
        filling.replace(node, [*before, after])
        before = []


def _store_channels(filling: Filling, name: str, source: Source) -> Any:
    from onnx import helper

    scales = channel_scales(source.rows())
    pieces = (round_channels(piece, scales) for piece in source.turned())
    inputs = [
        filling.store(f"{name}.int8", source.shape[::-1], pieces),
        filling.store(f"{name}.scales", scales.shape, [scales]),
    ]
    return helper.make_node("DequantizeLinear", inputs, [name], name=f"DequantizeLinear_{name}", axis=1)


def _store_blocks(filling: Filling, name: str, source: Source) -> Any:
    from onnx import TensorProto, helper

    out, inner = source.shape
    importance = filling.importance.get(name)
    step = max(1, onnx_source.WORK_WEIGHTS // 8 // (out * TENSORRT_BLOCK)) * TENSORRT_BLOCK
    made: list[NDArray[np.float16]] = []

    def packed() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, inner, step):
            part = slice(start, start + step)
            turned = np.ascontiguousarray(source.read((slice(None), part)).T)
            integers, scales = round_blocks(turned, None if importance is None else importance[part])
            made.append(scales)
            yield integers

    inputs = [filling.store(f"{name}.int4", (inner, out), packed(), TensorProto.INT4, inner * out // 2)]
    together = np.concatenate(made)
    inputs.append(filling.store(f"{name}.scales", together.shape, [together]))
    filling.raise_opset(OPSET)
    node = f"DequantizeLinear_{name}"
    return helper.make_node("DequantizeLinear", inputs, [name], name=node, axis=0, block_size=TENSORRT_BLOCK)


def _rounding(filling: Filling, value: str, largest: float) -> tuple[list[Any], str]:
    """Return the pair of nodes that rounds a value in its range, none where it is rounded already; and the result."""
    from onnx import helper

    found = filling.shared.get((value, largest))
    if found is not None:
        return [], found[0]
    stem = f"{value}.{sum(key[0] == value for key in filling.shared)}"
    scale = np.asarray(scales_of(np.array(largest, dtype=np.float32), 127))
    numbers = [
        filling.store(f"{stem}.scale", (), [scale]),
        filling.store(f"{stem}.zero_point", (), [np.zeros((), np.int8)]),
    ]
    low, rounded = f"{stem}.int8", f"{stem}.rounded"
    filling.shared[value, largest] = (rounded,)
    return [
        helper.make_node("QuantizeLinear", [value, *numbers], [low], name=f"QuantizeLinear_{stem}"),
        helper.make_node("DequantizeLinear", [low, *numbers], [rounded], name=f"DequantizeLinear_{stem}"),
    ], rounded
