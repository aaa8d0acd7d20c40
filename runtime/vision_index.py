"""The index arithmetic of Qwen2.5-VL's vision tower in numpy: what its ONNX graph takes beside the pixels.

Patches stay in the order of preprocessing.patches throughout; attention inside windows is a gather into padded windows
and a scatter back. Knows nothing of pixels, files or engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .preprocessing import Grid


@dataclass(frozen=True, eq=False)
class VisionIndex:
    """The graph's integer inputs for n patches in w windows of s slots (s = 64 for windows of 112 pixels).

    position_ids: (n, 2), row and column of each patch in its image. win_gather: (w, s), the patch in each slot, 0 in an
    empty one. win_mask: (w, s), bool, False in an empty slot. win_scatter: (n,), the slot of each patch, counted
    through all windows. seg_ids: (n,), the frame each patch belongs to: whole-image attention stays inside it.
    """

    position_ids: NDArray[np.int64]
    win_gather: NDArray[np.int64]
    win_mask: NDArray[np.bool_]
    win_scatter: NDArray[np.int64]
    seg_ids: NDArray[np.int64]

    def feeds(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by the names of the graph's inputs."""
        return {
            "position_ids": self.position_ids,
            "win_gather": self.win_gather,
            "win_mask": self.win_mask,
            "win_scatter": self.win_scatter,
            "seg_ids": self.seg_ids,
        }


def window_tokens(window_size: int, patch_size: int, merge_size: int) -> int:
    """Return the side of a window in image tokens. Raises ValueError where windows cut tokens apart."""
    side = window_size // (patch_size * merge_size)
    if side < 1 or side * patch_size * merge_size != window_size:
        raise ValueError(
            f"windows of {window_size} pixels do not hold whole tokens of {patch_size * merge_size} pixels"
        )
    return side


def vision_index(grids: Sequence[Grid], *, window_size: int, patch_size: int, merge_size: int) -> VisionIndex:
    """Return the index arrays of images that are encoded together (Qwen2.5-VL, arXiv 2502.13923, section 2.1.1).

    window_size: in pixels. Windows tile each frame from its upper left corner; those at the right and lower edge are
    smaller, their empty slots masked.
    """
    side = window_tokens(window_size, patch_size, merge_size)
    per_token = merge_size**2
    slots = side * side * per_token
    positions, scatters, segments = [], [], []
    windows = frames = 0
    for grid in grids:
        rows, columns = grid.h // merge_size, grid.w // merge_size
        shape = (grid.t, rows, columns, merge_size, merge_size)
        frame, row, column, inner_row, inner_column = np.unravel_index(np.arange(grid.patches), shape)
        positions.append(np.stack([row * merge_size + inner_row, column * merge_size + inner_column], axis=-1))
        across, down = -(-columns // side), -(-rows // side)
        window = windows + (frame * down + row // side) * across + column // side
        token = (row % side) * side + column % side
        scatters.append(window * slots + token * per_token + inner_row * merge_size + inner_column)
        segments.append(frames + frame)
        windows += grid.t * down * across
        frames += grid.t
    scatter = np.concatenate(scatters).astype(np.int64)
    gather = np.zeros(windows * slots, dtype=np.int64)
    mask = np.zeros(windows * slots, dtype=np.bool_)
    gather[scatter] = np.arange(len(scatter))
    mask[scatter] = True
    return VisionIndex(
        position_ids=np.concatenate(positions).astype(np.int64),
        win_gather=gather.reshape(windows, slots),
        win_mask=mask.reshape(windows, slots),
        win_scatter=scatter,
        seg_ids=np.concatenate(segments).astype(np.int64),
    )
