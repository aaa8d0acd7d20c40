"""Opens a level of a bundle as an engine: the one place where a format is turned into an inference library.

Knows which backend runs which format, and nothing of how.
"""

from __future__ import annotations

import os
from pathlib import Path

from .bundle import Bundle
from .decoding import Decoder
from .engine import Engine
from .levels import level as level_row
from .manifest import SHARED, LevelEntry
from .prompt import Prompter

CONTEXT_TOKENS = 4096
GGUF_MODEL = "model.gguf"


def default_threads() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_engine(
    bundle: Bundle,
    level: str,
    *,
    threads: int | None = None,
    gpu_layers: int = 0,
    context_tokens: int = CONTEXT_TOKENS,
) -> Engine:
    """Return an engine for one level of a verified bundle.

    threads: of the processor, all available by default. gpu_layers: how many layers llama.cpp puts on the GPU; for
    onnxruntime any number above 0 asks for its CUDA provider. Raises UnknownLevel, or MissingExtra naming the command
    that installs the library.
    """
    entry = bundle.entry(level)
    return open_level(bundle.folder, entry, threads=threads, gpu_layers=gpu_layers, context_tokens=context_tokens)


def open_level(
    folder: Path,
    entry: LevelEntry,
    *,
    threads: int | None = None,
    gpu_layers: int = 0,
    context_tokens: int = CONTEXT_TOKENS,
) -> Engine:
    """Return an engine for a level in a folder laid out as a bundle, verified or still being written."""
    row = level_row(entry.name)
    threads = threads or default_threads()
    shared = folder / SHARED
    prompter = Prompter.open(shared)
    if row.format == "gguf":
        from .llama_backend import LlamaBackend

        mmproj = next(path for path in entry.shared if path.startswith(f"{SHARED}/mmproj"))
        return Decoder(
            LlamaBackend(
                folder / entry.name / GGUF_MODEL,
                folder / mmproj,
                threads=threads,
                context_tokens=context_tokens,
                gpu_layers=gpu_layers,
                precise=row.full_precision,
            ),
            prompter,
            entry.name,
        )
    from .onnx_backend import OnnxBackend

    providers = ("CUDAExecutionProvider", "CPUExecutionProvider") if gpu_layers else ("CPUExecutionProvider",)
    return Decoder(
        OnnxBackend(folder / entry.name, shared, threads=threads, context_tokens=context_tokens, providers=providers),
        prompter,
        entry.name,
    )
