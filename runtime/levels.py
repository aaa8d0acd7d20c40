"""The quantisation levels infimed exports and runs: one row each.

A level names a format and how its weights are stored; bits per weight are those of the format's block layout (scale
and minimum included). Knows no file and no engine library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .. import InfimedError

Format = Literal["gguf", "onnx"]


class UnknownLevel(InfimedError):
    """No level of that name exists, or the bundle does not hold it."""


@dataclass(frozen=True)
class QuantLevel:
    """One level.

    weight_bits: bits per weight of the bulk of the matrices. full_precision: nothing but the format differs from the
    checkpoint in fp32, so the graph itself can be judged on it. storage: the format's own name for it.
    """

    name: str
    format: Format
    storage: str
    weight_bits: float
    full_precision: bool
    runs_on: tuple[str, ...]


LEVELS: tuple[QuantLevel, ...] = (
    QuantLevel("gguf-f32", "gguf", "F32", 32.0, True, ("cpu", "cuda")),
    QuantLevel("gguf-f16", "gguf", "F16", 16.0, False, ("cpu", "cuda")),
    QuantLevel("gguf-q8_0", "gguf", "Q8_0", 8.5, False, ("cpu", "cuda")),
    QuantLevel("gguf-q4_k_m", "gguf", "Q4_K_M", 4.83, False, ("cpu", "cuda")),
    QuantLevel("onnx-fp32", "onnx", "fp32", 32.0, True, ("cpu", "cuda")),
    QuantLevel("onnx-int8", "onnx", "int8", 9.0, False, ("cpu", "cuda")),
    QuantLevel("onnx-int4", "onnx", "int4", 5.125, False, ("cpu", "cuda")),
)


def level(name: str) -> QuantLevel:
    """Return the level of that name. Raises UnknownLevel with the list of names."""
    for row in LEVELS:
        if row.name == name:
            return row
    raise UnknownLevel(f"level {name!r} is unknown; levels: {', '.join(row.name for row in LEVELS)}")


def full_precision_of(format: Format) -> QuantLevel:
    """Return the level on which a format's graph is judged."""
    return next(row for row in LEVELS if row.format == format and row.full_precision)
