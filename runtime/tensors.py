"""The tensors of the model families, one table: GGUF's name of each, the checkpoint's, and its sides.

What export writes, what a GGUF header is held against and what a checkpoint must bring all come from here. GGUF's names
are llama.cpp's (gguf-py tensor_mapping.py); the checkpoint's are in the layout of the model hub. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]

HEAD = "output.weight"
"""GGUF's name of an output head that is not the token embedding."""
FRAMES = 2
"""Frames that one patch of the vision tower spans; a still image is its own second frame."""


@dataclass(frozen=True)
class TensorRow:
    """One tensor: its names and its sides in GGUF, slowest first, as keys of a table of sizes.

    third: which third of the checkpoint's tensor it is, where that stacks three. frame: which frame of a convolution
    over FRAMES of them it is. bias: whether only families with biases have it.
    """

    gguf: str
    hub: str
    sides: tuple[str, ...]
    third: int | None = None
    frame: int | None = None
    bias: bool = False


@dataclass(frozen=True)
class Tensor:
    """A row at its place in a model. shape: in GGUF. hub_shape: of the checkpoint's tensor that it comes from."""

    gguf: str
    hub: str
    shape: tuple[int, ...]
    hub_shape: tuple[int, ...]
    third: int | None
    frame: int | None


TEXT_LAYER: tuple[TensorRow, ...] = (
    TensorRow("attn_norm.weight", "input_layernorm.weight", ("hidden",)),
    TensorRow("attn_q.weight", "self_attn.q_proj.weight", ("queries", "hidden")),
    TensorRow("attn_q.bias", "self_attn.q_proj.bias", ("queries",), bias=True),
    TensorRow("attn_k.weight", "self_attn.k_proj.weight", ("keys", "hidden")),
    TensorRow("attn_k.bias", "self_attn.k_proj.bias", ("keys",), bias=True),
    TensorRow("attn_v.weight", "self_attn.v_proj.weight", ("keys", "hidden")),
    TensorRow("attn_v.bias", "self_attn.v_proj.bias", ("keys",), bias=True),
    TensorRow("attn_output.weight", "self_attn.o_proj.weight", ("hidden", "queries")),
    TensorRow("ffn_norm.weight", "post_attention_layernorm.weight", ("hidden",)),
    TensorRow("ffn_gate.weight", "mlp.gate_proj.weight", ("ffn", "hidden")),
    TensorRow("ffn_up.weight", "mlp.up_proj.weight", ("ffn", "hidden")),
    TensorRow("ffn_down.weight", "mlp.down_proj.weight", ("hidden", "ffn")),
)
_EMBEDDING = TensorRow("token_embd.weight", "model.embed_tokens.weight", ("vocabulary", "hidden"))
_LAST_NORM = TensorRow("output_norm.weight", "model.norm.weight", ("hidden",))
_HEAD = TensorRow(HEAD, "lm_head.weight", ("vocabulary", "hidden"))

VISION_LAYER: tuple[TensorRow, ...] = (
    TensorRow("ln1.weight", "norm1.weight", ("hidden",)),
    TensorRow("attn_q.weight", "attn.qkv.weight", ("hidden", "hidden"), third=0),
    TensorRow("attn_q.bias", "attn.qkv.bias", ("hidden",), third=0),
    TensorRow("attn_k.weight", "attn.qkv.weight", ("hidden", "hidden"), third=1),
    TensorRow("attn_k.bias", "attn.qkv.bias", ("hidden",), third=1),
    TensorRow("attn_v.weight", "attn.qkv.weight", ("hidden", "hidden"), third=2),
    TensorRow("attn_v.bias", "attn.qkv.bias", ("hidden",), third=2),
    TensorRow("attn_out.weight", "attn.proj.weight", ("hidden", "hidden")),
    TensorRow("attn_out.bias", "attn.proj.bias", ("hidden",)),
    TensorRow("ln2.weight", "norm2.weight", ("hidden",)),
    TensorRow("ffn_gate.weight", "mlp.gate_proj.weight", ("ffn", "hidden")),
    TensorRow("ffn_gate.bias", "mlp.gate_proj.bias", ("ffn",)),
    TensorRow("ffn_up.weight", "mlp.up_proj.weight", ("ffn", "hidden")),
    TensorRow("ffn_up.bias", "mlp.up_proj.bias", ("ffn",)),
    TensorRow("ffn_down.weight", "mlp.down_proj.weight", ("hidden", "ffn")),
    TensorRow("ffn_down.bias", "mlp.down_proj.bias", ("hidden",)),
)
_PATCHES = ("hidden", "colours", "patch", "patch")
VISION_ENDS: tuple[TensorRow, ...] = (
    # One 2D convolution per frame, and their sum.
    TensorRow("v.patch_embd.weight", "visual.patch_embed.proj.weight", _PATCHES, frame=0),
    TensorRow("v.patch_embd.weight.1", "visual.patch_embed.proj.weight", _PATCHES, frame=1),
    TensorRow("v.post_ln.weight", "visual.merger.ln_q.weight", ("hidden",)),
    TensorRow("mm.0.weight", "visual.merger.mlp.0.weight", ("merged", "merged")),
    TensorRow("mm.0.bias", "visual.merger.mlp.0.bias", ("merged",)),
    TensorRow("mm.2.weight", "visual.merger.mlp.2.weight", ("out", "merged")),
    TensorRow("mm.2.bias", "visual.merger.mlp.2.bias", ("out",)),
)


