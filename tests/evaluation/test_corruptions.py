"""Corruptions: they keep the size, grow with the severity, and are what other libraries make of the same picture."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from infimed.evaluation.corruptions import (
    BLUR_SHARE,
    CHANGES,
    JPEG_QUALITY,
    NOISE_SD,
    SEVERITIES,
    changed,
    normal_grain,
)
from infimed.evaluation.phantom_images import KINDS, phantom

PICTURES = [phantom(KINDS[name], 5, 1).rgb for name in ("ct", "fundus", "xray")]
GRADED = [name for name, row in CHANGES.items() if row.graded]


def distance(one, other) -> float:  # type: ignore[no-untyped-def]
    return float(np.abs(one.astype(np.float64) - other).mean())


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_the_size_and_is_the_same_each_time(name: str) -> None:
    for rgb in (PICTURES[1], PICTURES[0][:41, :90], np.full((1, 1, 3), 7, np.uint8)):
        before = rgb.copy()
        step = 3 if CHANGES[name].graded else 0
        first, second = (changed(rgb, name, step, 11) for _ in range(2))
        assert first.shape == rgb.shape and first.dtype == np.uint8 and first.flags.c_contiguous
        assert (first == second).all() and (rgb == before).all()


@pytest.mark.parametrize("name", GRADED)
def test_a_corruption_grows_with_its_severity(name: str) -> None:
    for seed in (0, 1):
        for rgb in PICTURES:
            grown = [distance(rgb, changed(rgb, name, step, seed)) for step in SEVERITIES]
            assert grown == sorted(grown) and grown[0] > 0.1 and grown[-1] > 1.2 * grown[0], (name, seed, grown)


def test_a_severity_out_of_range_is_refused() -> None:
    for name, step in (("blur", 0), ("blur", 6), ("mirror", 1)):
        with pytest.raises(ValueError, match=f"{name} with severity {step}"):
            changed(PICTURES[0], name, step, 0)


def test_the_grain_is_normal_and_a_grey_picture_stays_grey() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = normal_grain(40_000, 3)
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.01
    assert stats.kstest(values, "norm").statistic < 0.01
    flat = np.full((100, 100, 3), 128, np.uint8)
    for step in SEVERITIES:
        noisy = changed(flat, "noise", step, 4).astype(np.float64)
        assert (noisy == noisy[..., :1]).all()
        assert noisy[..., 0].std() == pytest.approx(NOISE_SD[step - 1], rel=0.05)
    coloured = changed(PICTURES[1], "noise", 3, 4)
    assert not (coloured == coloured[..., :1]).all()


def test_noise_of_a_picture_of_several_blocks_does_not_repeat() -> None:
    flat = np.full((1100, 1000, 3), 128, np.uint8)
    noisy = changed(flat, "noise", 5, 0)[..., 0].reshape(-1)
    block = 1 << 20
    assert not (noisy[: len(noisy) - block] == noisy[block:]).all()


def test_blur_is_that_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    for step in SEVERITIES:
        sigma = BLUR_SHARE[step - 1] * 112
        wanted = ndimage.gaussian_filter(PICTURES[0].astype(np.float64), (sigma, sigma, 0), mode="nearest")
        assert distance(wanted, changed(PICTURES[0], "blur", step, 0)) < 1.0


@pytest.mark.parametrize(("seed", "sign"), [(1, 1), (2, -1)])
def test_a_turn_is_that_of_scipy_and_goes_either_way(seed: int, sign: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    for step in SEVERITIES:
        wanted = ndimage.rotate(PICTURES[2].astype(np.float64), sign * step, axes=(1, 0), reshape=False, order=3)
        inner = slice(20, -20)
        found = changed(PICTURES[2], "rotation", step, seed)
        other = ndimage.rotate(PICTURES[2].astype(np.float64), -sign * step, axes=(1, 0), reshape=False, order=3)
        assert distance(wanted[inner, inner], found[inner, inner]) < 0.5 * distance(
            other[inner, inner], found[inner, inner]
        )


def test_gamma_darkens_or_brightens_and_keeps_black_and_white() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    darker, brighter = (changed(ramp, "gamma", 3, seed)[0, :, 0].astype(int) for seed in (1, 2))
    assert (np.diff(darker) >= 0).all() and (np.diff(brighter) >= 0).all()
    assert list(darker[[0, 255]]) == list(brighter[[0, 255]]) == [0, 255]
    assert darker[128] < 128 < brighter[128]
    assert darker[128] == round(255 * (128 / 255) ** 1.7)


def test_jpeg_is_of_the_stated_quality() -> None:
    import io

    from PIL import Image

    for step in SEVERITIES:
        stream = io.BytesIO()
        Image.fromarray(PICTURES[1]).save(stream, "JPEG", quality=JPEG_QUALITY[step - 1])
        assert (changed(PICTURES[1], "jpeg", step, 0) == np.asarray(Image.open(stream).convert("RGB"))).all()


def test_the_mirror_is_its_own_inverse_and_grey_is_grey() -> None:
    for rgb in PICTURES:
        turned = changed(rgb, "mirror", 0, 0)
        assert (turned == rgb[:, ::-1]).all() and (changed(turned, "mirror", 0, 0) == rgb).all()
        assert (changed(rgb, "grey", 0, 0) == 128).all()


def test_noise_and_gamma_have_the_bytes_they_had_when_they_were_written() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    found = {name: hashlib.sha256(changed(ramp, name, 4, 9).tobytes()).hexdigest()[:16] for name in ("noise", "gamma")}
    assert found == {"noise": "dd7952e96d194402", "gamma": "99698cc6e5b2a699"}
