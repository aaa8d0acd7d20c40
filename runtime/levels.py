"""The quantisation levels infimed exports and runs: one row each, and what may be added to a row's name.

A level names a format and how its weights are stored; bits per weight count scales and zero points, and those of GGUF's
mixed types are of a 3B model's layers (docs/gguf.md). A name is a row's, then `+imatrix` where the quantiser weighs its
errors by an importance matrix, then `+vision-TYPE` where the vision tower is stored otherwise than the row says. Knows
no file and no engine library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .. import InfimedError

Format = Literal["gguf", "onnx", "tensorrt"]
Importance = Literal["never", "optional", "required"]

IMATRIX = "imatrix"
_VISION = "vision-"
# Types whose activations are stored as integers over a range that is fixed at export.
_STATIC = {"onnx": "int8-static", "tensorrt": "int8"}


class UnknownLevel(InfimedError):
    """No level of that name exists, or the bundle does not hold it."""


@dataclass(frozen=True)
class QuantLevel:
    """One level.

    base: the name of its row. weight_bits: bits per weight of the bulk of the text model's matrices. full_precision:
    nothing but the format differs from the checkpoint in fp32, so the graph itself can be judged on it. storage: the
    format's own name for it. vision: how the vision tower is stored. importance: whether the quantiser takes an
    importance matrix. imatrix: whether this level was made with one.
    """

    base: str
    format: Format
    storage: str
    weight_bits: float
    full_precision: bool
    runs_on: tuple[str, ...]
    vision: str
    importance: Importance = "never"
    imatrix: bool = False

    @property
    def name(self) -> str:
        """The level's name, in the one way it is written."""
        parts = [self.base, *([IMATRIX] if self.imatrix else [])]
        if self.vision != _ROWS[self.base].vision:
            parts.append(_VISION + self.vision)
        return "+".join(parts)

    @property
    def text(self) -> str:
        """The name of the level whose language model this is, with the tower that the row names."""
        return replace(self, vision=_ROWS[self.base].vision).name

    @property
    def tower(self) -> str:
        """The name of its vision tower's storage: formats store a type of the same name each in its own way."""
        return f"{self.format}-{self.vision}"

    @property
    def calibrated(self) -> bool:
        """Whether it is made from a calibration dataset: by an importance matrix, or by ranges of activations."""
        static = _STATIC.get(self.format)
        return self.imatrix or (static is not None and static in (self.storage, self.vision))


