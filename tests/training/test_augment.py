"""Augmentation: small, seeded, of the same size, and never a mirror where an answer names a side."""

from __future__ import annotations

import numpy as np
import pytest

from infimed.training.augment import AugmentSpec, augment


def picture() -> np.ndarray:
    rows, columns = np.mgrid[0:56, 0:84]
    return np.stack([rows * 3, columns * 2, (rows + columns) % 200], axis=-1).astype(np.uint8)


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    assert not AugmentSpec().does_something
    assert np.array_equal(augment(picture(), AugmentSpec(), draw(0), may_mirror=False), picture())


def test_the_same_seed_gives_the_same_image_and_another_gives_another() -> None:
    spec = AugmentSpec(zoom=0.2, turn_degrees=10, light=0.1)
    first, second, third = (augment(picture(), spec, draw(seed), may_mirror=False) for seed in (1, 1, 2))
    assert first.shape == picture().shape and first.dtype == np.uint8
    assert np.array_equal(first, second) and not np.array_equal(first, third)


def test_a_mirror_is_exact_and_comes_about_every_other_time() -> None:
    spec = AugmentSpec(mirror=("finding",))
    made = [augment(picture(), spec, draw(seed), may_mirror=True) for seed in range(100)]
    mirrored = sum(np.array_equal(one, picture()[:, ::-1]) for one in made)
    assert 35 < mirrored < 65 and sum(np.array_equal(one, picture()) for one in made) == 100 - mirrored
    assert all(np.array_equal(augment(picture(), spec, draw(seed), may_mirror=False), picture()) for seed in range(20))


def test_a_turn_moves_a_spot_by_its_angle_and_no_further() -> None:
    spotted = np.zeros((101, 101, 3), np.uint8)
    spotted[48:53, 88:93] = 255
    angles = []
    for seed in range(30):
        turned = augment(spotted, AugmentSpec(turn_degrees=20), draw(seed), may_mirror=False)[..., 0].astype(float)
        rows, columns = np.mgrid[0:101, 0:101]
        y, x = ((turned * axis).sum() / turned.sum() - 50 for axis in (rows, columns))
        assert abs(np.hypot(x, y) - 40) < 1
        angles.append(np.degrees(np.arctan2(y, x)))
    assert max(np.abs(angles)) <= 20.5 and max(angles) > 10 and min(angles) < -10


def test_light_and_zoom_stay_within_what_is_stated() -> None:
    grey = np.full((40, 40, 3), 100, np.uint8)
    levels = [augment(grey, AugmentSpec(light=0.2), draw(seed), may_mirror=False)[0, 0, 0] for seed in range(200)]
    assert 100 - 0.2 * 127.5 - 0.2 * 27.5 - 1 <= min(levels) < 85 and 115 < max(levels) <= 100 + 0.2 * 155 + 1
    spotted = np.zeros((101, 101, 3), np.uint8)
    spotted[46:55, 46:55] = 255
    for seed in range(30):
        zoomed = augment(spotted, AugmentSpec(zoom=0.3), draw(seed), may_mirror=False)
        assert 81 * 0.9 <= (zoomed[..., 0] > 127).sum() <= 81 * 1.3**2 * 1.15


@pytest.mark.parametrize(
    "wrong", [{"zoom": 0.6}, {"turn_degrees": 90.0}, {"light": -0.1}, {"mirror": ("laterality",)}, {"mirror": ("x",)}]
)
def test_what_would_make_answers_false_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"lie between|name a side"):
        AugmentSpec(**wrong)  # type: ignore[arg-type]
