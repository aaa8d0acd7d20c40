"""What the two GGUF files of a level hold, tensor by tensor, and the check of a header against it.

llama.cpp ends the process, divides by zero or follows a null pointer on headers that are well formed and make no sense
(a missing bias of the vision tower, rotary sections wider than a head): such a file is refused here before llama.cpp
sees it. Knows names and shapes of Qwen2.5-VL in GGUF; export writes the same tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .gguf_file import ArrayLength, GgufError, GgufFile

TEXT_ARCHITECTURE = "qwen2vl"
VISION_ARCHITECTURE = "clip"
PROJECTOR = "qwen2.5vl_merger"
NORM_EPSILON = f"{TEXT_ARCHITECTURE}.attention.layer_norm_rms_epsilon"
CONTEXT_LENGTH = f"{TEXT_ARCHITECTURE}.context_length"
HEAD = "output.weight"
_MAX_SIZE = 1 << 20
_MAX_LAYERS = 1024

# Tensors of one layer -> their dimensions, slowest first.
_TEXT_LAYER = {
    "attn_norm.weight": ("hidden",),
    "attn_q.weight": ("hidden", "hidden"),
    "attn_q.bias": ("hidden",),
    "attn_k.weight": ("kv", "hidden"),
    "attn_k.bias": ("kv",),
    "attn_v.weight": ("kv", "hidden"),
    "attn_v.bias": ("kv",),
    "attn_output.weight": ("hidden", "hidden"),
    "ffn_norm.weight": ("hidden",),
    "ffn_gate.weight": ("ffn", "hidden"),
    "ffn_up.weight": ("ffn", "hidden"),
    "ffn_down.weight": ("hidden", "ffn"),
}
_VISION_LAYER = {
    "ln1.weight": ("hidden",),
    "attn_q.weight": ("hidden", "hidden"),
    "attn_q.bias": ("hidden",),
    "attn_k.weight": ("hidden", "hidden"),
    "attn_k.bias": ("hidden",),
    "attn_v.weight": ("hidden", "hidden"),
    "attn_v.bias": ("hidden",),
    "attn_out.weight": ("hidden", "hidden"),
    "attn_out.bias": ("hidden",),
    "ln2.weight": ("hidden",),
    "ffn_gate.weight": ("ffn", "hidden"),
    "ffn_gate.bias": ("ffn",),
    "ffn_up.weight": ("ffn", "hidden"),
    "ffn_up.bias": ("ffn",),
    "ffn_down.weight": ("hidden", "ffn"),
    "ffn_down.bias": ("hidden",),
}
_VISION_ENDS = {
    # A still image is its own second frame: one 2D convolution per frame, and their sum.
    "v.patch_embd.weight": ("hidden", "colours", "patch", "patch"),
    "v.patch_embd.weight.1": ("hidden", "colours", "patch", "patch"),
    "v.post_ln.weight": ("hidden",),
    "mm.0.weight": ("merged", "merged"),
    "mm.0.bias": ("merged",),
    "mm.2.weight": ("out", "merged"),
    "mm.2.bias": ("out",),
}

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class TextSizes:
    """The sizes that decide a text model's tensors. kv: width of keys and values, all heads together."""

    layers: int
    hidden: int
    ffn: int
    kv: int
    vocabulary: int
    tied: bool

    def shapes(self) -> Shapes:
        """Return each tensor's shape, in the order in which export writes them."""
        sides = {"hidden": self.hidden, "ffn": self.ffn, "kv": self.kv}
        found: Shapes = {"token_embd.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            found.update({f"blk.{layer}.{name}": _sized(named, sides) for name, named in _TEXT_LAYER.items()})
        found["output_norm.weight"] = (self.hidden,)
        return found if self.tied else {**found, HEAD: (self.vocabulary, self.hidden)}


@dataclass(frozen=True)
class VisionSizes:
    """The sizes that decide a vision tower's tensors. out: width of the text model it speaks to."""

    layers: int
    hidden: int
    ffn: int
    patch: int
    out: int

    def shapes(self) -> Shapes:
        """Return each tensor's shape, in the order in which export writes them."""
        sides = {"hidden": self.hidden, "ffn": self.ffn, "patch": self.patch, "out": self.out, "colours": 3}
        sides["merged"] = 4 * self.hidden
        found: Shapes = {}
        for layer in range(self.layers):
            found.update({f"v.blk.{layer}.{name}": _sized(named, sides) for name, named in _VISION_LAYER.items()})
        return {**found, **{name: _sized(named, sides) for name, named in _VISION_ENDS.items()}}


def check_text_model(header: GgufFile) -> TextSizes:
    """Return the sizes of a text model's header, all of which agree. Raises GgufError."""
    _check_text(header, "general.architecture", TEXT_ARCHITECTURE)
    hidden, heads = _size(header, "embedding_length"), _size(header, "attention.head_count")
    kv_heads = _size(header, "attention.head_count_kv")
    if hidden % heads or heads % kv_heads or hidden // heads % 2:
        raise _refuse(header, f"{hidden} hidden values do not divide into {heads} heads and {kv_heads} key heads")
    _size(header, "context_length", 1 << 30)
    sections = header.values.get(f"{TEXT_ARCHITECTURE}.rope.dimension_sections")
    if not isinstance(sections, tuple) or len(sections) != 4 or min(sections) < 0 or sections[3] != 0:
        raise _refuse(header, f"its rotary sections are {sections}, four counts with a last 0 are needed")
    if 2 * sum(sections) != hidden // heads:
        raise _refuse(header, f"its rotary sections {sections} do not fill heads of {hidden // heads} values")
    for key in (NORM_EPSILON, f"{TEXT_ARCHITECTURE}.rope.freq_base"):
        _check_positive(header, key)
    tokens = header.values.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, ArrayLength) or tokens.distinct != tokens.length:
        raise _refuse(header, f"its tokens are {tokens}, a list without repetition is needed")
    sizes = TextSizes(
        layers=_size(header, "block_count", _MAX_LAYERS),
        hidden=hidden,
        ffn=_size(header, "feed_forward_length"),
        kv=hidden // heads * kv_heads,
        vocabulary=tokens.length,
        tied=HEAD not in header.tensor_types,
    )
    _check_shapes(header, sizes.shapes())
    return sizes


