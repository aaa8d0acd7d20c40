"""Opens a level of a bundle as an engine: the one place where a format is turned into an inference library.

Knows which backend runs which format, and nothing of how.
"""

from __future__ import annotations

import os
from pathlib import Path

from .bundle import Bundle
from .decoding import Decoder
from .engine import Engine
from .image_store import ImageStore
from .levels import level as level_row
from .manifest import SHARED, LevelEntry
from .prompt import Prompter, read_json
from .shape import context_limit
from .tensorrt_recipe import tower_of

CONTEXT_TOKENS = 4096
"""Room for prompt and reply unless asked otherwise; less where the model was made for less."""
GGUF_MODEL = "model.gguf"
GRAPH = "graph, not engine"


def default_threads() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computed_as(level: str) -> str:
    """Return what a level's engine really is where its name promises more, else nothing: for every place that names it.

    A TensorRT level is opened as its graph, in onnxruntime: the numbers that an engine is built to give, not its own.
    """
    return GRAPH if level_row(level).format == "tensorrt" else ""


def open_engine(
    bundle: Bundle,
    level: str,
    *,
    threads: int | None = None,
    gpu_layers: int = 0,
    context_tokens: int | None = None,
    images: ImageStore | None = None,
) -> Engine:
    """Return an engine for one level of a verified bundle.

    threads: of the processor, all available by default. gpu_layers: how many layers llama.cpp puts on the GPU; for
    onnxruntime any number but 0 asks for its CUDA provider. context_tokens: room for prompt and reply, at most the
    model's own limit; CONTEXT_TOKENS or that limit by default, the smaller one. images: shared with other levels
    that have the same vision tower. Raises UnknownLevel, BackendError, or MissingExtra naming the command that installs
    the library.
    """
    entry = bundle.entry(level)
    return open_level(
        bundle.folder, entry, threads=threads, gpu_layers=gpu_layers, context_tokens=context_tokens, images=images
    )


def open_level(
    folder: Path,
    entry: LevelEntry,
    *,
    threads: int | None = None,
    gpu_layers: int = 0,
    context_tokens: int | None = None,
    images: ImageStore | None = None,
) -> Engine:
    """Return an engine for a level in a folder laid out as a bundle, verified or still being written."""
    row = level_row(entry.name)
    threads = default_threads() if threads is None else threads
    shared = folder / SHARED
    prompter = Prompter.open(shared)
    if context_tokens is None:
        context_tokens = min(CONTEXT_TOKENS, context_limit(read_json(shared / "config.json")))
    if row.format == "gguf":
        from .llama_backend import LlamaBackend

        mmproj = next((folder / path for path in entry.shared if path.startswith(f"{SHARED}/mmproj")), None)
        return Decoder(
            LlamaBackend(
                folder / entry.name / GGUF_MODEL,
                mmproj,
                threads=threads,
                context_tokens=context_tokens,
                gpu_layers=gpu_layers,
                precise=row.full_precision,
            ),
            prompter,
            entry.name,
            images=images,
        )
    from .onnx_backend import OnnxBackend

    providers = ("CUDAExecutionProvider", "CPUExecutionProvider") if gpu_layers else ("CPUExecutionProvider",)
    return Decoder(
        OnnxBackend(
            folder / entry.name,
            shared,
            threads=threads,
            context_tokens=context_tokens,
            vision=tower_of(row.vision) if row.format == "tensorrt" else row.vision,
            providers=providers,
            as_written=row.format == "tensorrt",
        ),
        prompter,
        entry.name,
        images=images,
    )
