"""Holds a merged checkpoint against base plus unmerged adapter layer by layer, some rows in memory at a time.

For a model of which not even one copy in float32 fits. The unmerged outputs x W^T + scale (x A^T) B^T are computed as
LoRA computes them, in float64, and never through the merged weight. Judges nothing.

The inputs are standard normal and seeded. So where merging only rounds, each weight by at most a share u of itself,
the difference of an output is normal with a deviation of at most u times the norm of its row of weights, whatever the
weights are: the limit is ten of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..runtime.events import Event, OnEvent
from ..runtime.shape import CheckpointError
from .adapter import Adapter, AdapterError, Update
from .checkpoint import Checkpoint, decode
from .lora import check_lora
from .torch_backend import blank_model

INPUTS = 16
"""How many seeded inputs each layer is shown."""
DEVIATIONS = 10.0
# Half of the last digit as a share of the number (2^-significant bits), and half of the smallest number's last digit.
_ROUNDING = {"F32": (2.0**-24, 2.0**-150), "F16": (2.0**-11, 2.0**-25), "BF16": (2.0**-8, 2.0**-134)}
_FLOAT64_NOISE = 2.0**-40


@dataclass(frozen=True)
class LayerDifference:
    """How far the layers' outputs for the same inputs lie apart.

    layers, inputs, outputs: how many; outputs counts numbers compared. merged_of_limit: the largest difference of the
    merged layers in float32 to the unmerged ones, as a share of what rounding explains. stored_of_limit: the largest
    difference of a stored weight to the merged one, as a share of half its last digit. worst: the layer of the larger.
    update_lost_median, update_lost_largest: by root mean square over a layer's outputs, how much of what the adapter
    adds storing rounded away; 1 means all of it. output_changed_largest: the same beside the whole output. untouched:
    tensors without update, compared byte by byte; changed: those of them that differ.
    """

    layers: int
    inputs: int
    outputs: int
    merged_of_limit: float
    stored_of_limit: float
    worst: str
    update_lost_median: float
    update_lost_largest: float
    output_changed_largest: float
    untouched: int
    changed: tuple[str, ...]


@dataclass
class _Layer:
    """What is summed over the rows of one layer: sums of squares of outputs, and the largest differences."""

    merged_of_limit: float = 0.0
    stored_of_limit: float = 0.0
    outputs: int = 0
    lost: float = 0.0
    added: float = 0.0
    whole: float = 0.0


@dataclass
class _Found:
    layers: dict[str, _Layer] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    untouched: int = 0


def layer_difference_of(
    base: Checkpoint, updates: Mapping[str, Update], stored: Checkpoint, on_event: OnEvent
) -> LayerDifference:
    """Compare the stored checkpoint with base and updates, tensor by tensor.

    updates: by tensor name of the base. Raises CheckpointError where the two have not the same tensors.
    """
    if list(base.tensors) != list(stored.tensors):
        odd = sorted(set(base.tensors) ^ set(stored.tensors))
        raise CheckpointError(f"{stored.folder} has other tensors than its base: {(odd or ['their order'])[0]}")
    found = _Found()
    total, done = base.weight_bytes, 0
    for name, spec in base.tensors.items():
        if spec.shape != stored.tensors[name].shape:
            raise CheckpointError(
                f"{stored.folder}: {name} is {stored.tensors[name].shape}, its base's is {spec.shape}"
            )
        if name in updates:
            found.layers[name] = _compare(base, updates[name], stored, name)
        else:
            found.untouched += 1
            if not _is_the_same(base, stored, name):
                found.changed.append(name)
        done += spec.bytes
        on_event(Event("check", done, total, "bytes"))
    layers = found.layers
    lost = [math.sqrt(layer.lost) / max(math.sqrt(layer.added), 1e-30) for layer in layers.values()]
    changed = [math.sqrt(layer.lost) / max(math.sqrt(layer.whole), 1e-30) for layer in layers.values()]
    return LayerDifference(
        layers=len(layers),
        inputs=INPUTS,
        outputs=sum(layer.outputs for layer in layers.values()),
        merged_of_limit=_largest(layer.merged_of_limit for layer in layers.values()),
        stored_of_limit=_largest(layer.stored_of_limit for layer in layers.values()),
        worst=max(layers, key=lambda name: _largest((layers[name].merged_of_limit, layers[name].stored_of_limit))),
        update_lost_median=float(np.median(lost)),
        update_lost_largest=max(lost),
        output_changed_largest=max(changed),
        untouched=found.untouched,
        changed=tuple(found.changed),
    )


def check_modules(base: Checkpoint, adapter: Adapter) -> None:
    """Raise AdapterError where transformers and peft would not put the updates into the layers that merging takes.

    Both build their models for this without any weight.
    """
    model = blank_model(base)
    shapes = {name: tuple(module.weight.shape) for name, module in model.named_modules() if hasattr(module, "weight")}
    for update in adapter.updates():
        wanted = (update.b.shape[0], update.a.shape[1])
        if shapes.get(update.module) != wanted:
            have = shapes.get(update.module, "missing")
            raise AdapterError(
                f"{adapter.folder}: layer {update.module} is {have} in the model, the update is {wanted}; "
                "the adapter is of another architecture"
            )
    check_lora(model, adapter)


def _compare(base: Checkpoint, update: Update, stored: Checkpoint, name: str) -> _Layer:
    """Compare one updated layer; matrices are (out, in), outputs (inputs, out)."""
    x = _inputs(update.a.shape[1])
    through_a = x @ update.a.T.astype(np.float64)
    share, smallest = _ROUNDING[stored.tensors[name].dtype]
    single, single_smallest = _ROUNDING["F32"]
    layer = _Layer()
    written = _rows_at_the_same_places(stored, base, name)
    for (first, weight), as_stored in zip(base.float_blocks(name), written, strict=True):
        wide = weight.astype(np.float64)
        added = update.scale * (through_a @ update.b[first : first + len(weight)].T.astype(np.float64))
        unmerged = x @ wide.T + added
        merged = update.merged_into(weight, first).astype(np.float64)
        norms = np.linalg.norm(merged, axis=1)
        noise = _FLOAT64_NOISE * (np.linalg.norm(wide, axis=1) + norms)
        limit = DEVIATIONS * (single * norms + single_smallest * math.sqrt(x.shape[1]) + noise)
        layer.merged_of_limit = _largest((layer.merged_of_limit, np.max(np.abs(x @ merged.T - unmerged) / limit)))
        rounded = np.abs(as_stored - merged) / (share * np.abs(merged) + smallest)
        layer.stored_of_limit = _largest((layer.stored_of_limit, np.max(rounded)))
        layer.outputs += unmerged.size
        layer.lost += float(np.sum((x @ as_stored.T - unmerged) ** 2))
        layer.added += float(np.sum(added**2))
        layer.whole += float(np.sum(unmerged**2))
    return layer


def _rows_at_the_same_places(stored: Checkpoint, base: Checkpoint, name: str) -> Iterator[NDArray[np.float64]]:
    """Yield the stored tensor's rows in the blocks of the base's, float64; the two may be of different types."""
    spec = stored.tensors[name]
    raw = stored.raw(name)
    row_bytes = spec.bytes // spec.shape[0]
    for first, weight in base.blocks(name):
        rows = len(weight) // (base.tensors[name].bytes // spec.shape[0])
        part = raw[first * row_bytes : (first + rows) * row_bytes]
        yield decode(part, spec.dtype, (rows, *spec.shape[1:])).astype(np.float64)


def _is_the_same(base: Checkpoint, stored: Checkpoint, name: str) -> bool:
    """Return whether an untouched tensor has the base's bytes, or its numbers rounded once where stored otherwise."""
    if base.tensors[name].dtype == stored.tensors[name].dtype:
        pairs = zip(base.blocks(name), stored.blocks(name), strict=True)
        return all(np.array_equal(one, other) for (_, one), (_, other) in pairs)
    share, smallest = _ROUNDING[stored.tensors[name].dtype]
    written = _rows_at_the_same_places(stored, base, name)
    return all(
        bool(np.all(np.abs(other - one) <= share * np.abs(one.astype(np.float64)) + smallest))
        for (_, one), other in zip(base.float_blocks(name), written, strict=True)
    )


def _inputs(width: int) -> NDArray[np.float64]:
    """Return the seeded inputs of a layer that takes `width` values, (INPUTS, width), standard normal."""
    return np.random.default_rng([20261, width]).standard_normal((INPUTS, width))


def _largest(values: Iterable[float]) -> float:
    """Return the largest value, NaN if any is: max() alone may drop what cannot be compared."""
    return float(np.max(list(values)))
