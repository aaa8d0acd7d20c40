"""How Qwen2.5-VL's checkpoint names and shapes become GGUF's: one table for the text model, one for the vision tower.

The names are llama.cpp's (gguf-py tensor_mapping.py, conversion/qwenvl.py), and a test holds the result against its own
converter. Also says which configurations llama.cpp's graph can compute; others are refused by what differs. Knows no
file and no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import InfimedError
from ..runtime.llama_files import TextSizes, VisionSizes


class GgufUnsupported(InfimedError):
    """A checkpoint that GGUF, or llama.cpp's graph of this family, cannot express."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a GGUF file and where it comes from.

    shape: slowest dimension first. source: the checkpoint's name, in the layout of the model hub. source_shape: what it
    must have there. rows: which of its rows are taken, (start, stop), or None for all. frame: which temporal slice of a
    3D convolution, or None.
    """

    name: str
    shape: tuple[int, ...]
    source: str
    source_shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    frame: int | None = None

    @property
    def is_vector(self) -> bool:
        """Biases and norms stay in F32 whatever the file's type."""
        return len(self.shape) == 1


@dataclass(frozen=True)
class TextShape:
    """The numbers of a text model. sections: how many rotary pairs follow time, height and width."""

    sizes: TextSizes
    heads: int
    kv_heads: int
    context: int
    norm_epsilon: float
    rope_base: float
    sections: tuple[int, int, int]

    @staticmethod
    def of(config: Mapping[str, Any]) -> TextShape:
        """Read a config.json in the layout of transformers 4 (flat) or 5 (text_config). Raises GgufUnsupported."""
        text = {**config, **(config.get("text_config") or {})}
        rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
        try:
            hidden, heads, kv_heads = (
                int(text[key]) for key in ("hidden_size", "num_attention_heads", "num_key_value_heads")
            )
            sizes = TextSizes(
                layers=int(text["num_hidden_layers"]),
                hidden=hidden,
                ffn=int(text["intermediate_size"]),
                kv=hidden // max(heads, 1) * kv_heads,
                vocabulary=int(text["vocab_size"]),
                # The outer value is the one that transformers obeys; text_config may say otherwise.
                tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            )
            shape = TextShape(
                sizes=sizes,
                heads=heads,
                kv_heads=kv_heads,
                context=int(text["max_position_embeddings"]),
                norm_epsilon=float(text["rms_norm_eps"]),
                rope_base=float(rope.get("rope_theta") or text["rope_theta"]),
                sections=_three(rope["mrope_section"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GgufUnsupported(f"config.json lacks or garbles {error}, which a GGUF file needs") from None
        _refuse_unless(text.get("hidden_act", "silu") == "silu", f"hidden_act {text.get('hidden_act')!r}")
        _refuse_unless(not text.get("use_sliding_window"), "a sliding attention window")
        kind = rope.get("rope_type") or rope.get("type") or "default"
        _refuse_unless(kind in ("default", "mrope"), f"rotary scaling {kind!r}")
        _refuse_unless(heads > 0 and hidden % heads == 0, f"{hidden} hidden values in {heads} heads")
        width = hidden // heads
        _refuse_unless(text.get("head_dim") in (None, width), f"heads of {text.get('head_dim')} values in {hidden}")
        _refuse_unless(
            sum(shape.sections) * 2 == width, f"rotary sections {shape.sections} for heads of {width} values"
        )
        return shape


@dataclass(frozen=True)
class VisionShape:
    """The numbers of a vision tower. full_attention_every: one layer in so many sees the whole image."""

    sizes: VisionSizes
    heads: int
    full_attention_every: int

    @staticmethod
    def of(config: Mapping[str, Any]) -> VisionShape:
        """Read a config.json. Raises GgufUnsupported for what llama.cpp's graph fixes otherwise."""
        vision = config.get("vision_config") or {}
        try:
            sizes = VisionSizes(
                layers=int(vision["depth"]),
                hidden=int(vision["hidden_size"]),
                ffn=int(vision["intermediate_size"]),
                patch=int(vision.get("patch_size", 14)),
                out=int(vision["out_hidden_size"]),
            )
            channels = int(vision.get("in_channels", vision.get("in_chans", 3)))
            shape = VisionShape(
                sizes=sizes,
                heads=int(vision["num_heads"]),
                full_attention_every=_every(vision["fullatt_block_indexes"], int(vision["depth"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GgufUnsupported(f"vision_config lacks or garbles {error}, which a GGUF file needs") from None
        # llama.cpp has these as constants (tools/mtmd/clip.cpp): a file cannot say otherwise.
        for key, wanted in (("window_size", 112), ("spatial_merge_size", 2), ("temporal_patch_size", 2)):
            _refuse_unless(int(vision.get(key, wanted)) == wanted, f"vision {key} {vision.get(key)}")
        _refuse_unless(vision.get("hidden_act", "silu") == "silu", f"vision hidden_act {vision.get('hidden_act')!r}")
        _refuse_unless(channels == 3, f"images of {channels} channels")
        whole = shape.heads > 0 and sizes.hidden % (4 * shape.heads) == 0
        _refuse_unless(whole, f"{sizes.hidden} vision values in {shape.heads} heads")
        return shape


# A layer's tensors in GGUF -> in the checkpoint; what follows the last dot (weight, bias) is the same in both.
_TEXT_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_VISION_LAYER = {
    "ln1": "norm1",
    "attn_out": "attn.proj",
    "ln2": "norm2",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ENDS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "v.post_ln": "visual.merger.ln_q",
    "mm.0": "visual.merger.mlp.0",
    "mm.2": "visual.merger.mlp.2",
}
_PATCHES = "visual.patch_embed.proj.weight"


def text_tensors(shape: TextShape) -> tuple[GgufTensor, ...]:
    """Return the tensors of the text model's file, in the order in which they are written."""
    return tuple(_tensor(name, sides) for name, sides in shape.sizes.shapes().items())


def vision_tensors(shape: VisionShape) -> tuple[GgufTensor, ...]:
    """Return the tensors of the vision tower's file, in the order in which they are written."""
    return tuple(_tensor(name, sides) for name, sides in shape.sizes.shapes().items())


def _tensor(name: str, shape: tuple[int, ...]) -> GgufTensor:
    """Return where one GGUF tensor of that name and shape comes from."""
    if name.startswith("v.patch_embd."):
        source_shape = (*shape[:2], 2, *shape[2:])  # one 3D convolution over two frames
        return GgufTensor(name, shape, _PATCHES, source_shape, frame=1 if name.endswith(".1") else 0)
    stem, _, end = name.rpartition(".")
    if stem in _ENDS:
        return GgufTensor(name, shape, f"{_ENDS[stem]}.{end}", shape)
    before, layer, part = stem.rsplit(".", 2)
    if before == "blk":
        return GgufTensor(name, shape, f"model.layers.{layer}.{_TEXT_LAYER[part]}.{end}", shape)
    if part in _VISION_LAYER:
        return GgufTensor(name, shape, f"visual.blocks.{layer}.{_VISION_LAYER[part]}.{end}", shape)
    third = ("attn_q", "attn_k", "attn_v").index(part)  # the checkpoint stacks the three
    rows = (third * shape[0], (third + 1) * shape[0])
    return GgufTensor(name, shape, f"visual.blocks.{layer}.attn.qkv.{end}", (3 * shape[0], *shape[1:]), rows=rows)


# Prefixes of other layouts -> the hub's: transformers' modules as they stand in memory, and earlier releases.
_PREFIXES = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.visual.", "visual."),
    ("model.lm_head.", "lm_head."),
)


def hub_names(stored: Iterable[str]) -> dict[str, str]:
    """Return the hub's name of each tensor -> the name it is stored under; what is computed, not learnt, is left out.

    Raises GgufUnsupported where two stored tensors are the same one.
    """
    found: dict[str, str] = {}
    for name in stored:
        if name.endswith(".rotary_emb.inv_freq"):
            continue
        canonical = name
        for prefix, hub in _PREFIXES:
            if name.startswith(prefix):
                canonical = hub + name[len(prefix) :]
                break
        if canonical in found:
            raise GgufUnsupported(f"tensors {found[canonical]} and {name} are the same one; the checkpoint is mixed")
        found[canonical] = name
    return found


def _three(sections: Any) -> tuple[int, int, int]:
    first, second, third = (int(value) for value in sections)
    return first, second, third


def _every(indexes: Any, depth: int) -> int:
    """Return the spacing of the layers with full attention; llama.cpp stores that one number, not the list."""
    every = int(indexes[0]) + 1 if indexes else 0
    if every == 1 and len(indexes) == depth:
        raise GgufUnsupported("full attention at every layer of the vision tower: llama.cpp needs windows; use ONNX")
    if not every or [int(index) for index in indexes] != list(range(every - 1, depth, every)):
        raise GgufUnsupported(
            f"full attention at layers {list(indexes)} of {depth} is not evenly spaced; "
            "llama.cpp knows one spacing only, use an ONNX level"
        )
    return every


def _refuse_unless(holds: bool, what: str) -> None:
    if not holds:
        raise GgufUnsupported(f"{what}: llama.cpp does not compute this family so; use an ONNX level")