@dataclass(frozen=True)
class TextSizes:
    """The sizes that decide a text model's tensors. queries, keys: widths of all heads of a kind together."""

    layers: int
    hidden: int
    ffn: int
    queries: int
    keys: int
    vocabulary: int
    tied: bool
    biases: bool

    def tensors(self) -> tuple[Tensor, ...]:
        """Return each tensor, in the order in which export writes them."""
        sides = {
            "hidden": self.hidden,
            "ffn": self.ffn,
            "queries": self.queries,
            "keys": self.keys,
            "vocabulary": self.vocabulary,
        }
        rows = [row for row in TEXT_LAYER if self.biases or not row.bias]
        found = [_place(_EMBEDDING, sides)]
        for layer in range(self.layers):
            found += _placed(rows, sides, f"blk.{layer}.", f"model.layers.{layer}.")
        found.append(_place(_LAST_NORM, sides))
        return tuple(found) if self.tied else (*found, _place(_HEAD, sides))

    def shapes(self) -> Shapes:
        """Return each tensor's shape in GGUF, in the order in which export writes them."""
        return {tensor.gguf: tensor.shape for tensor in self.tensors()}


@dataclass(frozen=True)
class VisionSizes:
    """The sizes that decide a vision tower's tensors.

    out: width of the text model it speaks to. merge: patches per side of an image token.
    """

    layers: int
    hidden: int
    ffn: int
    patch: int
    out: int
    merge: int = 2

    def tensors(self) -> tuple[Tensor, ...]:
        """Return each tensor, in the order in which export writes them."""
        sides = {"hidden": self.hidden, "ffn": self.ffn, "patch": self.patch, "out": self.out, "colours": 3}
        sides["merged"] = self.merge**2 * self.hidden
        found: list[Tensor] = []
        for layer in range(self.layers):
            found += _placed(VISION_LAYER, sides, f"v.blk.{layer}.", f"visual.blocks.{layer}.")
        return (*found, *_placed(VISION_ENDS, sides))

    def shapes(self) -> Shapes:
        """Return each tensor's shape in GGUF, in the order in which export writes them."""
        return {tensor.gguf: tensor.shape for tensor in self.tensors()}


def _placed(rows: Iterable[TensorRow], sides: Mapping[str, int], gguf: str = "", hub: str = "") -> list[Tensor]:
    return [_place(row, sides, gguf, hub) for row in rows]


def _place(row: TensorRow, sides: Mapping[str, int], gguf: str = "", hub: str = "") -> Tensor:
    """Return a row with its sizes. gguf, hub: what stands before its names."""
    shape = tuple(sides[side] for side in row.sides)
    hub_shape = shape
    if row.third is not None:
        hub_shape = (3 * shape[0], *shape[1:])
    elif row.frame is not None:
        hub_shape = (*shape[:2], FRAMES, *shape[2:])
    return Tensor(gguf + row.gguf, hub + row.hub, shape, hub_shape, row.third, row.frame)