def check_vision_model(header: GgufFile, text_width: int) -> VisionSizes:
    """Return the sizes of a vision tower's header for a text model of that width. Raises GgufError."""
    _check_text(header, "general.architecture", VISION_ARCHITECTURE)
    _check_text(header, "clip.projector_type", PROJECTOR)
    hidden, heads = _size(header, "embedding_length"), _size(header, "attention.head_count")
    if hidden % (4 * heads):
        raise _refuse(header, f"{hidden} values do not divide into {heads} heads of a multiple of 4")
    if _size(header, "projection_dim") != text_width:
        raise _refuse(header, f"it speaks to a text model of another width than {text_width}")
    _size(header, "image_size")
    if _size(header, "n_wa_pattern", _MAX_LAYERS) == 1:  # llama.cpp feeds windows to every graph, and would end here
        raise _refuse(header, "every layer of its vision tower sees the whole image, which llama.cpp cannot run")
    _check_positive(header, "clip.vision.attention.layer_norm_epsilon")
    for key in ("clip.vision.image_mean", "clip.vision.image_std"):
        values = header.values.get(key)
        if not isinstance(values, tuple) or len(values) != 3 or not all(map(math.isfinite, values)):
            raise _refuse(header, f"{key} is {values}, three numbers are needed")
    sizes = VisionSizes(
        layers=_size(header, "block_count", _MAX_LAYERS),
        hidden=hidden,
        ffn=_size(header, "feed_forward_length"),
        patch=_size(header, "patch_size", 256),
        out=text_width,
    )
    _check_shapes(header, sizes.shapes())
    return sizes


def _sized(named: tuple[str, ...], sides: dict[str, int]) -> tuple[int, ...]:
    return tuple(sides[name] for name in named)


def _size(header: GgufFile, name: str, most: int = _MAX_SIZE) -> int:
    """Return a count of the metadata, which must lie between 1 and `most`."""
    before = "clip.vision" if header.values.get("general.architecture") == VISION_ARCHITECTURE else TEXT_ARCHITECTURE
    value = header.values.get(f"{before}.{name}")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _refuse(header, f"{before}.{name} is {value!r}, a number from 1 to {most} is needed")
    return value


def _check_positive(header: GgufFile, key: str) -> None:
    value = header.values.get(key)
    if not isinstance(value, float) or not 0 < value < math.inf:
        raise _refuse(header, f"{key} is {value!r}, a positive number is needed")


def _check_text(header: GgufFile, key: str, wanted: str) -> None:
    if (value := header.values.get(key)) != wanted:
        raise _refuse(header, f"{key} is {value!r}, {wanted!r} is needed")


def _check_shapes(header: GgufFile, wanted: Shapes) -> None:
    """Refuse missing, unknown and misshapen tensors, and vectors that are not in F32, which llama.cpp takes as such."""
    found = {tensor.name: tensor for tensor in header.tensors}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in wanted or name not in found or found[name].shape != wanted[name]:
            have = found[name].shape if name in found else "missing"
            raise _refuse(header, f"tensor {name} is {have}, {wanted.get(name, 'no such tensor')} is needed")
        if len(wanted[name]) == 1 and found[name].type != "F32":
            raise _refuse(header, f"tensor {name} is of type {found[name].type}, F32 is needed")


def _refuse(header: GgufFile, what: str) -> GgufError:
    return GgufError(f"{header.path} cannot be run: {what}; export the level again")
