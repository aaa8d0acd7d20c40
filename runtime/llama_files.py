"""What the GGUF files of a level must say before llama.cpp sees them: their headers held against the family's tensors.

llama.cpp ends the process, divides by zero or follows a null pointer on headers that are well formed and make no sense
(a missing bias of the vision tower, rotary sections wider than a head): such a file is refused here before llama.cpp
sees it. Names and shapes are those of tensors.py; export writes the same.
"""

from __future__ import annotations

import math

from .families import FAMILIES, Family
from .gguf_file import ArrayLength, GgufError, GgufFile
from .tensors import HEAD, Shapes, TextSizes, VisionSizes

VISION_ARCHITECTURE = "clip"
PROJECTOR = "qwen2.5vl_merger"
NORM_EPSILON = "attention.layer_norm_rms_epsilon"
CONTEXT_LENGTH = "context_length"
EMBEDDING = "token_embd.weight"
ROPE_FACTORS = "rope_freqs.weight"
"""What divides each rotary frequency, (head_dim / 2,), F32; in files of a family that stretches its positions."""
# What a text model's header may say behind its architecture's name. llama.cpp builds other graphs by other keys, and
# ends the process where they do not go together.
_TEXT_KEYS = frozenset(
    {
        "block_count",
        CONTEXT_LENGTH,
        "embedding_length",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        NORM_EPSILON,
        "rope.dimension_count",
        "rope.dimension_sections",
        "rope.freq_base",
    }
)
_MAX_SIZE = 1 << 20
_MAX_LAYERS = 1024


def text_value(header: GgufFile, name: str) -> str:
    """Return a number of a checked text model's metadata, by its name behind the architecture's, as text."""
    return str(header.values[f"{header.values['general.architecture']}.{name}"])


def check_text_model(header: GgufFile) -> TextSizes:
    """Return the sizes of a text model's header, all of which agree. Raises GgufError."""
    family = _family(header)
    for key in header.values:
        if key.startswith(f"{family.gguf}.") and key.removeprefix(f"{family.gguf}.") not in _TEXT_KEYS:
            raise _refuse(header, f"{key} is nothing that such a model's header says")
    hidden, heads = _size(header, "embedding_length"), _size(header, "attention.head_count")
    kv_heads, head_dim = _size(header, "attention.head_count_kv"), _head_dim(header, hidden, heads)
    if heads % kv_heads or head_dim % 2:
        raise _refuse(header, f"heads of {head_dim} values, {heads} of them, do not go with {kv_heads} key heads")
    _size(header, CONTEXT_LENGTH, 1 << 30)
    if family.rotary == "sections":
        _check_sections(header, family, head_dim)
    for key in (NORM_EPSILON, "rope.freq_base"):
        _check_positive(header, f"{family.gguf}.{key}")
    tokens = header.values.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, ArrayLength) or tokens.distinct != tokens.length:
        raise _refuse(header, f"its tokens are {tokens}, a list without repetition is needed")
    for name, wanted in (("vocab_size", tokens.length), ("rope.dimension_count", head_dim)):
        if header.values.get(f"{family.gguf}.{name}", wanted) != wanted:
            raise _refuse(header, f"{name} is {header.values[f'{family.gguf}.{name}']!r}, {wanted} is needed")
    sizes = TextSizes(
        layers=_size(header, "block_count", _MAX_LAYERS),
        hidden=hidden,
        ffn=_size(header, "feed_forward_length"),
        queries=heads * head_dim,
        keys=kv_heads * head_dim,
        vocabulary=tokens.length,
        tied=HEAD not in header.tensor_types,
        biases=family.biases,
    )
    shapes = sizes.shapes()
    if family.rotary == "stretched" and ROPE_FACTORS in header.tensor_types:
        shapes[ROPE_FACTORS] = (head_dim // 2,)
    _check_shapes(header, shapes)
    return sizes


def _family(header: GgufFile) -> Family:
    stated = header.values.get("general.architecture")
    for family in FAMILIES:
        if family.gguf == stated:
            return family
    known = ", ".join(repr(family.gguf) for family in FAMILIES)
    raise _refuse(header, f"general.architecture is {stated!r}, one of {known} is needed")


def _head_dim(header: GgufFile, hidden: int, heads: int) -> int:
    """Return the values per head: stated for keys and values alike, or those that the hidden ones divide into."""
    architecture = header.values["general.architecture"]
    stated = [header.values.get(f"{architecture}.attention.{part}_length") for part in ("key", "value")]
    if stated == [None, None]:
        if hidden % heads:
            raise _refuse(header, f"{hidden} hidden values do not divide into {heads} heads")
        return hidden // heads
    if stated[0] != stated[1]:
        raise _refuse(header, f"its keys have {stated[0]} values and its values {stated[1]}, the same is needed")
    return _size(header, "attention.key_length")


def _check_sections(header: GgufFile, family: Family, head_dim: int) -> None:
    sections = header.values.get(f"{family.gguf}.rope.dimension_sections")
    if not isinstance(sections, tuple) or len(sections) != 4 or min(sections) < 0 or sections[3] != 0:
        raise _refuse(header, f"its rotary sections are {sections}, four counts with a last 0 are needed")
    if 2 * sum(sections) != head_dim:
        raise _refuse(header, f"its rotary sections {sections} do not fill heads of {head_dim} values")


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


def _size(header: GgufFile, name: str, most: int = _MAX_SIZE) -> int:
    """Return a count of the metadata, which must lie between 1 and `most`."""
    architecture = header.values.get("general.architecture")
    before = "clip.vision" if architecture == VISION_ARCHITECTURE else architecture
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
