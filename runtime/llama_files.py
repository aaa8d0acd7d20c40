"""What a GGUF header must say before llama.cpp is handed the file: the model it is written for, and sizes that agree.

llama.cpp ends the process, or divides by zero, on some headers that are well formed and make no sense; those are
refused here by name. Knows the two kinds of file a bundle holds: a text model and a vision tower.
"""

from __future__ import annotations

from .gguf_file import ArrayLength, GgufError, GgufFile

TEXT_ARCHITECTURE = "qwen2vl"
VISION_ARCHITECTURE = "clip"
PROJECTOR = "qwen2.5vl_merger"
_MAX_SIZE = 1 << 20
_MAX_LAYERS = 1024


def check_text_model(header: GgufFile) -> None:
    """Refuse a header that is not of a Qwen-VL text model whose sizes agree. Raises GgufError."""
    _check_text(header, "general.architecture", TEXT_ARCHITECTURE)
    hidden = size(header, f"{TEXT_ARCHITECTURE}.embedding_length")
    heads = size(header, f"{TEXT_ARCHITECTURE}.attention.head_count")
    kv_heads = size(header, f"{TEXT_ARCHITECTURE}.attention.head_count_kv")
    layers = size(header, f"{TEXT_ARCHITECTURE}.block_count", _MAX_LAYERS)
    size(header, f"{TEXT_ARCHITECTURE}.feed_forward_length")
    if hidden % heads or heads % kv_heads or hidden // heads % 2:
        raise _refuse(header, f"{hidden} hidden values do not divide into {heads} heads and {kv_heads} key heads")
    tokens = header.values.get("tokenizer.ggml.tokens")
    length = tokens.length if isinstance(tokens, ArrayLength) else 0
    _check_shape(header, "token_embd.weight", (length, hidden))
    _check_shape(header, "output_norm.weight", (hidden,))
    _check_shape(header, f"blk.{layers - 1}.attn_norm.weight", (hidden,))


def check_vision_model(header: GgufFile, hidden: int) -> None:
    """Refuse a header that is not of a Qwen2.5-VL vision tower for a text model of width `hidden`. Raises GgufError."""
    _check_text(header, "general.architecture", VISION_ARCHITECTURE)
    _check_text(header, "clip.projector_type", PROJECTOR)
    width = size(header, "clip.vision.embedding_length")
    heads = size(header, "clip.vision.attention.head_count")
    layers = size(header, "clip.vision.block_count", _MAX_LAYERS)
    patch = size(header, "clip.vision.patch_size", 256)
    size(header, "clip.vision.image_size")
    size(header, "clip.vision.feed_forward_length")
    size(header, "clip.vision.n_wa_pattern", _MAX_LAYERS)
    if width % heads or width // heads % 4:
        raise _refuse(header, f"{width} values do not divide into {heads} heads of a multiple of 4")
    if size(header, "clip.vision.projection_dim") != hidden:
        raise _refuse(
            header,
            f"it is made for a text model of width {header.values['clip.vision.projection_dim']}, "
            f"this one has {hidden}",
        )
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        _check_shape(header, name, (width, 3, patch, patch))
    _check_shape(header, f"v.blk.{layers - 1}.ln1.weight", (width,))
    for key in ("clip.vision.image_mean", "clip.vision.image_std"):
        if header.values.get(key) != ArrayLength(3):
            raise _refuse(header, f"{key} does not hold three numbers")


def size(header: GgufFile, key: str, most: int = _MAX_SIZE) -> int:
    """Return a count of the metadata that must lie between 1 and `most`. Raises GgufError."""
    value = header.values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _refuse(header, f"{key} is {value!r}, a number from 1 to {most} is needed")
    return value


def _check_text(header: GgufFile, key: str, wanted: str) -> None:
    if (value := header.values.get(key)) != wanted:
        raise _refuse(header, f"{key} is {value!r}, {wanted!r} is needed")


def _check_shape(header: GgufFile, name: str, wanted: tuple[int, ...]) -> None:
    found = {tensor.name: tensor.shape for tensor in header.tensors}.get(name)
    if found != wanted:
        raise _refuse(header, f"tensor {name} is {found or 'missing'}, {wanted} is needed")


def _refuse(header: GgufFile, what: str) -> GgufError:
    return GgufError(f"{header.path} cannot be run: {what}; export the level again")
