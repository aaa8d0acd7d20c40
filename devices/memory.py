"""What a level needs in memory while it answers: weights, KV cache, vision, working space and libraries.

The factors are calibrated on x86-64 with both engines (docs/devices.md states the error). Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.shape import ModelShape
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
    tokens of a prompt at a time. cache_copies: of the KV cache alive at a time. text_scores, vision_scores: copies of
    one layer's attention scores alive at a time. text_rows, vision_rows: float32 rows of the hidden and feed-forward
    widths alive per token or patch. logits_bytes: held at most.
    """

    libraries_bytes: int
    batch_tokens: int
    cache_copies: float
    text_scores: float
    text_rows: float
    vision_scores: float
    vision_rows: float
    logits_bytes: int


ENGINE_MEMORY = {
    "gguf": EngineMemory(110 * MB, 512, 1.0, 1.0, 3.0, 2.0, 3.0, 128 * 2**20),
    "onnx": EngineMemory(150 * MB, 4096, 2.0, 3.0, 3.0, 3.0, 4.0, 64 * 2**20),
}


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


def memory_need(shape: ModelShape, weights: LevelWeights, use: Use) -> Memory:
    """Return what a level of this shape needs for this use."""
    row = weights.level
    engine = ENGINE_MEMORY[row.format]
    cache_number_bytes = 4 if row.format == "onnx" or row.full_precision else 2
    batch = min(engine.batch_tokens, use.context_tokens)
    text_scores = 4 * shape.heads * batch * use.context_tokens * engine.text_scores
    text_rows = 4 * batch * (shape.hidden + shape.intermediate) * engine.text_rows
    logits = min(2 * 4 * batch * shape.vocab, engine.logits_bytes)
    vision = shape.vision
    patches = use.image_pixels // vision.patch_size**2
    vision_scores = 4 * vision.heads * patches**2 * engine.vision_scores
    vision_rows = 4 * patches * (vision.hidden + vision.intermediate) * engine.vision_rows
    embedding = weights.embedding_bytes
    if row.format == "onnx":
        # A memory map: only the pages that hold the rows of the context's tokens are read.
        row_bytes = embedding // max(shape.vocab, 1)
        embedding = min(embedding, use.context_tokens * (row_bytes + PAGE_BYTES))
    return Memory(
        weights_bytes=weights.language_bytes + embedding,
        vision_weights_bytes=weights.vision_bytes if use.image_pixels else 0,
        kv_cache_bytes=int(shape.kv_bytes_per_token(cache_number_bytes) * use.context_tokens * engine.cache_copies),
        vision_activations_bytes=int(vision_scores + vision_rows) if use.image_pixels else 0,
        working_bytes=int(text_scores + text_rows + logits),
        libraries_bytes=engine.libraries_bytes,
    )
