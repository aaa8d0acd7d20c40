from __future__ import annotations

import numpy as np
import pytest

from infimed.runtime.images import ImageError
from infimed.runtime.preprocessing import PixelRules, grid_of, patches, resize, smart_resize

RULES = PixelRules(
    patch_size=14,
    merge_size=2,
    temporal_patch_size=2,
    min_pixels=56 * 56,
    max_pixels=448 * 448,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def random_image(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = random.integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((4, 4, 1), dtype=np.uint8))[:height, :width])


def test_pixels_equal_the_hugging_face_processor_on_random_sizes() -> None:
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    processor = module.Qwen2VLImageProcessorPil(
        size={"shortest_edge": RULES.min_pixels, "longest_edge": RULES.max_pixels}
    )
    random = np.random.default_rng(7)
    drawn = [(int(h), int(w)) for h, w in random.integers(9, 700, (60, 2))]
    sizes = [*drawn, (28, 28), (112, 112), (15, 900), (448, 448)]
    for height, width in sizes:
        rgb = random_image(random, height, width)
        ours, grid = patches(resize(rgb, RULES), RULES)
        theirs = processor(images=[rgb], return_tensors="np")
        assert [grid.t, grid.h, grid.w] == theirs["image_grid_thw"][0].tolist(), (height, width)
        assert ours.shape == theirs["pixel_values"].shape
        assert np.abs(ours - theirs["pixel_values"]).max() <= 1e-5, (height, width)


def test_a_resized_image_lies_within_the_rules_and_on_whole_tokens() -> None:
    random = np.random.default_rng(3)
    for height, width in random.integers(1, 3000, (300, 2)).tolist():
        if max(height, width) >= 200 * min(height, width):
            continue
        final_height, final_width = smart_resize(height, width, RULES)
        assert final_height % RULES.factor == 0 and final_width % RULES.factor == 0
        assert final_height * final_width <= RULES.max_pixels
        assert final_height * final_width >= RULES.min_pixels


def test_the_patches_of_one_image_token_follow_each_other() -> None:
    rgb = np.zeros((56, 56, 3), dtype=np.uint8)
    rgb[28:, :28] = 255  # the lower left token
    values, grid = patches(rgb, RULES)
    bright = values[:, 0] > 0
    assert grid_of(rgb, RULES) == grid
    assert np.flatnonzero(bright).tolist() == [8, 9, 10, 11]


def test_an_extreme_image_is_refused() -> None:
    with pytest.raises(ImageError, match="200 to 1"):
        smart_resize(1, 300, RULES)


@pytest.mark.parametrize(
    "change",
    [
        {"resample": 2},
        {"do_resize": False},
        {"rescale_factor": 1.0},
        {"rescale_factor": "a"},
        {"image_mean": [0.5]},
        {"image_mean": [0.5, 0.5, "a"]},
        {"image_mean": [0.5, 0.5, float("nan")]},
        {"image_std": [0.5, 0.5, 0.0]},
        {"image_std": [0.5, -0.5, 0.5]},
        {"min_pixels": None},
        {"min_pixels": "a"},
        {"min_pixels": -1},
        {"min_pixels": RULES.max_pixels + 1},
        {"max_pixels": 3.5},
        {"max_pixels": 1e300},
        {"patch_size": 0},
        {"merge_size": []},
        {"size": "large"},
    ],
)
def test_a_processor_that_infimed_does_not_reproduce_is_refused(change: dict[str, object]) -> None:
    config = {**RULES.to_json(), **change}
    with pytest.raises(ImageError, match="preprocessor_config"):
        PixelRules.from_json(config)


def test_rules_survive_a_round_trip() -> None:
    assert PixelRules.from_json(RULES.to_json()) == RULES