LEVELS: tuple[QuantLevel, ...] = (
    QuantLevel("gguf-f32", "gguf", "F32", 32.0, True, ("cpu", "cuda"), "f32"),
    QuantLevel("gguf-f16", "gguf", "F16", 16.0, False, ("cpu", "cuda"), "f16"),
    QuantLevel("gguf-bf16", "gguf", "BF16", 16.0, False, ("cpu", "cuda"), "f16"),
    QuantLevel("gguf-q8_0", "gguf", "Q8_0", 8.5, False, ("cpu", "cuda"), "f16"),
    QuantLevel("gguf-q6_k", "gguf", "Q6_K", 6.5625, False, ("cpu", "cuda"), "f16", "optional"),
    QuantLevel("gguf-q5_k_m", "gguf", "Q5_K_M", 5.66, False, ("cpu", "cuda"), "f16", "optional"),
    QuantLevel("gguf-q4_k_m", "gguf", "Q4_K_M", 4.81, False, ("cpu", "cuda"), "f16", "optional"),
    QuantLevel("gguf-iq4_xs", "gguf", "IQ4_XS", 4.3, False, ("cpu", "cuda"), "f16", "optional"),
    QuantLevel("gguf-q4_0", "gguf", "Q4_0", 4.5, False, ("cpu", "cuda"), "f16", "optional"),
    QuantLevel("gguf-q3_k_m", "gguf", "Q3_K_M", 3.83, False, ("cpu", "cuda"), "f16", "optional"),
    QuantLevel("gguf-iq3_xxs", "gguf", "IQ3_XXS", 3.06, False, ("cpu", "cuda"), "f16", "required", imatrix=True),
    QuantLevel("gguf-q2_k", "gguf", "Q2_K", 2.92, False, ("cpu", "cuda"), "f16", "optional"),
    QuantLevel("onnx-fp32", "onnx", "fp32", 32.0, True, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-fp16", "onnx", "fp16", 16.0, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int8", "onnx", "int8", 9.0, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int8-acc4", "onnx", "int8-acc4", 9.0, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int8-dynamic", "onnx", "int8-dynamic", 8.0, False, ("cpu",), "fp32"),
    QuantLevel("onnx-int8-static", "onnx", "int8-static", 8.0, False, ("cpu",), "fp32"),
    QuantLevel("onnx-int4", "onnx", "int4", 5.125, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int4-acc4", "onnx", "int4-acc4", 5.125, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int4-hqq", "onnx", "int4-hqq", 6.0, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int4-kquant", "onnx", "int4-kquant", 5.125, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int4-b128", "onnx", "int4-b128", 4.28125, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int4-b128-hqq", "onnx", "int4-b128-hqq", 4.5, False, ("cpu", "cuda"), "fp32"),
    QuantLevel("onnx-int4-b128-kquant", "onnx", "int4-b128-kquant", 4.28125, False, ("cpu", "cuda"), "fp32"),
    # On the processor it is the level's graph that runs, in onnxruntime; its engine needs an NVIDIA GPU.
    QuantLevel("tensorrt-fp32", "tensorrt", "fp32", 32.0, True, ("cpu", "cuda"), "fp32"),
    QuantLevel("tensorrt-fp16", "tensorrt", "fp16", 16.0, False, ("cpu", "cuda"), "fp16"),
    QuantLevel("tensorrt-int8", "tensorrt", "int8", 8.0, False, ("cpu", "cuda"), "fp16"),
    QuantLevel("tensorrt-int4", "tensorrt", "int4", 4.25, False, ("cpu", "cuda"), "fp16", "optional"),
)
TENSORRT_BLOCK = 64
"""Weights of a row that share a scale in TensorRT's int4; rows that fill no such blocks stay float16."""
_ROWS: Mapping[str, QuantLevel] = {row.base: row for row in LEVELS}
VISION_TYPES: Mapping[Format, tuple[str, ...]] = {
    "gguf": ("f32", "f16", "q8_0"),
    "onnx": tuple(row.storage for row in LEVELS if row.format == "onnx"),
    "tensorrt": tuple(row.storage for row in LEVELS if row.format == "tensorrt"),
}
"""How a format's vision tower may be stored."""


def level(name: str) -> QuantLevel:
    """Return the level of that name. Raises UnknownLevel with the names there are, or with what a row does not take."""
    base, *additions = name.split("+")
    row = _ROWS.get(base)
    if row is None:
        raise UnknownLevel(f"level {name!r} is unknown; levels: {', '.join(row.name for row in LEVELS)}")
    if additions and additions[0] == IMATRIX:
        if row.importance == "never":
            raise UnknownLevel(f"level {name!r} is none: {base} is stored without an importance matrix; ask for {base}")
        row = replace(row, imatrix=True)
        del additions[0]
    elif row.importance == "required":
        raise UnknownLevel(
            f"level {name!r} needs an importance matrix, which a calibration dataset gives; ask for "
            f"{'+'.join((base, IMATRIX, *additions))}, and add --calibration DATASET"
        )
    if additions and additions[0].startswith(_VISION):
        row = replace(row, vision=additions.pop(0).removeprefix(_VISION))
        types = VISION_TYPES[row.format]
        if row.vision not in types:
            raise UnknownLevel(f"level {name!r}: the vision tower of {base} can be {', '.join(types)}")
    if additions:
        raise UnknownLevel(
            f"level {name!r}: {'+'.join(additions)!r} says nothing there; after {base} may follow +{IMATRIX}, then "
            f"+{_VISION}TYPE"
        )
    if row.name != name:
        raise UnknownLevel(f"level {name!r} is {row.name}, whose vision tower is stored so already; ask for that")
    return row


def full_precision_of(format: Format) -> QuantLevel:
    """Return the level on which a format's graph is judged."""
    return next(row for row in LEVELS if row.format == format and row.full_precision)
