"""Writes a checkpoint as GGUF in F32 or F16: the text model, and the vision tower as llama.cpp's mmproj file.

Streams: the header first, then a few megabytes of one tensor after the other, so that memory does not grow with the
model. Equal, tensor for tensor and bit for bit, to llama.cpp's own converter, which a test runs. Knows the family's
names through gguf_names.py, and nothing of quantisation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError, MissingExtra
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.families import family_of
from ..runtime.files import writing
from ..runtime.gguf_file import GgufFile, read_gguf
from ..runtime.llama_files import (
    PROJECTOR,
    VISION_ARCHITECTURE,
    check_text_model,
    check_vision_model,
)
from ..runtime.prompt import read_json
from ..training.checkpoint import Checkpoint
from .family_mappings import mapping_of
from .family_qwen2_5_vl import VisionShape, vision_tensors
from .gguf_names import GgufTensor, GgufUnsupported, TextShape, hub_names
from .gguf_vocabulary import Vocabulary, read_vocabulary

FloatType = Literal["F32", "F16"]
_BLOCK_BYTES = 16 << 20
# llama.cpp's number for what a file mostly consists of (llama_ftype).
_FILE_TYPES = {"F32": 0, "F16": 1}
# The vision tower's norms have this epsilon in transformers' code, whatever config.json says of the text model.
_VISION_NORM_EPSILON = 1e-6


class GgufWriteError(InfimedError):
    """A GGUF file that cannot be written: the disk, or a weight that the type cannot hold."""


def write_text_model(checkpoint: Checkpoint, path: Path, kind: FloatType, on_event: OnEvent = ignore) -> GgufFile:
    """Write the text model, its tokenizer and chat template; return the header of what was written.

    Raises GgufUnsupported, GgufWriteError, CheckpointError.
    """
    family = family_of(checkpoint.config)
    mapping = mapping_of(checkpoint.config)
    shape = mapping.shape(checkpoint.config)
    vocabulary = read_vocabulary(checkpoint.folder, shape.sizes.vocabulary)
    tensors = mapping.tensors(shape)
    names = _check_tensors(checkpoint, tensors, vision=False, tied=shape.sizes.tied)
    with guarded(path), writing(path) as draft:
        writer = _writer(family.gguf)
        writer.add_type("model")
        _add_general(writer, family.name, kind, tensors)
        writer.add_block_count(shape.sizes.layers)
        writer.add_context_length(shape.context)
        writer.add_embedding_length(shape.sizes.hidden)
        writer.add_feed_forward_length(shape.sizes.ffn)
        writer.add_head_count(shape.heads)
        writer.add_head_count_kv(shape.kv_heads)
        for key, value in mapping.keys(shape).items():
            add = writer.add_array if isinstance(value, list) else writer.add_uint32
            add(f"{family.gguf}.{key}", value)
        writer.add_rope_freq_base(shape.rope_base)
        writer.add_layer_norm_rms_eps(shape.norm_epsilon)
        _add_vocabulary(writer, vocabulary)
        _write(writer, draft, checkpoint, tensors, names, kind, on_event)
        check_text_model(read_gguf(draft))
    return read_gguf(path)


def write_vision_model(checkpoint: Checkpoint, path: Path, kind: FloatType, on_event: OnEvent = ignore) -> GgufFile:
    """Write the vision tower with its merger (mmproj); return the header of what was written."""
    family = family_of(checkpoint.config)
    shape = VisionShape.of(checkpoint.config)
    if shape.sizes.out != TextShape.of(checkpoint.config).sizes.hidden:
        raise GgufUnsupported(f"the vision tower returns {shape.sizes.out} values, the text model takes another number")
    pixels = read_json(checkpoint.folder / "preprocessor_config.json")
    tensors = vision_tensors(shape)
    names = _check_tensors(checkpoint, tensors, vision=True, tied=False)
    with guarded(path), writing(path) as draft:
        writer = _writer(VISION_ARCHITECTURE)
        writer.add_type("mmproj")
        _add_general(writer, family.name, kind, tensors)
        writer.add_clip_has_vision_encoder(True)
        writer.add_vision_projection_dim(shape.sizes.out)
        writer.add_vision_image_size(560)  # read and not used for this family, and required
        writer.add_vision_patch_size(shape.sizes.patch)
        writer.add_vision_embedding_length(shape.sizes.hidden)
        writer.add_vision_feed_forward_length(shape.sizes.ffn)
        writer.add_vision_block_count(shape.sizes.layers)
        writer.add_vision_head_count(shape.heads)
        writer.add_vision_image_mean([float(value) for value in pixels["image_mean"]])
        writer.add_vision_image_std([float(value) for value in pixels["image_std"]])
        writer.add_clip_projector_type(PROJECTOR)
        writer.add_vision_use_silu(True)
        writer.add_vision_n_wa_pattern(shape.full_attention_every)
        writer.add_vision_attention_layernorm_eps(_VISION_NORM_EPSILON)
        _write(writer, draft, checkpoint, tensors, names, kind, on_event)
        check_vision_model(read_gguf(draft), shape.sizes.out)
    return read_gguf(path)


def _writer(architecture: str) -> Any:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtra("export", "gguf") from error
    return gguf.GGUFWriter(None, architecture)


def _add_general(writer: Any, name: str, kind: FloatType, tensors: Sequence[GgufTensor]) -> None:
    """Add what every file says of itself. No path and no time: same checkpoint, same bytes."""
    import gguf

    parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")  # llama.cpp's name for byte-level BPE
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for key, token_id in vocabulary.special.items():
        writer.add_uint32(f"tokenizer.ggml.{key}", token_id)
    for name, added in vocabulary.added.items():
        writer.add_bool(f"tokenizer.ggml.add_{name}_token", added)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def _check_tensors(
    checkpoint: Checkpoint, tensors: Sequence[GgufTensor], *, vision: bool, tied: bool
) -> dict[str, str]:
    """Return hub name -> stored name, once every tensor of this half is there, of its shape, and none is unknown."""
    if checkpoint.config.get("quantization_config"):
        raise GgufUnsupported("the checkpoint is quantised already; export from its full-precision form")
    names = hub_names(checkpoint.tensors)
    wanted = {tensor.source: tensor.source_shape for tensor in tensors if tensor.values is None}
    for source, shape in wanted.items():
        if source not in names:
            raise GgufUnsupported(f"tensor {source} is missing from {checkpoint.folder}; config.json asks for it")
        spec = checkpoint.tensors[names[source]]
        if spec.shape != shape or spec.dtype not in _DTYPES:
            raise GgufUnsupported(
                f"tensor {spec.name} is {spec.dtype} {spec.shape}; config.json asks for {shape} of {', '.join(_DTYPES)}"
            )
    for name in sorted(set(names) - set(wanted)):
        if name.startswith("visual.") != vision:
            continue
        if name == "lm_head.weight" and tied:
            if not _equal(checkpoint, names[name], names["model.embed_tokens.weight"]):
                raise GgufUnsupported(
                    "config.json ties the head to the embedding, yet lm_head.weight differs from it; set "
                    "tie_word_embeddings to false, or remove the head"
                )
            continue
        raise GgufUnsupported(f"tensor {names[name]} is unknown to this family; GGUF export would leave it out")
    return names


def _equal(checkpoint: Checkpoint, first: str, second: str) -> bool:
    one, other = checkpoint.raw(first), checkpoint.raw(second)
    return one.shape == other.shape and all(
        np.array_equal(one[at : at + _BLOCK_BYTES], other[at : at + _BLOCK_BYTES])
        for at in range(0, len(one), _BLOCK_BYTES)
    )


def _write(
    writer: Any,
    path: Path,
    checkpoint: Checkpoint,
    tensors: Sequence[GgufTensor],
    names: Mapping[str, str],
    kind: FloatType,
    on_event: OnEvent,
) -> None:
    """Write header and weights to `path`; one block of rows is in memory at a time."""
    import gguf

    kinds: list[FloatType] = ["F32" if tensor.is_vector else kind for tensor in tensors]
    total = 0
    for tensor, stored in zip(tensors, kinds, strict=True):
        dtype = np.dtype(_NUMPY[stored])
        size = int(np.prod(tensor.shape)) * dtype.itemsize
        total += size
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, size, raw_dtype=gguf.GGMLQuantizationType[stored])
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        out: BinaryIO = writer.fout[0]
        done = 0
        for tensor, stored in zip(tensors, kinds, strict=True):
            _pad(out, writer.data_alignment)
            for block in _blocks(checkpoint, tensor, names.get(tensor.source, "")):
                values = _converted(block, tensor, stored)
                out.write(values.data)
                done += values.nbytes
            on_event(Event("gguf", done, total, "bytes", tensor.name))
        _pad(out, writer.data_alignment)
    finally:
        writer.close()


_NUMPY = {"F32": "<f4", "F16": "<f2"}
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def _blocks(checkpoint: Checkpoint, tensor: GgufTensor, stored: str) -> Iterator[NDArray[np.float32]]:
    """Yield a tensor's rows as float32, a few megabytes at a time, from the checkpoint's memory map."""
    if tensor.values is not None:
        yield np.array(tensor.values, np.float32)
        return
    spec = checkpoint.tensors[stored]
    whole = checkpoint.raw(stored).view(_DTYPES[spec.dtype]).reshape(spec.shape)
    start, stop = tensor.rows or (0, spec.shape[0])
    rows = max(1, _BLOCK_BYTES // (4 * int(np.prod(spec.shape[1:]))))
    head = spec.shape[0] // tensor.heads if tensor.heads else 1
    rows = max(1, rows // head) * head
    for at in range(start, stop, rows):
        block = whole[at : min(at + rows, stop)]
        if tensor.frame is not None:
            block = block[:, :, tensor.frame]
        if spec.dtype == "BF16":  # the upper half of a float32
            block = (block.astype("<u4") << 16).view("<f4")
        if tensor.heads:  # what turns together lies half a head apart in the checkpoint, side by side in the file
            block = block.reshape(-1, 2, head // 2, *block.shape[1:]).swapaxes(1, 2).reshape(block.shape)
        yield np.ascontiguousarray(block, np.float32)


def _converted(block: NDArray[np.float32], tensor: GgufTensor, kind: FloatType) -> NDArray[Any]:
    """Return the block in its stored type, rounded to the nearest. Raises GgufWriteError for what it cannot hold."""
    with np.errstate(over="ignore"):
        values = block.astype(_NUMPY[kind])
    if not np.isfinite(values).all():
        if np.isfinite(block).all():
            raise GgufWriteError(
                f"tensor {tensor.source} holds {np.abs(block).max():g}, more than F16 can; export gguf-f32 only, or an "
                "ONNX level"
            )
        raise GgufWriteError(f"tensor {tensor.source} holds NaN or infinity; the checkpoint is damaged, train it again")
    return values


def _pad(out: BinaryIO, alignment: int) -> None:
    out.write(bytes(-out.tell() % alignment))


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn what the system says of `path` (a full disk, a folder that cannot be written) into a GgufWriteError."""
    try:
        yield
    except OSError as error:
        raise GgufWriteError(
            f"{path} cannot be written ({error.strerror or error}); free the disk or name another folder"
        ) from error
