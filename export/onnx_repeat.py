"""Makes the graph of a deep model of that of a shallow one: torch traces what a layer is once, not once per layer.

The nodes of a traced graph stand in the order of the program, so what lies between the first weight of one layer and
that of the next is a stretch that repeats. The first layer of each kind computes what all of them share and stands
once; its second one is copied. The result is the graph that tracing all layers gives, byte for byte. Knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .onnx_trace import Port, TraceError, declared

_LAYERED = re.compile(r"((?:layers|blocks|(?:past|new)_(?:key|value))\.)(\d+)(.*)")


def shallow_kinds(kinds: Sequence[str]) -> tuple[str, ...] | None:
    """Return the kinds of the layers of the model to trace, None where that would not be shallower.

    kinds: of each layer of the deep model. Two of each kind are needed, and a last layer that is not the first of its
    kind.
    """
    found = (*(kind for kind in dict.fromkeys(kinds) for _ in range(2)), kinds[-1])
    return found if len(found) < len(kinds) and all(kinds.count(kind) > 1 for kind in found) else None


def trace_deep(
    trace_layers: Callable[[Sequence[str]], Any],
    kinds: Sequence[str],
    first_weight: str,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
) -> Any:
    """Return the graph of a model with layers of these kinds, traced as shallow as that can be.

    trace_layers: traces the model with layers of the kinds it is given. The rest as for `deepen`.
    """
    shallow = shallow_kinds(kinds)
    traced = trace_layers(shallow or kinds)
    return deepen(traced, kinds, first_weight, inputs, outputs) if shallow else traced


@dataclass(frozen=True)
class _Stretch:
    """Nodes [start, stop) of the shallow graph: from behind the first weight of `layer` to that of the next one."""

    layer: int
    start: int
    stop: int


def deepen(model: Any, kinds: Sequence[str], first_weight: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> Any:
    """Return the graph of a model with layers of these kinds.

    model: the graph of one with the layers shallow_kinds(kinds). first_weight: the name of the weight that a layer
    uses first, with {} for the layer. inputs, outputs: of the deep graph, weights first. Raises TraceError where the
    shallow graph is not made of layers one after the other.
    """
    import onnx

    shallow = shallow_kinds(kinds)
    if shallow is None:
        raise TraceError(f"a graph of {len(kinds)} layers cannot be made of a shallower one")
    nodes = list(model.graph.node)
    ends = [_first_use(nodes, first_weight.format(layer)) for layer in range(len(shallow))]
    stretches = [
        _Stretch(layer, end + 1, after + 1) for layer, (end, after) in enumerate(pairwise([*ends, len(nodes) - 1]))
    ]
    made = {name: (index, place) for index, node in enumerate(nodes) for place, name in enumerate(node.output)}
    carried = _carried(nodes, stretches, made)
    head = stretches[0].start

    deep = onnx.ModelProto()
    deep.CopyFrom(model)
    del deep.graph.node[head:]
    placed: dict[int, int] = {}  # where the first copy of each stretch begins

    def renamed(name: str, stretch: _Stretch, layer: int, begin: int) -> str:
        if name in made and not _LAYERED.fullmatch(name):
            index, place = made[name]
            if index < head:
                return name
            if index >= stretch.start:
                return f"value_{begin + index - stretch.start}_{place}" if name.startswith("value_") else name
            if stretch.start - index in carried:
                return f"value_{begin + index - stretch.start}_{place}"
            owner = next(one for one in stretches if one.start <= index < one.stop)
            if shallow.index(shallow[owner.layer]) != owner.layer:
                raise TraceError(f"{name} of a repeated layer is used by a later one; it cannot be repeated")
            return f"value_{placed[owner.layer] + index - owner.start}_{place}"
        return _shifted(name, layer - stretch.layer)

    seen: set[str] = set()
    for layer, kind in enumerate(kinds):
        number = shallow.index(kind) + (kind in seen)
        seen.add(kind)
        stretch = stretches[-1] if layer == len(kinds) - 1 else stretches[number]
        begin = len(deep.graph.node)
        placed.setdefault(stretch.layer, begin)
        for node in nodes[stretch.start : stretch.stop]:
            copy = deep.graph.node.add()
            copy.CopyFrom(node)
            copy.name = f"{node.op_type}_{len(deep.graph.node) - 1}"
            copy.input[:] = [renamed(name, stretch, layer, begin) for name in node.input]
            copy.output[:] = [renamed(name, stretch, layer, begin) for name in node.output]
    more = len(inputs) + len(outputs) - len(model.graph.input) - len(model.graph.output)
    constants = {
        tensor.name: f"constant_{int(tensor.name.removeprefix('constant_')) + more}"
        for tensor in deep.graph.initializer
    }
    for tensor in deep.graph.initializer:
        tensor.name = constants[tensor.name]
    for node in deep.graph.node:
        node.input[:] = [constants.get(name, name) for name in node.input]
    for values, ports in ((deep.graph.input, inputs), (deep.graph.output, outputs)):
        del values[:]
        values.extend(declared(port) for port in ports)
    return deep


def _first_use(nodes: Sequence[Any], weight: str) -> int:
    users = [index for index, node in enumerate(nodes) if weight in node.input]
    if len(users) != 1:
        raise TraceError(f"{weight} is used {len(users)} times in the traced graph; a layer begins with one use of it")
    return users[0]


def _carried(nodes: Sequence[Any], stretches: Sequence[_Stretch], made: dict[str, tuple[int, int]]) -> frozenset[int]:
    """Return what every stretch takes from the one before it: how far before its own start that was made."""
    found = []
    for before, stretch in pairwise(stretches):
        taken = {made[name][0] for node in nodes[stretch.start : stretch.stop] for name in node.input if name in made}
        found.append({stretch.start - index for index in taken if before.start <= index < before.stop})
    return frozenset(set.intersection(*found))


def _shifted(name: str, layers: int) -> str:
    found = _LAYERED.fullmatch(name)
    return f"{found[1]}{int(found[2]) + layers}{found[3]}" if found else name
