"""The bounds of the certificate that were measured, not derived: errors of weights by type, of kernels by level.

Measured by benchmarks/weight_errors.py and, on clean models, by benchmarks/kernel_bounds.py, which hold these tables
against what they measure; docs/parity.md says on which models and how. A bound is at most twice the largest value
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..runtime.levels import QuantLevel

FLOAT_STORAGES = ("F16", "BF16", "fp16")
"""Levels in floating point: the graph is judged on them as they are, too."""
FLOAT_TOWERS = ("f32", "f16", "fp32", "fp16")
STORED_KL_NATS = 1e-4
"""Largest mean KL of a level in floating point, run as it is, to torch with the same weights."""

WEIGHT_LIMITS: Mapping[str, float] = {
    # Nothing is rounded but float64 and what float32 cannot hold.
    "F32": 1e-6,
    "float32": 1e-6,
    # Derived: half a unit of the last of 11 and of 8 bits, twice; weights below 6e-5 lose more in half precision.
    "F16": 1e-3,
    "float16": 1e-3,
    "BF16": 4e-3,
    "Q8_0": 0.014,
    "Q6_K": 0.046,
    "Q5_K": 0.086,
    "Q5_1": 0.09,
    "Q5_0": 0.11,
    "Q4_K": 0.17,
    "Q4_1": 0.18,
    "Q4_0": 0.22,
    "IQ4_NL": 0.18,
    "IQ4_XS": 0.18,
    "Q3_K": 0.34,
    "IQ3_S": 0.38,
    "IQ3_XXS": 0.5,
    "IQ2_S": 0.55,
    "Q2_K": 0.6,
    "int8-block32-symmetric": 0.014,
    "int8-channel-symmetric": 0.05,
    "int4-block32-asymmetric": 0.19,
    "int4-block128-asymmetric": 0.26,
    "int4-block64-symmetric": 0.28,
    "int4-block32-float-zeros": 0.17,
    "int4-block128-float-zeros": 0.26,
}
"""Type -> largest relative error ||W - V|| / ||W|| of a tensor that it may cause."""


@dataclass(frozen=True)
class KernelLimit:
    """How much the kernels of a level, or of a tower in a level of full precision, may do to logits.

    share: of what the weights' rounding does to the reply's logits, both as root mean squares; None for levels in
    floating point. kl_nats: mean KL, where the weights are in floating point or the type holds the checkpoint exactly.
    weight_error: the relative error that the coarsest type usually causes. floor_nats: mean KL up to which no share is
    asked for, since a part in floating point may make it by itself.
    """

    share: float | None
    kl_nats: float
    weight_error: float = 0.0
    floor_nats: float = 0.0

    def beside(self, other: KernelLimit) -> KernelLimit:
        """Return the bound of both at work in one level.

        What one of them does to logits is independent of what the other does, so both the kernels' part and the
        weights' part add up in squares, and the share of the sum is at most the larger share. What a part in floating
        point does is no share of the other's weights: it may make its own nats.
        """
        shares = [share for share in (self.share, other.share) if share is not None]
        return KernelLimit(
            max(shares, default=None),
            self.kl_nats + other.kl_nats,
            max(self.weight_error, other.weight_error),
            sum(part.kl_nats for part in (self, other) if part.share is None),
        )


@dataclass(frozen=True)
class TowerLimit:
    """How much a tower's kernels may do. embedding: largest difference of an image embedding, relative to the largest
    value. logits: what that does to the logits of a language model in full precision."""

    embedding: float
    logits: KernelLimit


EXACT_SHARE = 0.25
"""A level whose largest weight error is below this share of the usual one holds its checkpoint nearly exactly."""

KERNEL_LIMITS: Mapping[str, KernelLimit] = {
    "gguf-f32": KernelLimit(None, 1e-9),
    "gguf-f16": KernelLimit(None, STORED_KL_NATS),
    "gguf-bf16": KernelLimit(None, STORED_KL_NATS),
    "gguf-q8_0": KernelLimit(1.7, 0.0016, 0.006),
    "gguf-q6_k": KernelLimit(1.6, 0.0033, 0.0061),
    "gguf-q6_k+imatrix": KernelLimit(1.6, 0.0032, 0.0061),
    "gguf-q5_k_m": KernelLimit(0.78, 0.0032, 0.041),
    "gguf-q5_k_m+imatrix": KernelLimit(0.54, 0.0033, 0.039),
    "gguf-q4_k_m": KernelLimit(0.43, 0.0034, 0.05),
    "gguf-q4_k_m+imatrix": KernelLimit(0.43, 0.0033, 0.048),
    "gguf-iq4_xs": KernelLimit(0.35, 0.0035, 0.082),
    "gguf-iq4_xs+imatrix": KernelLimit(0.46, 0.0034, 0.083),
    "gguf-q4_0": KernelLimit(0.32, 0.0016, 0.093),
    "gguf-q4_0+imatrix": KernelLimit(0.3, 0.0016, 0.089),
    "gguf-q3_k_m": KernelLimit(0.31, 0.0033, 0.1),
    "gguf-q3_k_m+imatrix": KernelLimit(0.35, 0.0032, 0.094),
    "gguf-iq3_xxs+imatrix": KernelLimit(0.14, 0.0035, 0.092),
    "gguf-q2_k": KernelLimit(0.17, 0.0037, 0.1),
    "gguf-q2_k+imatrix": KernelLimit(0.12, 0.0031, 0.096),
    "onnx-fp32": KernelLimit(None, 1e-9),
    "onnx-fp16": KernelLimit(None, STORED_KL_NATS),
    "onnx-int8": KernelLimit(0.00039, 5.9e-12, 0.0058),
    "onnx-int8-acc4": KernelLimit(2.0, 0.0016, 0.0058),
    "onnx-int8-dynamic": KernelLimit(3.0, 0.0093, 0.0081),
    "onnx-int8-static": KernelLimit(5.2, 0.011, 0.0081),
    "onnx-int4": KernelLimit(0.15, 0.00014, 0.094),
    "onnx-int4-acc4": KernelLimit(0.3, 0.0016, 0.094),
    "onnx-int4-hqq": KernelLimit(0.16, 0.00014, 0.089),
    "onnx-int4-kquant": KernelLimit(0.14, 0.00014, 0.091),
    "onnx-int4-b128": KernelLimit(0.15, 0.00014, 0.12),
    "onnx-int4-b128-hqq": KernelLimit(0.13, 0.00014, 0.11),
    "onnx-int4-b128-kquant": KernelLimit(0.13, 0.00014, 0.11),
    "tensorrt-fp32": KernelLimit(None, 1e-9),
    "tensorrt-fp16": KernelLimit(None, STORED_KL_NATS),
    "tensorrt-int8": KernelLimit(11.0, 0.01, 0.0079),
    "tensorrt-int4": KernelLimit(0.018, 1.4e-06, 0.1),
    "tensorrt-int4+imatrix": KernelLimit(0.022, 1.5e-06, 0.11),
}
"""Level, with its row's own tower -> bound of its kernels on a processor."""

