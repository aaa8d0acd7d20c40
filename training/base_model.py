"""The tiny Qwen2.5-VL that the package brings along: its shape, its settings files, and the checkpoint they make.

The files are those of the hub's layout, so that the checkpoint opens in transformers as any other Qwen2.5-VL. Knows
nothing of how the weights are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import MissingExtra
from ..runtime.files import canonical_json, write_bytes
from .checkpoint import TensorSpec, write_weights
from .tokenizer import CONTROL_TOKENS, PLAIN_TOKENS, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import Qwen2_5_VLForConditionalGeneration

TEMPLATE = Path(__file__).parent / "base" / "chat_template.jinja"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class BaseShape:
    """The sizes of the model. Sides in pixels; mrope_sections: rotary pairs for time, height and width."""

    hidden: int = 256
    intermediate: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    mrope_sections: tuple[int, ...] = (8, 12, 12)
    vision_layers: int = 4
    vision_hidden: int = 256
    vision_intermediate: int = 512
    vision_heads: int = 4
    patch_px: int = 14
    merge: int = 2
    window_px: int = 112
    full_attention_layers: tuple[int, ...] = (1, 3)
    min_pixels: int = 3136
    max_pixels: int = 12544
    context_tokens: int = 2048

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.heads % self.kv_heads or self.vision_hidden % self.vision_heads:
            raise ValueError(f"hidden {self.hidden} and {self.vision_hidden} must divide evenly among the heads")
        if len(self.mrope_sections) != 3 or 2 * sum(self.mrope_sections) != self.hidden // self.heads:
            raise ValueError(f"mrope_sections {self.mrope_sections} must be 3 numbers that sum to half a head's width")


def model_config(shape: BaseShape, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return config.json as the hub's Qwen2.5-VL checkpoints write it."""
    ids = token_ids(vocabulary)
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "torch_dtype": "bfloat16",
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context_tokens,
        "max_window_layers": shape.layers,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": list(shape.mrope_sections)},
        "sliding_window": shape.context_tokens,
        "use_sliding_window": False,
        "use_cache": True,
        "tie_word_embeddings": True,
        "vocab_size": vocabulary.size,
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": shape.vision_layers,
            "hidden_act": "silu",
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_intermediate,
            "num_heads": shape.vision_heads,
            "in_channels": 3,
            "in_chans": 3,
            "out_hidden_size": shape.hidden,
            "patch_size": shape.patch_px,
            "spatial_merge_size": shape.merge,
            "spatial_patch_size": shape.patch_px,
            "temporal_patch_size": 2,
            "window_size": shape.window_px,
            "fullatt_block_indexes": list(shape.full_attention_layers),
            "tokens_per_second": 2,
        },
    }


def token_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the ids of the added tokens, which follow the learnt ones."""
    return {text: vocabulary.learnt + index for index, text in enumerate(CONTROL_TOKENS + PLAIN_TOKENS)}


def settings_files(shape: BaseShape, vocabulary: Vocabulary, tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return every file of the checkpoint but the weights, by name."""
    ids = token_ids(vocabulary)
    added = {
        str(ids[text]): {
            "content": text,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": text in CONTROL_TOKENS,
        }
        for text in CONTROL_TOKENS + PLAIN_TOKENS
    }
    tokenizer_config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(CONTROL_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": shape.context_tokens,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    generation = {
        "bos_token_id": ids["<|endoftext|>"],
        "do_sample": False,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
    }
    pixels = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(CLIP_MEAN),
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": list(CLIP_STD),
        "max_pixels": shape.max_pixels,
        "merge_size": shape.merge,
        "min_pixels": shape.min_pixels,
        "patch_size": shape.patch_px,
        "processor_class": "Qwen2_5_VLProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": shape.max_pixels, "shortest_edge": shape.min_pixels},
        "temporal_patch_size": 2,
    }
    return {
        "config.json": canonical_json(model_config(shape, vocabulary)),
        "generation_config.json": canonical_json(generation),
        "preprocessor_config.json": canonical_json(pixels),
        "tokenizer_config.json": canonical_json(tokenizer_config),
        "tokenizer.json": (tokenizer.to_str(pretty=True) + "\n").encode("utf-8"),
        "chat_template.jinja": TEMPLATE.read_bytes(),
    }


def new_model(shape: BaseShape, vocabulary: Vocabulary, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """Return the model with fresh random weights, float32, attention by torch's own kernel."""
    try:
        import torch
        from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    except ModuleNotFoundError as error:
        raise MissingExtra("train", str(error.name)) from error
    config = Qwen2_5_VLConfig(**{**model_config(shape, vocabulary), "torch_dtype": "float32"})
    config._attn_implementation = "sdpa"
    torch.manual_seed(seed)
    model: Qwen2_5_VLForConditionalGeneration = Qwen2_5_VLForConditionalGeneration(config)
    return model


def stored_name(name: str) -> str | None:
    """Return a parameter's name in the hub's layout, None for the head that is tied to the embedding."""
    if name == "lm_head.weight":
        return None
    return name.replace("model.language_model.", "model.", 1).replace("model.visual.", "visual.", 1)


def write_base(folder: Path, model: Qwen2_5_VLForConditionalGeneration, files: dict[str, bytes]) -> None:
    """Write weights as bfloat16 and the settings files into an empty folder: same weights, same bytes."""
    import torch

    tensors = {
        stored: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if (stored := stored_name(name)) is not None
    }
    specs = [TensorSpec(name, "BF16", tuple(tensor.shape)) for name, tensor in sorted(tensors.items())]
    write_weights(folder, specs, lambda spec: tensors[spec.name].view(torch.int16).numpy().reshape(-1).view(np.uint8))
    for name, data in files.items():
        write_bytes(folder / name, data)
