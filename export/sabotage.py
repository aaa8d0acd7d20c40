"""Writes a copy of a checkpoint that is wrong on purpose, so that one can see a verdict refuse it.

The copy sees: its tokens, graph and sizes are right, and its parity gate holds. But the last layer of the vision
tower's merger is turned about, so that every image embedding lies in the wrong place. Knows checkpoints only.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from ..runtime.publish import publishing
from ..training.checkpoint import Checkpoint, TensorSpec, copy_companions, write_weights

DAMAGED = "visual.merger.mlp.2.weight"


def sabotage(source: Path, out: Path) -> Checkpoint:
    """Write the damaged copy of a Qwen2.5-VL checkpoint at `out`; same checkpoint, same bytes.

    The rows of the merger's last matrix, one per dimension of the language model, are written in reverse order.
    """
    checkpoint = Checkpoint.open(source)
    damaged = [name for name in checkpoint.tensors if name.endswith(DAMAGED)]
    if len(damaged) != 1:
        raise InfimedError(f"{source} has {len(damaged)} tensors named {DAMAGED}; one is needed")

    def bytes_of(spec: TensorSpec) -> NDArray[np.uint8]:
        raw = np.asarray(checkpoint.raw(spec.name), dtype=np.uint8)
        return raw.reshape(spec.shape[0], -1)[::-1].reshape(-1) if spec.name == damaged[0] else raw

    with publishing(out) as work:
        shutil.copyfile(source / "config.json", work / "config.json")
        copy_companions(source, work)
        write_weights(work, list(checkpoint.tensors.values()), bytes_of)
    return Checkpoint.open(out)
