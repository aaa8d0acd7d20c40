"""Matrices in 8 bits per output channel, multiplied by activations in 8 bits: dynamic or static quantisation.

Dynamic: each product measures what it is given (DynamicQuantizeLinear, MatMulInteger), as onnxruntime's
quantize_dynamic writes it. Static: activations go through QuantizeLinear and DequantizeLinear, symmetric, with a range
known beforehand; an engine turns that into an integer product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..runtime.channels import CHANNEL_BITS, quantise_channels, symmetric_scale
from ..runtime.quantise import QuantiseError
from .onnx_filling import Filling
from .onnx_source import Source, WeightError


@dataclass(frozen=True)
class ChannelStorage:
    """How a matrix in 8 bits per output channel is multiplied. activations: when their range is found."""

    activations: Literal["dynamic", "static"]

    @property
    def name(self) -> str:
        """The type as manifests name it."""
        return f"int8-channel-symmetric, {self.activations} int8 activations"

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight; the scale of a channel is shared by a whole row."""
        return CHANNEL_BITS

    @staticmethod
    def first_part(name: str) -> str:
        """Return the name of the initialiser with the integers of a weight."""
        return f"{name}.integers"


def store_channels(filling: Filling, name: str, source: Source, storage: ChannelStorage) -> None:
    """Store a matrix (in, out) in int8 with a scale per output, and let every MatMul by it become an integer product.

    Raises WeightError; KeyError where a static range is missing from filling.ranges.
    """
    import onnx

    scales: list[NDArray[np.float32]] = []

    def measure(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return quantise_channels(rows).scales

    try:
        scales.extend(filling.each(measure, source.rows()))
    except QuantiseError as error:
        raise WeightError(f"tensor {source.name}: {error}") from None
    scale = np.concatenate(scales)

    def turned() -> Iterator[NDArray[np.int8]]:
        # the file holds rows of inputs, the scales are of outputs: so they are found first, in a pass of their own
        for rows in source.turned():
            yield np.clip(np.rint(rows / scale), -127, 127).astype(np.int8)

    filling.store(f"{name}.integers", source.shape[::-1], turned())
    filling.store(f"{name}.scales", scale.shape, [scale])
    if storage.activations == "static":
        filling.store(f"{name}.zero_points", scale.shape, [np.zeros(scale.shape, np.int8)])
    begin = []
    if storage.activations == "static":
        inputs = [f"{name}.{part}" for part in ("integers", "scales", "zero_points")]
        begin.append(
            onnx.helper.make_node(
                "DequantizeLinear", inputs, [f"{name}.dequantised"], name=f"DequantizeLinear_{name}", axis=1
            )
        )
    for node in filling.products(name):
        build = _dynamic if storage.activations == "dynamic" else _static
        filling.replace(node, [*begin, *build(filling, name, node)])
        begin = []


def _dynamic(filling: Filling, name: str, node: Any) -> list[Any]:
    """Return MatMulInteger of what is measured and rounded, times both scales."""
    import onnx

    make, given, made = onnx.helper.make_node, node.input[0], node.output[0]
    nodes = []
    found = filling.shared.get((given, 0.0))
    if found is None:
        found = (f"{given}.integers", f"{given}.scale", f"{given}.zero_point")
        filling.shared[given, 0.0] = found
        nodes.append(make("DynamicQuantizeLinear", [given], list(found), name=f"DynamicQuantizeLinear_{given}"))
    integers, scale, zero_point = found
    return [
        *nodes,
        make("MatMulInteger", [integers, f"{name}.integers", zero_point], [f"{made}.sums"], name=f"Integer{node.name}"),
        make("Cast", [f"{made}.sums"], [f"{made}.wide"], name=f"Cast{node.name}", to=onnx.TensorProto.FLOAT),
        make("Mul", [scale, f"{name}.scales"], [f"{made}.scales"], name=f"Scales{node.name}"),
        make("Mul", [f"{made}.wide", f"{made}.scales"], [made], name=f"Scaled{node.name}"),
    ]


def _static(filling: Filling, name: str, node: Any) -> list[Any]:
    """Return MatMul of what is rounded within its known range and of the dequantised weight."""
    import onnx

    make, given = onnx.helper.make_node, node.input[0]
    largest = filling.ranges[name]
    nodes = []
    found = filling.shared.get((given, largest))
    if found is None:
        stem = f"{given}.{sum(key[0] == given for key in filling.shared)}"
        scale = symmetric_scale(np.array(largest, dtype=np.float32))
        filling.store(f"{stem}.scale", (), [scale])
        filling.store(f"{stem}.zero_point", (), [np.zeros((), np.int8)])
        numbers = [f"{stem}.scale", f"{stem}.zero_point"]
        nodes.append(make("QuantizeLinear", [given, *numbers], [f"{stem}.integers"], name=f"QuantizeLinear_{stem}"))
        nodes.append(
            make("DequantizeLinear", [f"{stem}.integers", *numbers], [f"{stem}.rounded"], name=f"Dequantize_{stem}")
        )
        found = (f"{stem}.rounded",)
        filling.shared[given, largest] = found
    product = make("MatMul", [found[0], f"{name}.dequantised"], list(node.output), name=node.name)
    return [*nodes, product]
