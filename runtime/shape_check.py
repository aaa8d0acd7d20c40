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
from .shape import CheckpointError, ModelShape, context_limit, is_vision, read_header, weight_files
from .tensors import Shapes

# What stands before a name in the layouts of transformers 4 and 5 and of the model hub.
_BEFORE = re.compile(r"^(model\.language_model\.|language_model\.model\.|language_model\.|model\.)")
_LAYER = re.compile(r"^(?:layers|visual\.blocks)\.(\d+)\.")


def check_shapes(folder: Path) -> ModelShape:
    """Return the shape of a checkpoint folder whose tensors are those that its config.json describes.

    Raises CheckpointError naming the first that is missing or of another shape, or what config.json lacks; PromptError
    or UnsupportedFamily.
    """
    config = read_json(folder / "config.json")
    tensors = [tensor for file in weight_files(folder) for tensor in read_header(file)]
    shape = ModelShape.from_parts(config, tensors)
    context_limit(config)
    found = {_BEFORE.sub("", tensor.name): tensor.shape for tensor in tensors}
    counted = [("num_hidden_layers", shape.layers, False)]
    if shape.vision:
        counted.append(("vision_config.depth", shape.vision.layers, True))
    for what, layers, vision in counted:
        numbers = {int(at.group(1)) for name in found if is_vision(name) is vision and (at := _LAYER.match(name))}
        if numbers != set(range(min(layers, len(numbers) + 1))):  # never counts up to what a damaged file says
            raise CheckpointError(f"config.json: {what} is {layers}, the weights have {len(numbers)} such layers")
    family = family_of(config)
    for name, wanted in _wanted(shape).items():
        if found.get(name) != wanted:
            have = found.get(name, "missing")
            raise CheckpointError(
                f"tensor {name} is {have}, by config.json it is {wanted}; the two are of different models"
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
