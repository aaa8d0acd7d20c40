"""GGUF files against llama.cpp's own converter; benchmarks/peers.py says where it comes from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infimed.benchmarks.peers import VOCABULARY, convert_command, differing, llama_cpp_source
from infimed.export.gguf_importance import importance_of
from infimed.export.gguf_model import text_model, vision_model
from infimed.export.gguf_write import write_levels, write_text_model, write_towers
from infimed.runtime.levels import LEVELS, level
from infimed.runtime.llama_backend import LlamaBackend
from infimed.training.checkpoint import Checkpoint

from ..models import CONTROL_TOKENS, QWEN2_REGEX, build_random_checkpoint
from ..text_models import LLAMA3_ROPE, PLAIN_ROPE, build_text_checkpoint
from .llama_oracle import quantise_by_llama, random_activations

pytestmark = pytest.mark.full


def convert(folder: Path, out: Path, *options: str, known: str = "qwen2") -> Path:
    """Run the converter. known: the name of the pre-tokenizer; where it is empty the converter finds it."""
    command = convert_command(folder, out, *options, known=known)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


ROWS = [row for row in LEVELS if row.format == "gguf"]
EVERY = [*ROWS, *(level(f"{row.base}+imatrix") for row in ROWS if row.importance == "optional")]
# Widths that hold whole blocks of 256 in the text model, of 32 in the tower; widths that do not; heads of both kinds.
LAYOUTS: dict[str, dict[str, Any]] = {
    "tied-f32": {"layers": 5},
    "untied-bf16": {"tied": False, "dtype": "bfloat16", "layers": 3, "vision_ffn": 256},
    "sharded-f16": {"dtype": "float16", "max_shard_size": "2MB", "layers": 8, "seed": 4, "heads": 8, "kv_heads": 2},
    "odd-tied-bf16": {"dtype": "bfloat16", "hidden": 128, "ffn": 160, "heads": 2, "kv_heads": 1},
    "odd-untied-f32": {"tied": False, "hidden": 192, "ffn": 340, "heads": 6, "kv_heads": 1, "vision_hidden": 64},
}


def check_levels(folder: Path, known: str, out: Path) -> None:
    """Hold every level against llama.cpp's way, and run it.

    The converter for F32, F16 and BF16; its F16 file quantised by llama_model_quantize for the rest.
    """
    text = text_model(Checkpoint.open(folder))
    activations = random_activations(text)
    ours = {row.name: out / f"{row.name}.gguf" for row in EVERY}
    write_levels(text, ours, EVERY, threads=2, activations=activations)
    # The converter names the model after its folder, whose name must not enter a file of ours.
    named = {"general.name"}
    for kind in ("f32", "f16", "bf16"):
        theirs = convert(folder, out / f"their-{kind}.gguf", "--outtype", kind, known=known)
        assert differing(ours[f"gguf-{kind}"], theirs) == ([], named), kind
    for row in EVERY:
        if row.storage in ("F32", "F16", "BF16"):
            continue
        importance = importance_of(text, [row], activations)
        theirs = quantise_by_llama(out / "their-f16.gguf", out / "theirs.gguf", row.storage, importance, 2)
        told = {"quantize.imatrix.dataset", "quantize.imatrix.entries_count"} if row.imatrix else set()
        assert differing(ours[row.name], theirs) == ([], named | told), row.name
    for row in EVERY:
        backend = LlamaBackend(ours[row.name], None, threads=1, context_tokens=64, precise=row.full_precision)
        rows = backend.extend(np.arange(20) + 60, np.tile(np.arange(20), (3, 1)), (), 20)
        backend.close()
        assert np.isfinite(rows).all(), row.name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_level_equals_llama_cpps_own_way_bit_for_bit(layout: str, tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "checkpoint", **LAYOUTS[layout])
    check_levels(folder, "qwen2", tmp_path)


# family, the converter's name of its pre-tokenizer, options
TEXT_LAYOUTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qwen2": ("qwen2", "qwen2", {"dtype": "bfloat16"}),
    "qwen2-tied-sharded": ("qwen2", "qwen2", {"tied": True, "max_shard_size": "2MB", "norm_epsilon": 1e-6}),
    "llama3": ("llama", "llama-bpe", {"dtype": "bfloat16", "kv_heads": 1}),
    "llama3.2-tied": ("llama", "llama-bpe", {"tied": True, "rope": {**LLAMA3_ROPE, "factor": 32.0}}),
    "llama3-1b-heads": ("llama", "llama-bpe", {"hidden": 2048, "heads": 32, "kv_heads": 8, "ffn": 64, "layers": 1}),
    "llama2": ("llama", "llama-bpe", {"rope": PLAIN_ROPE, "kv_heads": 4, "dtype": "float16"}),
    "llama-head-dim": ("llama", "llama-bpe", {"head_dim": 32, "max_shard_size": "2MB"}),
}


@pytest.mark.parametrize("layout", TEXT_LAYOUTS)
def test_every_level_of_text_only_families_equals_llama_cpps_own_way_bit_for_bit(layout: str, tmp_path: Path) -> None:
    family, known, options = TEXT_LAYOUTS[layout]
    folder = build_text_checkpoint(tmp_path / "checkpoint", family, **options)
    check_levels(folder, known, tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tower_equals_llama_cpps_own_way_bit_for_bit(layout: str, tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "checkpoint", **LAYOUTS[layout])
    ours = {kind: tmp_path / f"{kind}.gguf" for kind in ("F32", "F16", "Q8_0")}
    write_towers(vision_model(Checkpoint.open(folder)), ours, threads=2)
    named = {"general.name"}
    for kind in ("f32", "f16", "q8_0"):
        out = tmp_path / f"their-{kind}.gguf"
        theirs = convert(folder, out, "--outtype", kind, "--mmproj")
        if kind == "q8_0":
            # The converter's other way quantises what was not rounded to half precision, and keeps the patches in F32.
            theirs_direct = differing(ours["Q8_0"], theirs)[0]
            assert {"v.patch_embd.weight", "v.patch_embd.weight.1"} <= set(theirs_direct)
            theirs = quantise_by_llama(tmp_path / "their-f16.gguf", tmp_path / "theirs.gguf", "Q8_0")
        assert differing(ours[kind.upper()], theirs) == ([], named), kind


def test_the_real_qwen2_vocabulary_equals_the_converters(tmp_path: Path) -> None:
    """151,936 real tokens: the converter finds the pre-tokenizer by its hash, we by the regular expression."""
    import gguf

    folder = build_random_checkpoint(
        tmp_path / "checkpoint", hidden=64, ffn=64, layers=1, heads=2, kv_heads=1, vocabulary=151936, dtype="float16"
    )
    stored = gguf.GGUFReader(llama_cpp_source() / VOCABULARY).fields
    tokens, kinds, merges = (stored[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    normal = {token: index for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == 1}
    added = [
        {
            "id": len(normal) + index,
            "content": token,
            "special": True,
            "normalized": False,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
        }
        for index, token in enumerate(CONTROL_TOKENS)
    ]
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"].update(vocab=normal, merges=[merge.split(" ") for merge in merges])
    tokenizer["added_tokens"] = added
    assert tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == QWEN2_REGEX
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    write_text_model(Checkpoint.open(folder), tmp_path / "text.gguf", "F16")
    theirs = convert(folder, tmp_path / "theirs.gguf", "--outtype", "f16", known="")
    assert differing(tmp_path / "text.gguf", theirs) == ([], {"general.name"})
