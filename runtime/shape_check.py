"""Holds a checkpoint's tensors against its config.json, by the headers alone: a model is built only of what fits.

A library that builds the model first takes what a damaged config.json says, or a default of 7 billion parameters where
it says nothing. Knows the tensor names of the Qwen2.5-VL family in every layout that transformers wrote, and no value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .prompt import read_json
from .shape import CheckpointError, ModelShape, context_limit, is_vision, read_header, weight_files

# Tensors of one layer -> their dimensions, slowest first; a side is a key of _sides.
_TEXT_LAYER = {
    "input_layernorm.weight": ("hidden",),
    "self_attn.q_proj.weight": ("queries", "hidden"),
    "self_attn.q_proj.bias": ("queries",),
    "self_attn.k_proj.weight": ("keys", "hidden"),
    "self_attn.k_proj.bias": ("keys",),
    "self_attn.v_proj.weight": ("keys", "hidden"),
    "self_attn.v_proj.bias": ("keys",),
    "self_attn.o_proj.weight": ("hidden", "queries"),
    "post_attention_layernorm.weight": ("hidden",),
    "mlp.gate_proj.weight": ("ffn", "hidden"),
    "mlp.up_proj.weight": ("ffn", "hidden"),
    "mlp.down_proj.weight": ("hidden", "ffn"),
}
_VISION_LAYER = {
    "norm1.weight": ("eyes",),
    "attn.qkv.weight": ("3 eyes", "eyes"),
    "attn.qkv.bias": ("3 eyes",),
    "attn.proj.weight": ("eyes", "eyes"),
    "attn.proj.bias": ("eyes",),
    "norm2.weight": ("eyes",),
    "mlp.gate_proj.weight": ("eyes ffn", "eyes"),
    "mlp.gate_proj.bias": ("eyes ffn",),
    "mlp.up_proj.weight": ("eyes ffn", "eyes"),
    "mlp.up_proj.bias": ("eyes ffn",),
    "mlp.down_proj.weight": ("eyes", "eyes ffn"),
    "mlp.down_proj.bias": ("eyes",),
}
_ENDS = {
    "embed_tokens.weight": ("vocabulary", "hidden"),
    "norm.weight": ("hidden",),
    "visual.merger.ln_q.weight": ("eyes",),
    "visual.merger.mlp.0.weight": ("merged", "merged"),
    "visual.merger.mlp.0.bias": ("merged",),
    "visual.merger.mlp.2.weight": ("hidden", "merged"),
    "visual.merger.mlp.2.bias": ("hidden",),
}
_HEAD = "lm_head.weight"
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
    for what, layers, vision in (
        ("num_hidden_layers", shape.layers, False),
        ("vision_config.depth", shape.vision.layers, True),
    ):
        numbers = {int(at.group(1)) for name in found if is_vision(name) is vision and (at := _LAYER.match(name))}
        if numbers != set(range(min(layers, len(numbers) + 1))):  # never counts up to what a damaged file says
            raise CheckpointError(f"config.json: {what} is {layers}, the weights have {len(numbers)} such layers")
    for name, wanted in _wanted(shape).items():
        if found.get(name) != wanted:
            have = found.get(name, "missing")
            raise CheckpointError(
                f"tensor {name} is {have}, by config.json it is {wanted}; the two are of different models"
            )
    _check_heads(config, shape)
    return shape


def _check_heads(config: Mapping[str, Any], shape: ModelShape) -> None:
    if shape.heads % shape.kv_heads or shape.vision.hidden % shape.vision.heads:
        raise CheckpointError(
            f"config.json: {shape.heads} heads with {shape.kv_heads} key heads, and a vision width of "
            f"{shape.vision.hidden} with {shape.vision.heads} heads, do not divide evenly"
        )
    text = config.get("text_config") or config
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    sections = rope.get("mrope_section") if isinstance(rope, Mapping) else None
    whole = isinstance(sections, list) and all(isinstance(value, int) and value >= 0 for value in sections)
    if not whole or not isinstance(sections, list) or len(sections) != 3 or 2 * sum(sections) != shape.head_dim:
        raise CheckpointError(
            f"config.json: mrope_section is {sections!r}; three counts that sum to half of {shape.head_dim} are needed"
        )


def _wanted(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Return each tensor's name, without what stands before it, and its shape."""
    eyes = shape.vision
    sides = {
        "vocabulary": shape.vocab,
        "hidden": shape.hidden,
        "ffn": shape.intermediate,
        "queries": shape.heads * shape.head_dim,
        "keys": shape.kv_heads * shape.head_dim,
        "eyes": eyes.hidden,
        "3 eyes": 3 * eyes.hidden,
        "eyes ffn": eyes.intermediate,
        "merged": eyes.hidden * eyes.merge_size**2,
    }
    named = dict(_ENDS) if shape.tied_embeddings else {**_ENDS, _HEAD: ("vocabulary", "hidden")}
    for layer in range(shape.layers):
        named.update({f"layers.{layer}.{name}": value for name, value in _TEXT_LAYER.items()})
    for layer in range(eyes.layers):
        named.update({f"visual.blocks.{layer}.{name}": value for name, value in _VISION_LAYER.items()})
    wanted = {name: tuple(sides[side] for side in value) for name, value in named.items()}
    wanted["visual.patch_embed.proj.weight"] = (eyes.hidden, 3, 2, eyes.patch_size, eyes.patch_size)
    return wanted
