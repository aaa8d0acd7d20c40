"""The vision tower of Qwen2.5-VL as one ONNX graph: pixels in, image embeddings out, for one or several images.

Patches keep their order throughout; attention inside windows gathers them into padded windows and scatters them back,
along indices that runtime/vision_index.py computes. Knows no file and no weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..runtime.vision_index import window_tokens
from .onnx_decoder import GraphError, halves, rms_norm, rotate
from .onnx_repeat import trace_deep
from .onnx_trace import Dtype, Port, trace, weight_ports

if TYPE_CHECKING:
    import torch

INVERSE_FREQUENCIES = "rotary.inverse_frequencies"
PATCHES = "patch_embed.proj.weight"
NORM_EPSILON = 1e-6
ROPE_THETA = 10000.0
FIRST_WEIGHT = "blocks.{}.norm1.weight"
"""What a layer uses first."""


@dataclass(frozen=True)
class VisionNumbers:
    """What the graph is made of. patch_values: numbers per patch. window_size: pixels. full: layers without windows."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    out: int
    patch_values: int
    patch_size: int
    merge_size: int
    window_size: int
    full: tuple[int, ...]

    @classmethod
    def of(cls, config: Any) -> VisionNumbers:
        """Read a transformers Qwen2_5_VLConfig. Raises GraphError for what this graph does not do."""
        vision = config.vision_config
        rope = vision.rope_parameters or {}
        unusual = {
            "hidden_act": vision.hidden_act != "silu",
            "rope_theta": rope.get("rope_theta", ROPE_THETA) != ROPE_THETA,
            "out_hidden_size": vision.out_hidden_size != config.text_config.hidden_size,
        }
        if wrong := [name for name, differs in unusual.items() if differs]:
            raise GraphError(f"config.json: {', '.join(wrong)} of the vision tower is not what Qwen2.5-VL's graph does")
        numbers = cls(
            layers=vision.depth,
            hidden=vision.hidden_size,
            intermediate=vision.intermediate_size,
            heads=vision.num_heads,
            out=vision.out_hidden_size,
            patch_values=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            window_size=vision.window_size,
            full=tuple(sorted(vision.fullatt_block_indexes)),
        )
        try:
            window_tokens(numbers.window_size, numbers.patch_size, numbers.merge_size)
        except ValueError as error:
            raise GraphError(f"config.json: {error}") from None
        return numbers

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the matrices by name, each (in, out): the checkpoint's turned around, the convolution flattened."""
        wide = self.hidden * self.merge_size**2
        shapes = {PATCHES: (self.patch_values, self.hidden)}
        for layer in range(self.layers):
            at = f"blocks.{layer}"
            shapes |= {
                f"{at}.attn.qkv.weight": (self.hidden, 3 * self.hidden),
                f"{at}.attn.proj.weight": (self.hidden, self.hidden),
                f"{at}.mlp.gate_proj.weight": (self.hidden, self.intermediate),
                f"{at}.mlp.up_proj.weight": (self.hidden, self.intermediate),
                f"{at}.mlp.down_proj.weight": (self.intermediate, self.hidden),
            }
        return {**shapes, "merger.mlp.0.weight": (wide, wide), "merger.mlp.2.weight": (wide, self.out)}

    def vectors(self) -> dict[str, tuple[int]]:
        """Return the norms and biases of the checkpoint by name."""
        shapes = {"merger.ln_q.weight": (self.hidden,)}
        for layer in range(self.layers):
            for norm in ("norm1", "norm2"):
                shapes[f"blocks.{layer}.{norm}.weight"] = (self.hidden,)
        for name, (_, out) in self.matrices().items():
            if name != PATCHES:
                shapes[name.removesuffix("weight") + "bias"] = (out,)
        return shapes


def trace_vision(numbers: VisionNumbers, dtype: Dtype = "float32") -> Any:
    """Return the graph as an onnx.ModelProto whose first inputs are the weights.

    float16: matrices and biases are; pixels, norms, rotation, softmax, the sum over the layers and the embeddings that
    come out stay float32, with explicit casts between them.
    """
    weights, inputs, outputs = _ports(numbers)

    def trace_layers(kinds: Sequence[str]) -> Any:
        full = tuple(layer for layer, kind in enumerate(kinds) if kind == "full")
        return trace_whole(replace(numbers, layers=len(kinds), full=full), dtype)

    return trace_deep(
        trace_layers,
        ["full" if layer in numbers.full else "window" for layer in range(numbers.layers)],
        FIRST_WEIGHT,
        [*weight_ports(weights, halves(weights) if dtype == "float16" else ()), *inputs],
        outputs,
    )


def trace_whole(numbers: VisionNumbers, dtype: Dtype = "float32") -> Any:
    """Return the same graph, every layer traced: slower, and the judge of what is repeated."""
    weights, inputs, outputs = _ports(numbers)

    def function(w: Mapping[str, torch.Tensor], *given: torch.Tensor) -> Sequence[torch.Tensor]:
        return [encode(numbers, w, *given)]

    samples = {"patches": 6 * numbers.merge_size**2, "windows": 3}
    model = trace(function, weights, inputs, outputs, samples, halves(weights) if dtype == "float16" else ())
    for key in ("window_size", "patch_size", "merge_size"):
        model.metadata_props.add(key=key, value=str(getattr(numbers, key)))
    return model


