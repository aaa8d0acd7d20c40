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

from infimed.export.gguf_quantise import quantise, write_levels
from infimed.export.gguf_write import write_text_model, write_vision_model
from infimed.runtime.levels import level
from infimed.runtime.llama_library import llama_library
from infimed.training.checkpoint import Checkpoint

from ..models import CONTROL_TOKENS, QWEN2_REGEX, build_random_checkpoint
from ..text_models import LLAMA3_ROPE, PLAIN_ROPE, build_text_checkpoint

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


def differing(ours: Path, theirs: Path) -> tuple[list[str], set[str]]:
    """Return the tensors that differ in type, shape or any bit, and the metadata keys that differ."""
    import gguf

    readers = [gguf.GGUFReader(path) for path in (ours, theirs)]
    one, other = ({tensor.name: tensor for tensor in reader.tensors} for reader in readers)
    tensors = [
        name
        for name in sorted(one.keys() | other.keys())
        if name not in one
        or name not in other
        or one[name].tensor_type != other[name].tensor_type
        or list(one[name].shape) != list(other[name].shape)
        or not np.array_equal(one[name].data.view(np.uint8), other[name].data.view(np.uint8))
    ]
    mine, its = ({key: field.contents() for key, field in reader.fields.items()} for reader in readers)
    keys = {key for key in mine.keys() | its.keys() if not key.startswith("GGUF.") and mine.get(key) != its.get(key)}
    return tensors, keys


LAYOUTS: dict[str, dict[str, Any]] = {
    "tied-f32": {},
    "untied-bf16": {"tied": False, "dtype": "bfloat16"},
    "sharded-f16": {"dtype": "float16", "max_shard_size": "2MB", "layers": 3, "seed": 4},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_files_equal_the_converters_bit_for_bit(layout: str, kind: str, llama_cpp_source: Path, tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "checkpoint", **LAYOUTS[layout])
    checkpoint = Checkpoint.open(folder)
    write_text_model(checkpoint, tmp_path / "text.gguf", kind.upper())  # type: ignore[arg-type]
    write_vision_model(checkpoint, tmp_path / "mmproj.gguf", kind.upper())  # type: ignore[arg-type]
    theirs = convert(llama_cpp_source, folder, tmp_path / "their-text.gguf", "--outtype", kind)
    # The converter names the model after its folder, whose name must not enter a file of ours.
    assert differing(tmp_path / "text.gguf", theirs) == ([], {"general.name"})
    theirs = convert(llama_cpp_source, folder, tmp_path / "their-mmproj.gguf", "--outtype", kind, "--mmproj")
    assert differing(tmp_path / "mmproj.gguf", theirs) == ([], {"general.name"})


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
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_files_of_text_only_families_equal_the_converters_bit_for_bit(
    layout: str, kind: str, llama_cpp_source: Path, tmp_path: Path
) -> None:
    family, known, options = TEXT_LAYOUTS[layout]
    folder = build_text_checkpoint(tmp_path / "checkpoint", family, **options)
    write_text_model(Checkpoint.open(folder), tmp_path / "text.gguf", kind.upper())  # type: ignore[arg-type]
    theirs = convert(llama_cpp_source, folder, tmp_path / "theirs.gguf", "--outtype", kind, known=known)
    assert differing(tmp_path / "text.gguf", theirs) == ([], {"general.name"})


@pytest.mark.parametrize("name", ["gguf-q8_0", "gguf-q4_k_m"])
def test_quantised_files_equal_the_two_step_way(name: str, llama_cpp_source: Path, tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "checkpoint", dtype="bfloat16", layers=3)
    write_levels(Checkpoint.open(folder), {name: tmp_path / "ours.gguf"}, [level(name)], threads=2)
    half = convert(llama_cpp_source, folder, tmp_path / "their-f16.gguf", "--outtype", "f16")
    number = int(getattr(llama_library().llama, f"LLAMA_FTYPE_MOSTLY_{level(name).storage}"))
    quantise(half, tmp_path / "theirs.gguf", number, threads=1)
    assert differing(tmp_path / "ours.gguf", tmp_path / "theirs.gguf") == ([], {"general.name"})


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
