"""GGUF files against llama.cpp's own converter, run from the source package of the installed llama-cpp-python.

INFIMED_LLAMA_CPP_SOURCE may name an unpacked llama.cpp; otherwise pip fetches the package once into pytest's cache.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infimed.export.gguf_importance import importance_of
from infimed.export.gguf_model import text_model, vision_model
from infimed.export.gguf_write import write_levels, write_text_model, write_towers
from infimed.runtime.levels import LEVELS, level
from infimed.runtime.llama_backend import LlamaBackend
from infimed.training.checkpoint import Checkpoint

from ..models import CONTROL_TOKENS, QWEN2_REGEX, build_random_checkpoint
from ..text_models import LLAMA3_ROPE, PLAIN_ROPE, build_text_checkpoint
from .llama_oracle import differing, quantise_by_llama, random_activations

pytestmark = pytest.mark.full

# The converter looks for a sentencepiece model first and knows a BPE vocabulary by a hash of what it makes of a text,
# which a vocabulary of our own cannot match: for that one the name is given.
CONVERT = """
import os, sys
source, known = sys.argv[1], sys.argv[2]
del sys.argv[1:3]
sys.path[:0] = [source, os.path.join(source, "gguf-py")]
from conversion.base import TextModel
def no_sentencepiece(self, add_to_gguf=True):
    raise FileNotFoundError("tokenizer.model")
TextModel._set_vocab_sentencepiece = no_sentencepiece
if known:
    TextModel.get_vocab_base_pre = lambda self, tokenizer: known
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""


@pytest.fixture(scope="session")
def llama_cpp_source(request: pytest.FixtureRequest) -> Path:
    """Return an unpacked llama.cpp of the version that is installed; a failure to get it is a failure of the test."""
    if named := os.environ.get("INFIMED_LLAMA_CPP_SOURCE"):
        return Path(named)
    version = importlib.metadata.version("llama_cpp_python")
    cache = request.config.cache
    assert cache is not None
    folder = Path(cache.mkdir("llama-cpp-source"))
    source = folder / f"llama_cpp_python-{version}" / "vendor" / "llama.cpp"
    if not (source / "convert_hf_to_gguf.py").is_file():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        subprocess.run([*pip, "--dest", str(folder), f"llama-cpp-python=={version}"], check=True)
        (package,) = folder.glob(f"llama_cpp_python-{version}.tar.gz")
        with tarfile.open(package) as archive:
            wanted = [
                member
                for member in archive.getmembers()
                if any(
                    f"/vendor/llama.cpp/{part}" in member.name
                    for part in ("conv", "gguf-py/", "models/ggml-vocab-qwen2")
                )
            ]
            archive.extractall(folder, wanted, filter="data")
        package.unlink()
    return source


def convert(source: Path, folder: Path, out: Path, *options: str, known: str = "qwen2") -> Path:
    """Run the converter. known: the name of the pre-tokenizer; where it is empty the converter finds it."""
    command = [sys.executable, "-c", CONVERT, str(source), known, str(folder), "--outfile", str(out), *options]
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


def check_levels(folder: Path, known: str, source: Path, out: Path) -> None:
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
        theirs = convert(source, folder, out / f"their-{kind}.gguf", "--outtype", kind, known=known)
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
def test_every_level_equals_llama_cpps_own_way_bit_for_bit(layout: str, llama_cpp_source: Path, tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "checkpoint", **LAYOUTS[layout])
    check_levels(folder, "qwen2", llama_cpp_source, tmp_path)


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
def test_every_level_of_text_only_families_equals_llama_cpps_own_way_bit_for_bit(
    layout: str, llama_cpp_source: Path, tmp_path: Path
) -> None:
    family, known, options = TEXT_LAYOUTS[layout]
    folder = build_text_checkpoint(tmp_path / "checkpoint", family, **options)
    check_levels(folder, known, llama_cpp_source, tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tower_equals_llama_cpps_own_way_bit_for_bit(layout: str, llama_cpp_source: Path, tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "checkpoint", **LAYOUTS[layout])
    ours = {kind: tmp_path / f"{kind}.gguf" for kind in ("F32", "F16", "Q8_0")}
    write_towers(vision_model(Checkpoint.open(folder)), ours, threads=2)
    named = {"general.name"}
    for kind in ("f32", "f16", "q8_0"):
        out = tmp_path / f"their-{kind}.gguf"
        theirs = convert(llama_cpp_source, folder, out, "--outtype", kind, "--mmproj")
        if kind == "q8_0":
            # The converter's other way quantises what was not rounded to half precision, and keeps the patches in F32.
            theirs_direct = differing(ours["Q8_0"], theirs)[0]
            assert {"v.patch_embd.weight", "v.patch_embd.weight.1"} <= set(theirs_direct)
            theirs = quantise_by_llama(tmp_path / "their-f16.gguf", tmp_path / "theirs.gguf", "Q8_0")
        assert differing(ours[kind.upper()], theirs) == ([], named), kind


def test_the_real_qwen2_vocabulary_equals_the_converters(llama_cpp_source: Path, tmp_path: Path) -> None:
    """151,936 real tokens: the converter finds the pre-tokenizer by its hash, we by the regular expression."""
    import gguf

    folder = build_random_checkpoint(
        tmp_path / "checkpoint", hidden=64, ffn=64, layers=1, heads=2, kv_heads=1, vocabulary=151936, dtype="float16"
    )
    stored = gguf.GGUFReader(llama_cpp_source / "models" / "ggml-vocab-qwen2.gguf").fields
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
    theirs = convert(llama_cpp_source, folder, tmp_path / "theirs.gguf", "--outtype", "f16", known="")
    assert differing(tmp_path / "text.gguf", theirs) == ([], {"general.name"})
