"""Reads every weight of a checkpoint once and refuses what no level could hold, before hours are spent on the rest.

Looks at the bits of each weight without its sign, which order numbers as their sizes do; computes nothing. Knows
safetensors' types through Checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..runtime.events import Event, OnEvent, ignore
from ..runtime.levels import QuantLevel
from ..runtime.shape import CheckpointError, is_vision
from ..training.checkpoint import Checkpoint

# safetensors' type -> unsigned integer of its width, the bits of infinity, and of 65,520, which half precision rounds
# to infinity: from there on, and from infinity on, NaN included, every size is larger.
_BITS: Mapping[str, tuple[str, int, int]] = {
    "F64": ("<u8", 0x7FF0 << 48, 0x40EFFE << 40),
    "F32": ("<u4", 0x7F80 << 16, 0x477FF000),
    "BF16": ("<u2", 0x7F80, 0x4780),
    "F16": ("<u2", 0x7C00, 0x7C00),
}
_BLOCK_BYTES = 1 << 22


def check_weights(checkpoint: Checkpoint, rows: Sequence[QuantLevel], on_event: OnEvent = ignore) -> None:
    """Raise CheckpointError naming the first tensor that holds NaN, infinity or what a level of `rows` cannot.

    One block is in memory at a time.
    """
    done, total = 0, checkpoint.weight_bytes
    halves = {vision: next((row for row in rows if _halved(row, vision)), None) for vision in (False, True)}
    for spec in checkpoint.tensors.values():
        raw = checkpoint.raw(spec.name)
        half = halves[is_vision(spec.name)] if len(spec.shape) > 1 else None  # vectors stay in float32
        if spec.dtype in _BITS:
            kind, infinity, beyond_half = _BITS[spec.dtype]
            unsigned = np.array((1 << (8 * np.dtype(kind).itemsize - 1)) - 1, kind)
            for start in range(0, len(raw), _BLOCK_BYTES):
                largest = int((raw[start : start + _BLOCK_BYTES].view(kind) & unsigned).max())
                if largest >= infinity:
                    raise CheckpointError(
                        f"tensor {spec.name} holds NaN or infinity; the checkpoint is damaged, copy or train it again"
                    )
                if half is not None and largest >= beyond_half:
                    raise CheckpointError(
                        f"tensor {spec.name} holds numbers beyond 65504, which half precision cannot, and {half.name} "
                        "rounds to it; ask for levels without it (gguf-f32, onnx-fp32, onnx-int8)"
                    )
        done += len(raw)
        on_event(Event("check weights", done, total, "bytes", spec.name))


def _halved(row: QuantLevel, vision: bool) -> bool:
    """Return whether a level rounds the matrices of a half of the model to half precision on their way."""
    kind = row.vision if vision else row.storage
    return kind.lower() not in ("f32", "bf16") if row.format == "gguf" else kind == "fp16"
