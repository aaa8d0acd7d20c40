"""Llama 2 and Llama 3.x in GGUF and ONNX: rows of queries and keys in another order, and slowed rotary turns.

llama.cpp's graph "llama" turns neighbouring values of a head together, transformers those that lie half a head apart:
its converter puts the rows of each head side by side (LlamaModel.permute). What rope_type llama3 does to the rotary
frequencies is a tensor of divisors (LlamaModel.generate_extra_tensors). A test holds both against that converter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..runtime.llama_files import ROPE_FACTORS
from .gguf_names import FamilyMapping, GgufTensor, TextShape, taken_as_is


def _unusual(config: Mapping[str, Any]) -> list[str]:
    return [f"{key} {config[key]}" for key in ("attention_bias", "mlp_bias") if config.get(key)]


def _tensors(shape: TextShape) -> tuple[GgufTensor, ...]:
    heads = {"attn_q.weight": shape.heads, "attn_k.weight": shape.kv_heads}
    found = tuple(
        replace(tensor, heads=heads.get(tensor.name.split(".", 2)[-1])) for tensor in taken_as_is(shape.sizes.tensors())
    )
    if shape.scaling is None:
        return found
    divisors = shape.scaling.divisors(shape.rope_base, shape.head_dim)
    return (*found, GgufTensor(ROPE_FACTORS, (len(divisors),), "", (), values=divisors))


def _keys(shape: TextShape) -> dict[str, int | list[int]]:
    found: dict[str, int | list[int]] = {
        "vocab_size": shape.sizes.vocabulary,
        "rope.dimension_count": shape.head_dim,
    }
    if shape.head_dim_stated:
        found |= {"attention.key_length": shape.head_dim, "attention.value_length": shape.head_dim}
    return found


MAPPING = FamilyMapping(unusual=_unusual, own_head_dim=True, tensors=_tensors, keys=_keys)
