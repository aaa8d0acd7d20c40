"""Checkpoints and bundles as far as planning reads them: config, rules, headers and sizes, written without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from infimed.runtime.bundle import write_manifest
from infimed.runtime.manifest import SHARED, LevelEntry

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 32768,
}
CONFIG = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "tie_word_embeddings": True,
    "text_config": TEXT,
    "vision_config": {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48},
}
RULES = {
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "min_pixels": 56 * 56,
    "max_pixels": 112 * 112,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def write_checkpoint(folder: Path, max_tokens: int = 32768) -> Path:
    """Write a checkpoint whose weights are few and whose shapes are read like any other's."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, "text_config": {**TEXT, "max_position_embeddings": max_tokens}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(RULES))
    tensors = {
        "model.embed_tokens.weight": np.zeros((100, 64), np.float16),
        "model.layers.0.mlp.up_proj.weight": np.zeros((128, 64), np.float16),
        "visual.blocks.0.attn.proj.weight": np.zeros((32, 32), np.float16),
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_bundle(folder: Path) -> Path:
    """Write a verified bundle of two levels whose files have known sizes: 1,000, 300 and 50 bytes."""
    sizes = {
        "gguf-q4_k_m/model.gguf": 1000,
        f"{SHARED}/mmproj-f16.gguf": 300,
        "onnx-int4/decoder.onnx": 200,
        "onnx-int4/decoder-0.data": 800,
        f"{SHARED}/vision-fp32.onnx": 100,
        f"{SHARED}/vision-fp32-0.data": 200,
        f"{SHARED}/token_embeddings.npy": 50,
    }
    for path, size in sizes.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(bytes(size))
    for name, value in (("config.json", CONFIG), ("preprocessor_config.json", RULES)):
        (folder / SHARED / name).write_text(json.dumps(value))
    prompt_files = (f"{SHARED}/config.json", f"{SHARED}/preprocessor_config.json")
    gguf = LevelEntry(
        "gguf-q4_k_m", ("gguf-q4_k_m/model.gguf",), (f"{SHARED}/mmproj-f16.gguf", *prompt_files), {}, 1300
    )
    onnx = LevelEntry(
        "onnx-int4",
        ("onnx-int4/decoder.onnx", "onnx-int4/decoder-0.data"),
        (f"{SHARED}/vision-fp32.onnx", f"{SHARED}/vision-fp32-0.data", f"{SHARED}/token_embeddings.npy", *prompt_files),
        {},
        1350,
    )
    write_manifest(
        folder,
        family="qwen2.5-vl",
        license="unknown",
        preprocessing=RULES,
        levels=[onnx, gguf],
        provenance={"checkpoint_sha256": "0" * 64},
    )
    return folder