def _ports(numbers: VisionNumbers) -> tuple[dict[str, tuple[int, ...]], list[Port], list[Port]]:
    """Return the weights, the inputs beside them and the outputs."""
    side = window_tokens(numbers.window_size, numbers.patch_size, numbers.merge_size)
    slots = (side * numbers.merge_size) ** 2
    inputs = [
        Port("pixel_values", "float32", ("patches", numbers.patch_values)),
        Port("position_ids", "int64", ("patches", 2)),
        Port("win_gather", "int64", ("windows", slots)),
        Port("win_mask", "bool", ("windows", slots)),
        Port("win_scatter", "int64", ("patches",)),
        Port("seg_ids", "int64", ("patches",)),
    ]
    outputs = [Port("image_embeddings", "float32", ("image_tokens", numbers.out))]
    return {**numbers.vectors(), **numbers.matrices(), INVERSE_FREQUENCIES: (numbers.head_dim // 4,)}, inputs, outputs


def encode(
    numbers: VisionNumbers,
    w: Mapping[str, torch.Tensor],
    pixel_values: torch.Tensor,
    position_ids: torch.Tensor,
    win_gather: torch.Tensor,
    win_mask: torch.Tensor,
    win_scatter: torch.Tensor,
    seg_ids: torch.Tensor,
) -> torch.Tensor:
    """Return (image tokens, out), float32. Shapes of the inputs: see VisionIndex.

    pixel_values: (patches, patch_values), float32. Products are of the matrices' type, all between them is float32.
    """
    import torch

    kind = w[PATCHES].dtype
    hidden = (pixel_values.to(kind) @ w[PATCHES]).float()
    angles = (position_ids[..., None].float() * w[INVERSE_FREQUENCIES]).flatten(1)
    cos, sin = angles.cos(), angles.sin()
    least = torch.finfo(torch.float).min
    in_window = torch.zeros_like(win_mask, dtype=torch.float).masked_fill(~win_mask, least)[:, None, None]
    apart = seg_ids[:, None] != seg_ids[None]
    in_frame = torch.zeros_like(apart, dtype=torch.float).masked_fill(apart, least)
    for layer in range(numbers.layers):
        at = f"blocks.{layer}"
        normed = rms_norm(hidden, w[f"{at}.norm1.weight"], NORM_EPSILON).to(kind)
        mixed = normed @ w[f"{at}.attn.qkv.weight"] + w[f"{at}.attn.qkv.bias"]
        query, key, value = mixed.reshape(-1, 3, numbers.heads, numbers.head_dim).unbind(1)
        query = (rotate(query.float(), cos, sin) * numbers.head_dim**-0.5).to(kind)
        key = rotate(key.float(), cos, sin).to(kind)
        if layer in numbers.full:
            # one head after the other: the scores of all heads at once would take patches^2 * heads * 4 bytes
            each = [_attend(query[:, head], key[:, head], value[:, head], in_frame) for head in range(numbers.heads)]
            seen = torch.cat(each, dim=-1)
        else:
            shape = (*win_gather.shape, numbers.heads, numbers.head_dim)
            query, key, value = (
                part.index_select(0, win_gather.flatten()).reshape(shape).transpose(1, 2)
                for part in (query, key, value)
            )
            seen = _attend(query, key, value, in_window)
            seen = seen.transpose(1, 2).reshape(-1, numbers.hidden).index_select(0, win_scatter)
        hidden = hidden + (seen @ w[f"{at}.attn.proj.weight"] + w[f"{at}.attn.proj.bias"]).float()
        normed = rms_norm(hidden, w[f"{at}.norm2.weight"], NORM_EPSILON).to(kind)
        gate = torch.nn.functional.silu(normed @ w[f"{at}.mlp.gate_proj.weight"] + w[f"{at}.mlp.gate_proj.bias"])
        up = normed @ w[f"{at}.mlp.up_proj.weight"] + w[f"{at}.mlp.up_proj.bias"]
        down = (gate * up) @ w[f"{at}.mlp.down_proj.weight"] + w[f"{at}.mlp.down_proj.bias"]
        hidden = hidden + down.float()
    merged = rms_norm(hidden, w["merger.ln_q.weight"], NORM_EPSILON).to(kind)
    merged = merged.reshape(-1, numbers.hidden * numbers.merge_size**2)
    merged = torch.nn.functional.gelu(merged @ w["merger.mlp.0.weight"] + w["merger.mlp.0.bias"])
    return (merged @ w["merger.mlp.2.weight"] + w["merger.mlp.2.bias"]).float()


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return softmax(query @ key^T + bias) @ value, the softmax in float32; query is scaled."""
    scores = (query @ key.transpose(-1, -2)).float()
    seen: torch.Tensor = (scores + bias).softmax(-1).to(value.dtype) @ value
    return seen
