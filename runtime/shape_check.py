"""Holds a checkpoint's tensors against its config.json, by the headers alone: a model is built only of what fits.

A library that builds the model first takes what a damaged config.json says, or a default of 7 billion parameters where
it says nothing. Takes tensor names in every layout that transformers wrote; knows no value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .families import Family, family_of
from .prompt import read_json
from .shape import CheckpointError, ModelShape, TensorInfo, checkpoint_tensors, context_limit, is_vision
from .tensors import Shapes

# What stands before a name in the layouts of transformers 4 and 5 and of the model hub.
_BEFORE = re.compile(r"^(model\.language_model\.|language_model\.model\.|language_model\.|model\.)")
# A head that equals the embedding may be stored beside it; older releases of transformers stored what they computed.
_HEAD, _COMPUTED = "lm_head.weight", ".rotary_emb.inv_freq"
_LAYER = re.compile(r"^(?:layers|visual\.blocks)\.(\d+)\.")


def check_shapes(folder: Path) -> ModelShape:
    """Return the shape of a checkpoint folder whose tensors are those that its config.json describes.

    Raises CheckpointError naming the first that is missing, twice there, of another shape or unknown to the family, or
    what config.json lacks; PromptError or UnsupportedFamily.
    """
    config = read_json(folder / "config.json")
    tensors = checkpoint_tensors(folder)
    shape = ModelShape.from_parts(config, tensors)
    context_limit(config)
    found: dict[str, TensorInfo] = {}
    for tensor in tensors:
        name = _BEFORE.sub("", tensor.name)
        if (twice := found.get(name)) is not None:
            raise CheckpointError(
                f"tensors {twice.name} and {tensor.name} are the same one; the checkpoint is mixed, copy it again"
            )
        found[name] = tensor
    counted = [("num_hidden_layers", shape.layers, False)]
    if shape.vision:
        counted.append(("vision_config.depth", shape.vision.layers, True))
    for what, layers, vision in counted:
        numbers = {int(at.group(1)) for name in found if is_vision(name) is vision and (at := _LAYER.match(name))}
        if numbers != set(range(min(layers, len(numbers) + 1))):  # never counts up to what a damaged file says
            raise CheckpointError(f"config.json: {what} is {layers}, the weights have {len(numbers)} such layers")
    family = family_of(config)
    wanted = _wanted(shape)
    for name, sides in wanted.items():
        if name not in found:
            raise CheckpointError(f"tensor {name} is missing, by config.json it is {sides}; copy the checkpoint again")
        if found[name].shape != sides:
            raise CheckpointError(
                f"tensor {found[name].name} is {found[name].shape}, by config.json it is {sides}; the two are of "
                "different models"
            )
    for name, tensor in found.items():
        if name not in wanted and name != _HEAD and not name.endswith(_COMPUTED):
            raise CheckpointError(
                f"tensor {tensor.name} is unknown to {family.name}: no level would hold it; give the checkpoint of "
                "that family alone (an adapter merged, no state of a training)"
            )
    _check_heads(config, shape, family)
    return shape


def _check_heads(config: Mapping[str, Any], shape: ModelShape, family: Family) -> None:
    eyes = shape.vision
    if shape.heads % shape.kv_heads:
        raise CheckpointError(f"config.json: {shape.heads} heads with {shape.kv_heads} key heads do not divide evenly")
    if eyes and eyes.hidden % eyes.heads:
        raise CheckpointError(f"config.json: {eyes.hidden} vision values and {eyes.heads} heads do not divide evenly")
    if family.rotary != "sections":
        if shape.head_dim % 2:
            raise CheckpointError(
                f"config.json: heads of {shape.head_dim} values; rotary positions need an even number"
            )
        return
    text = config.get("text_config") or config
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    sections = rope.get("mrope_section") if isinstance(rope, Mapping) else None
    whole = isinstance(sections, list) and all(isinstance(value, int) and value >= 0 for value in sections)
    if not whole or not isinstance(sections, list) or len(sections) != 3 or 2 * sum(sections) != shape.head_dim:
        raise CheckpointError(
            f"config.json: mrope_section is {sections!r}; three counts that sum to half of {shape.head_dim} are needed"
        )


def _wanted(shape: ModelShape) -> Shapes:
    """Return each tensor's name, without what stands before it, and its shape."""
    tensors = shape.text_sizes.tensors()
    if tower := shape.vision_sizes:
        tensors += tower.tensors()
    return {_BEFORE.sub("", tensor.hub): tensor.hub_shape for tensor in tensors}
