"""Holds a checkpoint's descriptions against each other: config.json, as transformers reads it, pixel rules, tokenizer.

Where two of them differ, a level would be another model than the reference, or the reference would fail after minutes.
Knows no weight and no format's file; what a format cannot express is said by its own reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..runtime.families import family_of
from ..runtime.levels import QuantLevel
from ..runtime.prompt import Prompter, read_json
from ..runtime.shape import CheckpointError, context_limit
from ..training.checkpoint import Checkpoint
from .family_mappings import mapping_of
from .gguf_names import GgufUnsupported
from .onnx_decoder import DecoderNumbers
from .parity import REPLY_TOKENS
from .probes import make_probes
from .rope import RopeScaling, rope_kind

_IMAGE_PROCESSORS = ("Qwen2VLImageProcessor", "Qwen2_5_VLImageProcessor")
_KINDS = 6  # so many golden prompts hold every kind of them


def refuse_disagreement(checkpoint: Checkpoint, config: Any, prompter: Prompter, rows: Sequence[QuantLevel]) -> None:
    """Raise where what the checkpoint says of itself does not fit together, or its template makes no prompt.

    config: as transformers read it. Raises CheckpointError, PromptError or GgufUnsupported.
    """
    _check_kind(config)
    if any(row.format == "gguf" for row in rows):
        _check_gguf(checkpoint.config, config)
    _check_tokens(checkpoint.config, prompter, config.get_text_config().vocab_size)
    if prompter.pixel_rules is not None:
        _check_pixels(checkpoint, prompter)
    prompts = [prompter.prompt(probe.messages) for probe in make_probes(_KINDS, prompter.pixel_rules)]
    longest = max(len(prompt.token_ids) for prompt in prompts) + REPLY_TOKENS
    if longest > (context := context_limit(checkpoint.config)):
        raise CheckpointError(
            f"golden prompts with their replies take {longest} tokens, the model {context} (max_position_embeddings of "
            "config.json); it is too short for images and a question"
        )


def refuse_numbers(stated: Mapping[str, Any], config: Any) -> None:
    """Raise CheckpointError where config.json is of another model, or a number of its norms or positions is none.

    config: as transformers read it.
    """
    import transformers

    family = family_of(stated)
    wanted = getattr(transformers, family.architecture).config_class
    if type(config) is not wanted:
        raise CheckpointError(
            f"config.json: model_type is {config.model_type!r}, {family.architecture} is of {wanted.model_type!r}; "
            "set both to what the model is"
        )
    text = config.get_text_config()
    rope = text.rope_parameters or {}
    numbers = {"rms_norm_eps": text.rms_norm_eps, "rope_theta": rope.get("rope_theta")}
    numbers |= {key: rope[key] for key in ("factor", "low_freq_factor", "high_freq_factor") if key in rope}
    for key, value in numbers.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise CheckpointError(f"config.json: {key} is {value!r}; a number above 0 is needed")


def image_token_fault(stated: Mapping[str, Any], prompter: Prompter) -> str | None:
    """Return how config.json names another token for images than the tokenizer has; None where it does not."""
    named = stated.get("image_token_id", prompter.image_token_id)
    if not prompter.family.image_token or named == prompter.image_token_id:
        return None
    return (
        f"config.json: image_token_id is {named!r}, {prompter.family.image_token} of tokenizer.json is "
        f"{prompter.image_token_id}"
    )


def _check_kind(config: Any) -> None:
    if getattr(config, "quantization_config", None):
        raise CheckpointError("the checkpoint is quantised already; export from its full-precision form")
    text = config.get_text_config()
    rope = text.rope_parameters or {}
    if (part := rope.get("partial_rotary_factor")) not in (None, 1.0):
        raise CheckpointError(f"config.json: partial_rotary_factor is {part!r}; heads that turn as a whole are needed")
    other = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    if other:
        raise CheckpointError(f"config.json: layer_types holds {min(other)!r}; full_attention alone is supported")


def _check_gguf(stated: Mapping[str, Any], config: Any) -> None:
    """Raise GgufUnsupported where a GGUF file would hold other numbers than transformers takes."""
    ours, theirs = mapping_of(stated).shape(stated), DecoderNumbers.of(config)
    read = config.get_text_config().rope_parameters
    pairs: dict[str, tuple[Any, Any]] = {
        "rms_norm_eps": (ours.norm_epsilon, theirs.norm_epsilon),
        "rope_theta": (ours.rope_base, float(theirs.rope_theta)),
        "num_attention_heads": (ours.heads, theirs.heads),
        "num_key_value_heads": (ours.kv_heads, theirs.kv_heads),
        "head_dim": (ours.head_dim, theirs.head_dim),
        "max_position_embeddings": (ours.context, config.get_text_config().max_position_embeddings),
        "rotary scaling": (ours.scaling, RopeScaling.of(read)),
        "mrope_section": (ours.sections, theirs.sections if ours.sections else None),
        "tie_word_embeddings": (ours.sizes.tied, bool(config.tie_word_embeddings)),
    }
    for key, (one, other) in pairs.items():
        if one != other:
            raise GgufUnsupported(
                f"config.json says {key} in two ways: transformers takes {other}, a GGUF file would hold {one} (rotary "
                f"positions of kind {rope_kind(read)}); keep the one that the model was trained with"
            )


def _check_tokens(stated: Mapping[str, Any], prompter: Prompter, rows: int) -> None:
    if prompter.highest_id >= rows:
        raise CheckpointError(
            f"tokenizer.json has token ids up to {prompter.highest_id}, the embedding {rows} rows; give the tokenizer "
            "of this model, or resize its embedding and train it"
        )
    if wrong := sorted(number for number in prompter.end_ids if not 0 <= number < rows):
        raise CheckpointError(f"generation_config.json: eos_token_id {wrong[0]} is no token of {rows}; correct it")
    if fault := image_token_fault(stated, prompter):
        raise CheckpointError(f"{fault}; correct config.json")


def _check_pixels(checkpoint: Checkpoint, prompter: Prompter) -> None:
    rules = prompter.rules
    tower: Mapping[str, Any] = checkpoint.config.get("vision_config") or {}
    for key, ours, theirs in (
        ("patch_size", rules.patch_size, tower.get("patch_size", 14)),
        ("merge_size", rules.merge_size, tower.get("spatial_merge_size", 2)),
        ("temporal_patch_size", rules.temporal_patch_size, tower.get("temporal_patch_size", 2)),
    ):
        if ours != theirs:
            raise CheckpointError(
                f"preprocessor_config.json: {key} is {ours}, the vision tower takes {theirs} (config.json); give the "
                "file of this model"
            )
    stated = read_json(checkpoint.folder / "preprocessor_config.json")
    kind = str(stated.get("image_processor_type", _IMAGE_PROCESSORS[0]))
    if kind.removesuffix("Fast").removesuffix("Pil") not in _IMAGE_PROCESSORS:
        raise CheckpointError(
            f"preprocessor_config.json: image_processor_type is {kind}; {', '.join(_IMAGE_PROCESSORS)} are reproduced"
        )
    if stated.get("do_center_crop"):
        raise CheckpointError("preprocessor_config.json: do_center_crop is set; the family's own processor never crops")
