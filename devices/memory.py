"""What a level needs in memory while it answers: weights, KV cache, vision, working space and libraries.

The factors are calibrated on x86-64 with both engines (docs/devices.md states the error). Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.shape import ModelShape, VisionShape
from .weights import LevelWeights

MB = 10**6
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Use:
    """What is to be asked. image_pixels: of the largest image after resizing; 0 where no image is shown."""

    context_tokens: int = 4096
    image_pixels: int = 448 * 448


@dataclass(frozen=True)
class EngineMemory:
    """How an engine spends memory beyond the weights.

    libraries_bytes: interpreter, numpy, tokenizer and the engine's libraries with nothing opened. batch_tokens: most
    tokens of a prompt at a time. text_scores, vision_scores: copies of one layer's attention scores alive at a time.
    text_rows, vision_rows: float32 rows of the hidden and the feed-forward width alive per token or patch. other_bytes:
    the rest. head_by_head: vision attention holds the scores of one head at a time. gives_back: the working space of an
    image is freed before the text takes its own.
    """

    libraries_bytes: int
    batch_tokens: int
    text_scores: float
    text_rows: float
    vision_scores: float
    vision_rows: float
    other_bytes: int
    head_by_head: bool
    gives_back: bool


# Fitted to benchmarks/planned_memory.py so that no measured row lies above its prediction (docs/devices.md).
ENGINE_MEMORY = {
    "gguf": EngineMemory(80 * MB, 512, 1.7, 2.0, 1.05, 2.0, 40 * MB, head_by_head=False, gives_back=False),
    "onnx": EngineMemory(90 * MB, 256, 3.0, 2.0, 6.5, 2.3, 46 * MB, head_by_head=True, gives_back=True),
}
# onnxruntime packs int8 blocks into an order of its own with sums beside the scales: more than the file, by this share.
PACKING_SHARE = {"onnx-int8-acc4": 0.12}
# What a CUDA context with its libraries takes: assumed, since no such device was at hand.
CUDA_BYTES = 600 * MB


@dataclass(frozen=True)
class Memory:
    """The parts of what a level needs, in bytes."""

    weights_bytes: int
    vision_weights_bytes: int
    kv_cache_bytes: int
    vision_activations_bytes: int
    working_bytes: int
    libraries_bytes: int

    @property
    def above_libraries_bytes(self) -> int:
        """What opening and using the level adds to an interpreter that has only imported."""
        return (
            self.weights_bytes
            + self.vision_weights_bytes
            + self.kv_cache_bytes
            + self.vision_activations_bytes
            + self.working_bytes
        )

    @property
    def total_bytes(self) -> int:
        """All parts together."""
        return self.above_libraries_bytes + self.libraries_bytes


def _vision_activations(vision: VisionShape | None, engine: EngineMemory, image_pixels: int) -> int:
    """Return the working bytes of one image; 0 for a family that takes none."""
    if vision is None:
        return 0
    patches = image_pixels // vision.patch_size**2
    heads = 1 if engine.head_by_head else vision.heads
    scores = 4 * heads * patches**2 * engine.vision_scores
    rows = 4 * patches * (vision.hidden + vision.intermediate) * engine.vision_rows
    return int(scores + rows)


def memory_need(shape: ModelShape, weights: LevelWeights, use: Use, backend: str = "cpu") -> Memory:
    """Return what a level of this shape needs for this use. backend: "cpu", or "cuda" with its own libraries."""
    row = weights.level
    engine = ENGINE_MEMORY[row.format]
    cache_number_bytes = 4 if row.format == "onnx" or row.full_precision else 2
    batch = min(engine.batch_tokens, use.context_tokens)
    text_scores = 4 * shape.heads * batch * use.context_tokens * engine.text_scores
    text_rows = 4 * batch * (shape.hidden + shape.intermediate) * engine.text_rows
    working, activations = int(text_scores + text_rows), _vision_activations(shape.vision, engine, use.image_pixels)
    if engine.gives_back:
        # Only the larger of the two is there at the peak.
        working, activations = (0, activations) if activations > working else (working, 0)
    embedding = weights.embedding_bytes
    if row.format == "onnx":
        # A memory map: only the pages that hold the rows of the context's tokens are read.
        row_bytes = embedding // max(shape.vocab, 1)
        embedding = min(embedding, use.context_tokens * (row_bytes + PAGE_BYTES))
    return Memory(
        weights_bytes=int(weights.language_bytes * (1 + PACKING_SHARE.get(row.base, 0))) + embedding,
        vision_weights_bytes=weights.vision_bytes,
        kv_cache_bytes=shape.kv_bytes_per_token(cache_number_bytes) * use.context_tokens,
        vision_activations_bytes=activations,
        working_bytes=working + engine.other_bytes,
        libraries_bytes=engine.libraries_bytes + (CUDA_BYTES if backend == "cuda" else 0),
    )
