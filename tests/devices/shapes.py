"""Shapes of published models, from their published numbers: what planning is checked on without a single weight.

Knows no device. Parameters are counted from the sizes, biases and norms left out.
"""

from __future__ import annotations

from infimed.runtime.shape import ModelShape, VisionShape


def shape(
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    intermediate: int,
    vocab: int,
    tied: bool,
    vision_millions: float,
    vision: tuple[int, int, int, int] = (32, 1280, 16, 3420),
) -> ModelShape:
    """Return a shape stored as bf16. vision: layers, hidden, heads, intermediate."""
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    embedding = vocab * hidden
    language = layers * (attention + 3 * hidden * intermediate) + embedding * (1 if tied else 2)
    tower = VisionShape(*vision, 14, 2, 4, 112, int(vision_millions * 1e6))
    stored_bytes = 2 * (language + tower.parameters)
    return ModelShape(
        "qwen2.5-vl",
        layers,
        hidden,
        heads,
        kv_heads,
        head_dim,
        intermediate,
        vocab,
        tied,
        language,
        embedding,
        tower,
        stored_bytes,
    )


QWEN25_VL_3B = shape(36, 2048, 16, 2, 128, 11008, 151936, True, 669)
QWEN25_7B = shape(28, 3584, 28, 4, 128, 18944, 152064, False, 0)
QWEN25_05B = shape(24, 896, 14, 2, 64, 4864, 151936, True, 0)
LLAMA32_3B = shape(28, 3072, 24, 8, 128, 8192, 128256, True, 0)
PHI35_3B = shape(32, 3072, 32, 32, 96, 8192, 32064, False, 0)
QWEN3_VL_2B = shape(28, 2048, 16, 8, 128, 6144, 151936, True, 407, (24, 1024, 16, 4096))
QWEN3_VL_4B = shape(36, 2560, 32, 8, 128, 9728, 151936, True, 415, (24, 1024, 16, 4096))
QWEN3_VL_8B = shape(36, 4096, 32, 8, 128, 12288, 151936, False, 576, (27, 1152, 16, 4304))
