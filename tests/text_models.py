"""Builds tiny random checkpoints of the text-only families, in transformers' layout, with a tokenizer of their kind.

The templates are the families' own, without what they say of tools. Knows nothing of what a test does with them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .models import QWEN2_REGEX, draw_weights, train_tokenizer, write_json, write_tokenizer

TEXT_FAMILIES = ("qwen2", "llama")
LLAMA3_REGEX = QWEN2_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
LLAMA3_CONTROL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
)
# Factors of Llama 3.1, with a first length at which a tiny head has turns of all three kinds.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
QWEN2_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n"
    "{%- else %}\n"
    "    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' "
    "}}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if (message.role == 'user') or (message.role == 'system' and not loop.first) or "
    "(message.role == 'assistant') %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n"
)
LLAMA3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def build_text_checkpoint(
    folder: Path,
    family: str,
    seed: int = 0,
    *,
    hidden: int = 256,
    ffn: int = 512,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int | None = None,
    vocabulary: int = 640,
    tied: bool = False,
    rope: dict[str, Any] | None = None,
    norm_epsilon: float = 1e-5,
    dtype: str = "float32",
    max_shard_size: str = "50GB",
) -> Path:
    """Write a random checkpoint of one of TEXT_FAMILIES into `folder` and return it. Same arguments, same bytes.

    rope: rope_parameters of config.json; PLAIN_ROPE for qwen2, LLAMA3_ROPE for llama where none is given.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(folder, vocabulary) if family == "qwen2" else write_llama3_tokenizer(folder, vocabulary)
    if family == "qwen2":
        (folder / "chat_template.jinja").write_text(QWEN2_TEMPLATE, "utf-8")
    start, ends = {
        "qwen2": ("<|endoftext|>", ("<|im_end|>", "<|endoftext|>")),
        "llama": ("<|begin_of_text|>", ("<|eot_id|>", "<|end_of_text|>")),
    }[family]
    name = {"qwen2": "Qwen2", "llama": "Llama"}[family]
    config = getattr(transformers, f"{name}Config")(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
        rms_norm_eps=norm_epsilon,
        rope_parameters=dict(rope or (PLAIN_ROPE if family == "qwen2" else LLAMA3_ROPE)),
        tie_word_embeddings=tied,
        bos_token_id=ids[start],
        eos_token_id=ids[ends[0]],
        architectures=[f"{name}ForCausalLM"],
        **({} if head_dim is None else {"head_dim": head_dim}),
    )
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    draw_weights(model, seed)
    model.generation_config.eos_token_id = [ids[end] for end in ends]
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def write_llama3_tokenizer(folder: Path, limit: int) -> dict[str, int]:
    """Write a byte-level BPE tokenizer with Llama 3's rules, control tokens and template; return the control tokens."""
    from tokenizers import processors

    tokenizer = train_tokenizer(limit, LLAMA3_REGEX, LLAMA3_CONTROL_TOKENS, ())
    ids: dict[str, int] = tokenizer.get_vocab()
    start = LLAMA3_CONTROL_TOKENS[0]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True),
            processors.TemplateProcessing(
                single=f"{start} $A", pair=f"{start} $A {start}:1 $B:1", special_tokens=[(start, ids[start])]
            ),
        ]
    )
    described = json.loads(tokenizer.to_str())
    described["model"]["ignore_merges"] = True
    (folder / "tokenizer.json").write_text(json.dumps(described, ensure_ascii=False), "utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "eos_token": "<|eot_id|>",
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_json(folder / "tokenizer_config.json", settings)
    (folder / "chat_template.jinja").write_text(LLAMA3_TEMPLATE, "utf-8")
    return {text: ids[text] for text in LLAMA3_CONTROL_TOKENS}
