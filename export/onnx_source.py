"""A weight of the checkpoint as an ONNX graph needs it: read piece by piece as float32, checked on the way.

Knows the checkpoint's types and shapes; not what a graph does with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from ..training.checkpoint import Checkpoint

WORK_WEIGHTS = 1 << 22
"""How many weights are in memory at a time."""

_STORED: dict[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class WeightError(InfimedError):
    """A tensor of the checkpoint is missing, damaged or of the wrong shape."""


@dataclass(frozen=True)
class Source:
    """A weight of the checkpoint as the matrix (out, in) or vector that it is; read piece by piece as float32."""

    checkpoint: Checkpoint
    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        spec = self.checkpoint.tensors.get(self.name)
        if spec is None:
            raise WeightError(f"{self.checkpoint.folder} has no tensor {self.name}; its config.json promises one")
        flat = spec.shape if len(spec.shape) == 1 else (spec.shape[0], int(np.prod(spec.shape[1:])))
        if flat != self.shape:
            raise WeightError(
                f"tensor {self.name} has shape {list(spec.shape)}; config.json asks for {list(self.shape)}"
            )
        if spec.dtype not in _STORED:
            raise WeightError(f"tensor {self.name} is stored as {spec.dtype}; floating-point weights are needed")

    @property
    def dtype(self) -> str:
        """The tensor's type in the checkpoint, in safetensors' words."""
        return self.checkpoint.tensors[self.name].dtype

    def stored(self) -> NDArray[Any]:
        """Return the memory map; BF16, which numpy lacks, as the uint16 of its bits."""
        return self.checkpoint.raw(self.name).view(_STORED[self.dtype]).reshape(self.shape)

    def read(self, part: tuple[slice, ...] | slice) -> NDArray[np.float32]:
        """Return a part as float32. Raises WeightError for NaN or infinity."""
        values = self.stored()[part]
        if self.dtype == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise WeightError(f"tensor {self.name} holds NaN or infinity; the checkpoint is damaged")
        return values

    def rows(self) -> Iterator[NDArray[np.float32]]:
        """Yield the matrix (out, in) some rows at a time."""
        step = max(1, WORK_WEIGHTS // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield self.read(slice(start, start + step))

    def turned(self) -> Iterator[NDArray[np.float32]]:
        """Yield the matrix turned around, (in, out), some rows at a time."""
        step = max(1, WORK_WEIGHTS // self.shape[0])
        for start in range(0, self.shape[1], step):
            yield np.ascontiguousarray(self.read((slice(None), slice(start, start + step))).T)
