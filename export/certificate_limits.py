"""The bounds of the certificate that were measured, not derived: errors of weights by type, of kernels by level.

Measured on clean models by benchmarks/kernel_bounds.py, which prints this table again; docs/parity.md says on which and
how. A bound is at most twice the largest value measured; types that no clean model had here are given by their kin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLOAT_STORAGES = ("F16", "BF16", "fp16")
"""Levels in floating point: the graph is judged on them as they are, too."""
STORED_KL_NATS = 1e-4
"""Largest mean KL of a level in floating point, run as it is, to torch with the same weights."""

WEIGHT_LIMITS: Mapping[str, float] = {
    # Nothing is rounded but float64 and what float32 cannot hold.
    "F32": 1e-6,
    "float32": 1e-6,
    # Half a unit of the last of 11 and of 8 bits; weights below 6e-5 lose more in half precision.
    "F16": 1e-3,
    "float16": 1e-3,
    "BF16": 4e-3,
    "Q8_0": 0.013,
    "Q6_K": 0.047,
    "Q5_K": 0.09,
    "Q5_1": 0.09,
    "Q5_0": 0.1,
    "Q4_K": 0.18,
    "Q4_1": 0.18,
    "Q4_0": 0.2,
    "IQ4_NL": 0.18,
    "IQ4_XS": 0.18,
    "Q3_K": 0.36,
    "IQ3_S": 0.36,
    "IQ3_XXS": 0.45,
    "IQ2_S": 0.5,
    "Q2_K": 0.5,
    "int8-block32-symmetric": 0.013,
    "int8-channel-symmetric": 0.03,
    "int4-block32-asymmetric": 0.2,
    "int4-block128-asymmetric": 0.28,
    "int4-block32-float-zeros": 0.2,
    "int4-block128-float-zeros": 0.28,
}
"""Type -> largest relative error ||W - V|| / ||W|| of a tensor that it may cause."""


@dataclass(frozen=True)
class KernelLimit:
    """How much the kernels of a level may do.

    share: of what the weights' rounding does to the reply's logits, both as root mean squares; None for levels in
    floating point. kl_nats: mean KL, where the weights are in floating point or the type holds the checkpoint exactly.
    weight_error: the relative error that the level's coarsest type usually causes.
    """

    share: float | None
    kl_nats: float
    weight_error: float = 0.0


EXACT_SHARE = 0.25
"""A level whose largest weight error is below this share of the usual one holds its checkpoint nearly exactly."""

KERNEL_LIMITS: Mapping[str, KernelLimit] = {
    "gguf-f32": KernelLimit(None, 1e-9),
    "onnx-fp32": KernelLimit(None, 1e-9),
    "gguf-f16": KernelLimit(None, STORED_KL_NATS),
    "gguf-bf16": KernelLimit(None, STORED_KL_NATS),
    "gguf-q8_0": KernelLimit(1.7, 1.7e-3, 0.006),
    "gguf-q6_k": KernelLimit(0.78, 1.5e-3, 0.022),
    "gguf-q5_k_m": KernelLimit(0.78, 1.5e-3, 0.041),
    "gguf-q4_k_m": KernelLimit(0.43, 3.6e-3, 0.079),
    "gguf-iq4_xs": KernelLimit(0.36, 1.5e-3, 0.082),
    "gguf-q4_0": KernelLimit(0.32, 7.6e-4, 0.093),
    "gguf-q3_k_m": KernelLimit(0.32, 1.5e-3, 0.17),
    "gguf-q2_k": KernelLimit(0.17, 1.7e-3, 0.35),
    "onnx-fp16": KernelLimit(None, STORED_KL_NATS),
    "onnx-int8-acc4": KernelLimit(2.0, 1.7e-3, 0.006),
    "onnx-int8": KernelLimit(4e-4, 2.8e-12, 0.0058),
    "onnx-int8-dynamic": KernelLimit(3.0, 3.2e-3, 0.0081),
    "onnx-int4-acc4": KernelLimit(0.3, 7.6e-4, 0.094),
    "onnx-int4-kquant": KernelLimit(0.14, 7.4e-5, 0.091),
    "onnx-int4": KernelLimit(0.16, 1.4e-4, 0.09),
}
"""Level -> bound of its kernels on a processor."""

VISION_KERNEL_LIMITS: Mapping[str, float] = {"f32": 1e-6, "fp32": 1e-6, "f16": 1.4e-3}
"""How the tower is stored -> largest difference of an image embedding that its kernels may cause, relative to the
largest value."""
