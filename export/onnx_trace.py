"""Traces a plain torch function into an ONNX graph without any weights, by torch.onnx on the meta device.

The weights are inputs of the function, so no number of them is needed, made or folded; they become initialisers when
onnx_weights.py fills them in. Knows no model and no file.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .. import InfimedError, MissingExtra

if TYPE_CHECKING:
    import torch

OPSET = 20
IR_VERSION = 10
"""What onnxruntime 1.23, the last for Python 3.10, reads without question."""

Side = int | str
Dtype = Literal["float32", "float16"]
"""The type a graph computes its matrix products in."""


class TraceError(InfimedError):
    """torch.onnx did not give the graph that was asked for."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: its name, type and sides; a named side may be of any size."""

    name: str
    dtype: Literal["float32", "float16", "int64", "bool"]
    sides: tuple[Side, ...]


def weight_ports(weights: Mapping[str, tuple[int, ...]], halves: Collection[str] = ()) -> list[Port]:
    """Return the weights as the first inputs of a graph: those in `halves` are float16, the others float32."""
    return [Port(name, "float16" if name in halves else "float32", shape) for name, shape in weights.items()]


def declared(port: Port) -> Any:
    """Return a port as an onnx.ValueInfoProto."""
    from onnx import TensorProto, helper

    types = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}
    types |= {"int64": TensorProto.INT64, "bool": TensorProto.BOOL}
    return helper.make_tensor_value_info(port.name, types[port.dtype], port.sides)


def trace(
    function: Callable[..., Sequence[torch.Tensor]],
    weights: Mapping[str, tuple[int, ...]],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    samples: Mapping[str, int],
    halves: Collection[str] = (),
) -> Any:
    """Return the onnx.ModelProto of `function(weights, *inputs)`; its first inputs are the weights.

    weights: name -> shape; those in `halves` are float16, the others float32. samples: the size at which each named
    side is traced, never 0 or 1, which torch would take for fixed. Same arguments, same bytes: nothing of this machine,
    of the source files or of the time is in the graph.
    """
    try:
        import onnx  # noqa: F401  (torch.onnx needs it)
        import torch
        import torch.onnx
    except ModuleNotFoundError as error:
        raise MissingExtra("export", error.name or "torch") from None

    class Traced(torch.nn.Module):
        def forward(self, given: list[torch.Tensor], rest: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            return tuple(function(dict(zip(weights, given, strict=True)), *rest))

    def blank(sides: Sequence[Side], dtype: str) -> torch.Tensor:
        shape = [side if isinstance(side, int) else samples[side] for side in sides]
        return torch.zeros(shape, dtype=getattr(torch, dtype), device="meta")

    shaped = weight_ports(weights, halves)
    arguments = ([blank(p.sides, p.dtype) for p in shaped], [blank(p.sides, p.dtype) for p in inputs])
    free = torch.export.Dim.DYNAMIC
    dynamic: tuple[Any, Any] = (
        [None] * len(weights),
        [{axis: free for axis, side in enumerate(port.sides) if isinstance(side, str)} for port in inputs],
    )
    with _quiet():
        exported = torch.export.export(Traced(), arguments, dynamic_shapes=dynamic, strict=False)
        program = torch.onnx.export(exported, dynamo=True, opset_version=OPSET, optimize=True, verbose=False)
    if program is None:
        raise TraceError("torch.onnx gave no graph; this is a fault of infimed or of the installed torch")
    model = program.model_proto
    _strip(model)
    _name(model.graph, [*weights, *(port.name for port in inputs)], [port.name for port in outputs])
    for values, ports in ((model.graph.input, [*shaped, *inputs]), (model.graph.output, outputs)):
        for value, port in zip(values, ports, strict=True):
            _declare(value, port)
    return model


def _strip(model: Any) -> None:
    """Remove what tells of source files, modules and this machine, and shapes that others would have to believe."""
    from onnx import helper

    opset = next((entry.version for entry in model.opset_import if entry.domain == ""), 0)
    if model.functions or opset != OPSET:
        raise TraceError(
            f"torch.onnx gave opset {opset} with {len(model.functions)} functions; {OPSET} with none is needed"
        )
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.domain = "infimed", "", ""
    model.graph.name, model.doc_string, model.graph.doc_string = "infimed", "", ""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"


def _name(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the graph's inputs and outputs their documented names; numbers for every value in between."""
    if len(graph.input) != len(inputs) or len(graph.output) != len(outputs):
        raise TraceError(
            f"torch.onnx gave {len(graph.input)} inputs and {len(graph.output)} outputs; {len(inputs)} and "
            f"{len(outputs)} are needed (an input that the function does not use is lost)"
        )
    names = {value.name: name for value, name in zip(graph.input, inputs, strict=True)}
    if passed := [value.name for value in graph.output if value.name in names]:
        raise TraceError(f"the graph hands input {names[passed[0]]} through as an output; it must compute it")
    names |= {value.name: name for value, name in zip(graph.output, outputs, strict=True)}
    for tensor in graph.initializer:
        names.setdefault(tensor.name, f"constant_{len(names)}")
        tensor.name = names[tensor.name]
    for index, node in enumerate(graph.node):
        for place, value in enumerate(node.output):
            if value:
                names.setdefault(value, f"value_{index}_{place}")
                node.output[place] = names[value]
        for place, value in enumerate(node.input):
            if value:
                node.input[place] = names[value]
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]


def _declare(value: Any, port: Port) -> None:
    wanted, tensor = declared(port), value.type.tensor_type
    if tensor.elem_type != wanted.type.tensor_type.elem_type:
        raise TraceError(f"{port.name} is of ONNX type {tensor.elem_type}, {port.dtype} is needed")
    if len(tensor.shape.dim) != len(port.sides):
        raise TraceError(f"{port.name} has {len(tensor.shape.dim)} sides, {len(port.sides)} are needed")
    for dim, side in zip(tensor.shape.dim, port.sides, strict=True):
        if dim.HasField("dim_value") and dim.dim_value != side:
            raise TraceError(f"{port.name} was traced with a side fixed at {dim.dim_value}, {side} is needed")
    value.CopyFrom(wanted)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's remarks on libraries that are not needed here from the terminal."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
