"""Builds tiny random checkpoints of the real architecture, in transformers' layout, for every test that needs one.

Their weights are drawn wide enough that a wrong bias, norm, window or rotary section shows in the logits. Knows nothing
of what a test does with them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# In the real tokenizer these are added tokens that are not special.
ADDED_TOKENS = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|repo_name|>")
QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "The chest radiograph shows a round opacity in the left lower lobe. Is there a lesion? yes no left right",
    "How many lesions does this image show? one two three four none. Is it CT, MR, ultrasound or fundus?",
    "Axial slice of the brain with a small bright focus; no mass effect. What is the size of the finding? small large",
    "You are a helpful assistant. system user assistant Options: cardiomegaly; pneumothorax; effusion; normal",
)


def build_random_checkpoint(
    folder: Path,
    seed: int = 0,
    *,
    hidden: int = 256,
    ffn: int = 512,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    vision_hidden: int = 128,
    vision_ffn: int = 200,
    vision_depth: int = 4,
    vision_heads: int = 2,
    fullatt_block_indexes: Sequence[int] = (1, 3),
    vocabulary: int = 640,
    tied: bool = True,
    dtype: str = "float32",
    max_shard_size: str = "50GB",
    max_pixels: int = 28 * 28 * 256,
) -> Path:
    """Write a random Qwen2.5-VL checkpoint into `folder` and return it. Same arguments, same bytes.

    vocabulary: rows of the embedding; the tokenizer has fewer, as the real one does. dtype: of the stored weights.
    """
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(folder, vocabulary)
    half = hidden // heads // 2
    sections = [half // 4, (half - half // 4) // 2, half - half // 4 - (half - half // 4) // 2]
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": hidden,
            "intermediate_size": ffn,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": vocabulary,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": sections},
            "tie_word_embeddings": tied,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
        },
        vision_config={
            "depth": vision_depth,
            "hidden_size": vision_hidden,
            "intermediate_size": vision_ffn,
            "num_heads": vision_heads,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": list(fullatt_block_indexes),
            "window_size": 112,
        },
        tie_word_embeddings=tied,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    draw_weights(model, seed)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    preprocessor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": 56 * 56,
        "max_pixels": max_pixels,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    return folder


def draw_weights(model: Any, seed: int) -> None:
    """Give every weight of a transformers model a random value."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if weight.ndim == 1:
                weight.copy_(0.1 * noise + (0.0 if name.endswith("bias") else 1.0))
            elif "embed_tokens" in name or "lm_head" in name:
                weight.copy_(0.1 * noise)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    model.tie_weights()


def write_tokenizer(folder: Path, limit: int) -> dict[str, int]:
    """Write a byte-level BPE tokenizer with Qwen's control tokens and template; return the added tokens' ids.

    limit: the tokenizer stays a little below this many tokens, so that the embedding has rows without a token.
    """
    from tokenizers import normalizers

    tokenizer = train_tokenizer(limit, QWEN2_REGEX, CONTROL_TOKENS, ADDED_TOKENS)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
    }
    write_json(folder / "tokenizer_config.json", settings)
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    ids: dict[str, int] = tokenizer.get_vocab()
    return {text: ids[text] for text in (*CONTROL_TOKENS, *ADDED_TOKENS)}


def train_tokenizer(limit: int, regex: str, control: Sequence[str], added: Sequence[str]) -> Any:
    """Return a byte-level BPE tokenizer of a little below `limit` tokens that splits text by `regex` first."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    plain = limit - len(control) - len(added) - 8
    trainer = trainers.BpeTrainer(
        vocab_size=plain, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    return tokenizer


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a settings file as transformers does."""
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
