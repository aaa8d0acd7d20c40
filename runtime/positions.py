"""Where each token of a prompt sits: the three-dimensional rotary positions of Qwen-VL (M-RoPE), in numpy.

The index arithmetic inside the vision tower is in vision_index.py. Knows nothing of text or engines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .preprocessing import Grid


def mrope_positions(
    token_ids: NDArray[np.int64], grids: Sequence[Grid], image_token_id: int, merge_size: int
) -> tuple[NDArray[np.int64], int]:
    """Return (temporal, height, width) positions, (3, tokens), and the position of the token that would follow.

    Text tokens carry the same number three times. An image's tokens share its start in time and count rows and columns
    from there; the text after it goes on one past its largest number (Qwen2-VL, arXiv 2409.12191, section 2.1; as
    get_rope_index in transformers for still images). Raises ValueError if image tokens and grids do not match.
    """
    count = len(token_ids)
    positions = np.empty((3, count), dtype=np.int64)
    is_image = np.asarray(token_ids) == image_token_id
    index, at, image = 0, 0, 0
    while index < count:
        if not is_image[index]:
            stop = index
            while stop < count and not is_image[stop]:
                stop += 1
            positions[:, index:stop] = np.arange(at, at + stop - index)
            at += stop - index
            index = stop
            continue
        if image >= len(grids):
            raise ValueError(f"the prompt has image tokens beyond its {len(grids)} images")
        grid = grids[image]
        rows, columns = grid.h // merge_size, grid.w // merge_size
        tokens = grid.tokens(merge_size)
        if index + tokens > count or not is_image[index : index + tokens].all():
            raise ValueError(f"image {image} needs {tokens} image tokens in a row")
        frame, row, column = np.unravel_index(np.arange(tokens), (grid.t, rows, columns))
        positions[0, index : index + tokens] = at + frame
        positions[1, index : index + tokens] = at + row
        positions[2, index : index + tokens] = at + column
        at += max(grid.t, rows, columns)
        index += tokens
        image += 1
    if image != len(grids):
        raise ValueError(f"the prompt has image tokens for {image} of its {len(grids)} images")
    return positions, at
