"""The keys and values of a sequence for an ONNX decoder: one buffer per layer that the graph reads and extends."""

from __future__ import annotations

from typing import Any

import numpy as np


class Cache:
    """Keys and values of every layer, (capacity, kv_heads, head_dim) each, where and as the graph takes them."""

    def __init__(self, layers: int, shape: tuple[int, int, int], kind: type[np.floating[Any]], provider: str) -> None:
        self._device = "cuda" if provider.startswith("CUDA") else "cpu"
        self._entry, self._kind = shape[1:], kind
        self._names = [f"{part}.{layer}" for part in ("key", "value") for layer in range(layers)]
        self._buffers = [self._buffer(shape) for _ in self._names]

    def _buffer(self, shape: tuple[int, int, int]) -> Any:
        if self._device == "cpu":
            return np.empty(shape, dtype=self._kind)  # pages are taken when they are first written
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, self._kind, self._device, 0)

    def bind(self, binding: Any, past: int, count: int) -> None:
        """Let the graph read the first `past` rows of every buffer and write the `count` rows behind them."""
        row_bytes = int(np.prod(self._entry)) * np.dtype(self._kind).itemsize
        for name, buffer in zip(self._names, self._buffers, strict=True):
            start = buffer.ctypes.data if self._device == "cpu" else buffer.data_ptr()
            binding.bind_input(f"past_{name}", self._device, 0, self._kind, (past, *self._entry), start)
            end = start + past * row_bytes
            binding.bind_output(f"new_{name}", self._device, 0, self._kind, (count, *self._entry), end)
