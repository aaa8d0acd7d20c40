from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from infimed.runtime.preprocessing import Grid
from infimed.runtime.vision_index import vision_index

SIZES = {"window_size": 112, "patch_size": 14, "merge_size": 2}


def grids(seed: int) -> list[Grid]:
    random = np.random.default_rng(seed)
    return [
        Grid(int(random.integers(1, 3)), *(2 * int(side) for side in random.integers(1, 15, 2)))
        for _ in range(int(random.integers(1, 4)))
    ]


@pytest.mark.parametrize("seed", range(20))
def test_windows_positions_and_frames_are_those_of_transformers(seed: int) -> None:
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("transformers.vision_utils")
    shapes = grids(seed)
    sizes = torch.tensor([[grid.t, grid.h, grid.w] for grid in shapes])
    ours = vision_index(shapes, **SIZES)
    assert np.array_equal(ours.position_ids, utils.get_vision_position_ids(sizes, 2).numpy())
    frames = np.cumsum([0, *np.bincount(ours.seg_ids)])
    assert np.array_equal(frames, utils.get_vision_cu_seqlens(sizes).numpy())
    order, ends = utils.get_vision_window_index(sizes, spatial_merge_size=2, window_size=112, patch_size=14)
    patches = (order.numpy()[:, None] * 4 + np.arange(4)).reshape(-1)
    theirs = [patches[start:stop] for start, stop in pairwise(ends)]
    assert len(theirs) == len(ours.win_gather)
    for window, mask, expected in zip(ours.win_gather, ours.win_mask, theirs, strict=True):
        assert np.array_equal(window[mask], expected)


@pytest.mark.parametrize("seed", range(5))
def test_scattering_undoes_gathering(seed: int) -> None:
    index = vision_index(grids(seed), **SIZES)
    count = len(index.win_scatter)
    assert index.win_gather.shape[1] == 64
    assert np.array_equal(index.win_gather.reshape(-1)[index.win_scatter], np.arange(count))
    assert index.win_mask.sum() == count


def test_windows_that_cut_tokens_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="whole tokens"):
        vision_index([Grid(1, 4, 4)], window_size=100, patch_size=14, merge_size=2)
