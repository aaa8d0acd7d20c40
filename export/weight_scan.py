"""Reads every weight of a checkpoint once and refuses what is no number, before hours are spent on the rest.

Looks at the bits of each format's exponent; computes nothing. Knows safetensors' types through Checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..runtime.events import Event, OnEvent, ignore
from ..runtime.shape import CheckpointError
from ..training.checkpoint import Checkpoint

# safetensors' type -> (unsigned integer of its width, mask of the exponent): all ones there is infinity or NaN.
_EXPONENT: Mapping[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0 << 48),
    "F32": ("<u4", 0x7F80 << 16),
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
}
_BLOCK_BYTES = 1 << 22


def check_finite(checkpoint: Checkpoint, on_event: OnEvent = ignore) -> None:
    """Raise CheckpointError naming the first tensor that holds NaN or infinity. One block is in memory at a time."""
    done, total = 0, checkpoint.weight_bytes
    for spec in checkpoint.tensors.values():
        raw = checkpoint.raw(spec.name)
        if spec.dtype in _EXPONENT:
            kind, mask = _EXPONENT[spec.dtype]
            for start in range(0, len(raw), _BLOCK_BYTES):
                bits = raw[start : start + _BLOCK_BYTES].view(kind)
                if ((bits & np.array(mask, kind)) == mask).any():
                    raise CheckpointError(
                        f"tensor {spec.name} holds NaN or infinity; the checkpoint is damaged, copy or train it again"
                    )
        done += len(raw)
        on_event(Event("check weights", done, total, "bytes", spec.name))
