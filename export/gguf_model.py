"""A checkpoint as the two models that GGUF knows: their tensors, their metadata, and what is checked before any work.

The text model brings tokenizer and chat template, the vision tower (llama.cpp's mmproj file) the merger. What can be
told from headers and settings is told here: an unknown configuration, a missing or misshapen tensor, a tied head that
differs. Knows no type of a weight and writes no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import MissingExtra
from ..runtime.families import family_of
from ..runtime.gguf_file import GgufFile
from ..runtime.llama_files import (
    PROJECTOR,
    VISION_ARCHITECTURE,
    check_text_model,
    check_vision_model,
)
from ..runtime.llama_mix import Keys, mix_keys
from ..runtime.prompt import read_json
from ..training.checkpoint import Checkpoint
from .family_mappings import mapping_of
from .family_qwen2_5_vl import VisionShape, vision_tensors
from .gguf_names import GgufTensor, GgufUnsupported, TextShape, hub_names
from .gguf_vocabulary import Vocabulary, read_vocabulary

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""How numpy sees a stored weight; of bfloat16, which it lacks, the bits."""
_COMPARED_BYTES = 16 << 20
# The vision tower's norms have this epsilon in transformers' code, whatever config.json says of the text model.
_VISION_NORM_EPSILON = 1e-6
# llama.cpp ends the process beyond (LLAMA_MAX_LAYERS).
_MAX_LAYERS = 512


@dataclass(frozen=True, eq=False)
class GgufModel:
    """One of the two models of a checkpoint.

    tensors: in the order in which they are written. stored: hub name -> the name in the checkpoint. mix_keys: what
    llama.cpp's choice of types depends on. add_keys: puts the metadata into a gguf-py writer. check: reads a written
    header and raises GgufError.
    """

    checkpoint: Checkpoint
    architecture: str
    tensors: tuple[GgufTensor, ...]
    stored: Mapping[str, str]
    mix_keys: Keys
    add_keys: Callable[[Any], None]
    check: Callable[[GgufFile], object]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return each tensor's shape by name, slowest dimension first."""
        return {tensor.name: tensor.shape for tensor in self.tensors}


def text_model(checkpoint: Checkpoint) -> GgufModel:
    """Return the text model of a checkpoint. Raises GgufUnsupported, CheckpointError."""
    family = family_of(checkpoint.config)
    mapping = mapping_of(checkpoint.config)
    shape = mapping.shape(checkpoint.config)
    vocabulary = read_vocabulary(checkpoint.folder, shape.sizes.vocabulary)
    tensors = mapping.tensors(shape)
    if shape.sizes.layers > _MAX_LAYERS:
        raise GgufUnsupported(f"{shape.sizes.layers} layers; llama.cpp holds {_MAX_LAYERS}")

    def add_keys(writer: Any) -> None:
        writer.add_type("model")
        _add_general(writer, family.name, tensors)
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

    return GgufModel(
        checkpoint,
        family.gguf,
        tensors,
        _check_tensors(checkpoint, tensors, vision=False, tied=shape.sizes.tied),
        mix_keys(shape.sizes, shape.heads, shape.kv_heads),
        add_keys,
        check_text_model,
    )


def vision_model(checkpoint: Checkpoint) -> GgufModel:
    """Return the vision tower of a checkpoint with its merger. Raises GgufUnsupported, CheckpointError."""
    family = family_of(checkpoint.config)
    shape = VisionShape.of(checkpoint.config)
    if shape.sizes.out != TextShape.of(checkpoint.config).sizes.hidden:
        raise GgufUnsupported(f"the vision tower returns {shape.sizes.out} values, the text model takes another number")
    pixels = read_json(checkpoint.folder / "preprocessor_config.json")
    tensors = vision_tensors(shape)

    def add_keys(writer: Any) -> None:
        writer.add_type("mmproj")
        _add_general(writer, family.name, tensors)
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

    return GgufModel(
        checkpoint,
        VISION_ARCHITECTURE,
        tensors,
        _check_tensors(checkpoint, tensors, vision=True, tied=False),
        {},
        add_keys,
        lambda header: check_vision_model(header, shape.sizes.out),
    )


def new_writer(architecture: str) -> Any:
    """Return a gguf-py writer without a file. Raises MissingExtra."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtra("export", "gguf") from error
    return gguf.GGUFWriter(None, architecture)


def _add_general(writer: Any, name: str, tensors: Sequence[GgufTensor]) -> None:
    """Add what every file says of itself. No path and no time: same checkpoint, same bytes."""
    import gguf

    parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
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
        if spec.shape != shape or spec.dtype not in DTYPES:
            raise GgufUnsupported(
                f"tensor {spec.name} is {spec.dtype} {spec.shape}; config.json asks for {shape} of {', '.join(DTYPES)}"
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
        np.array_equal(one[at : at + _COMPARED_BYTES], other[at : at + _COMPARED_BYTES])
        for at in range(0, len(one), _COMPARED_BYTES)
    )