TOWER_LIMITS: Mapping[str, TowerLimit] = {
    "gguf-f32": TowerLimit(1e-6, KernelLimit(None, 1e-9)),
    "gguf-f16": TowerLimit(0.0014, KernelLimit(None, STORED_KL_NATS)),
    "gguf-q8_0": TowerLimit(0.037, KernelLimit(4.0, 0.00022, 0.006)),
    "onnx-fp32": TowerLimit(1e-6, KernelLimit(None, 1e-9)),
    "onnx-fp16": TowerLimit(0.001, KernelLimit(None, STORED_KL_NATS)),
    "onnx-int8": TowerLimit(1e-05, KernelLimit(0.0024, 1e-11, 0.0058)),
    "onnx-int8-acc4": TowerLimit(0.043, KernelLimit(7.8, 0.00021, 0.0058)),
    "onnx-int8-dynamic": TowerLimit(0.089, KernelLimit(12.0, 0.00088, 0.0077)),
    "onnx-int8-static": TowerLimit(0.38, KernelLimit(30.0, 0.0026, 0.0077)),
    "onnx-int4": TowerLimit(1e-05, KernelLimit(0.00013, 1e-11, 0.091)),
    "onnx-int4-acc4": TowerLimit(0.041, KernelLimit(0.46, 0.00021, 0.091)),
    "onnx-int4-hqq": TowerLimit(1e-05, KernelLimit(0.0001, 1e-11, 0.086)),
    "onnx-int4-kquant": TowerLimit(1e-05, KernelLimit(0.00013, 1e-11, 0.093)),
    "onnx-int4-b128": TowerLimit(1e-05, KernelLimit(0.00016, 1e-11, 0.11)),
    "onnx-int4-b128-hqq": TowerLimit(1e-05, KernelLimit(0.00014, 1e-11, 0.11)),
    "onnx-int4-b128-kquant": TowerLimit(1e-05, KernelLimit(0.00012, 1e-11, 0.11)),
    "tensorrt-fp32": TowerLimit(1e-6, KernelLimit(None, 1e-9)),
    "tensorrt-fp16": TowerLimit(0.001, KernelLimit(None, STORED_KL_NATS)),
    "tensorrt-int8": TowerLimit(0.37, KernelLimit(27.0, 0.0024, 0.0076)),
    "tensorrt-int4": TowerLimit(0.0014, KernelLimit(0.022, 1.1e-07, 0.11)),
}
"""Format and type of a tower -> bound of its kernels on a processor."""


def tower_limit(row: QuantLevel) -> TowerLimit | None:
    """Return the bound of a level's tower, None where none was measured."""
    return TOWER_LIMITS.get(row.tower)


def kernel_limit(row: QuantLevel) -> KernelLimit | None:
    """Return the bound on the logits of a level, None where none was measured."""
    text, tower = KERNEL_LIMITS.get(row.text), tower_limit(row)
    if text is None or row.name == row.text:  # measured with the tower that its row names
        return text
    return None if tower is None else text.beside(tower.logits)
