"""Changes a picture as cameras, files and scanners do, or turns it about, in five severities. Pure and seeded.

Blur is a share of the shorter side, so that a thumbnail and a full radiograph suffer alike. Everything keeps the
picture's size. Randomness is the raw stream of PCG64, summed as whole numbers: no machine rounds it in its own way.
JPEG qualities and scales are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019). Knows no examples.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
SEVERITIES = (1, 2, 3, 4, 5)
GREY = 128
NOISE_SD = (6.0, 12.0, 20.0, 32.0, 48.0)  # grey levels of 255
BLUR_SHARE = (0.004, 0.008, 0.012, 0.018, 0.026)  # standard deviation over the shorter side
JPEG_QUALITY = (25, 18, 15, 10, 7)
GAMMA = (1.2, 1.4, 1.7, 2.1, 2.6)  # or its inverse
ROTATION_DEGREES = (1.0, 2.0, 3.0, 4.0, 5.0)  # to either side
SCALE = (0.6, 0.5, 0.4, 0.3, 0.25)
_BYTES = 12  # a sum of so many even bytes is normal to 0.1 in kurtosis; its variance is 12 (256^2 - 1) / 12
_BLOCK_PIXELS = 1 << 20


@dataclass(frozen=True)
class Change:
    """One kind of change. apply: (picture, severity - 1, seed) -> picture of the same size. graded: has severities."""

    apply: Callable[[Pixels, int, int], Pixels]
    graded: bool
    says: str


def changed(rgb: Pixels, change: str, severity: int, seed: int) -> Pixels:
    """Return the changed picture, (height, width, 3) uint8, of the same size. severity: 1 to 5; 0 where ungraded."""
    row = CHANGES[change]
    if row.graded != (severity in SEVERITIES):
        raise ValueError(f"{change} with severity {severity}: graded changes have 1 to 5, others 0")
    return np.ascontiguousarray(row.apply(rgb, severity - 1, seed))


def normal_grain(pixels: int, seed: int) -> NDArray[np.float32]:
    """Return noise of mean 0 and standard deviation 1, one value a pixel, from sums of twelve bytes."""
    words = np.random.PCG64(seed).random_raw(-(-pixels * _BYTES // 8))
    sums = words.astype("<u8").view(np.uint8)[: pixels * _BYTES].reshape(pixels, _BYTES).sum(1, dtype=np.int32)
    return np.asarray((sums - 1530) / np.sqrt(65535.0), dtype=np.float32)


def _noise(rgb: Pixels, step: int, seed: int) -> Pixels:
    """Add grain; a grey picture stays grey."""
    grey = bool((rgb == rgb[..., :1]).all())
    source = rgb[..., :1] if grey else rgb
    flat, out = source.reshape(-1), np.empty(source.size, dtype=np.uint8)
    for block, start in enumerate(range(0, source.size, _BLOCK_PIXELS)):
        part = flat[start : start + _BLOCK_PIXELS].astype(np.float32)
        part += np.float32(NOISE_SD[step]) * normal_grain(len(part), seed + block)
        out[start : start + len(part)] = np.clip(np.rint(part), 0, 255).astype(np.uint8)
    shaped = out.reshape(source.shape)
    return np.repeat(shaped, 3, axis=2) if grey else shaped


def _blur(rgb: Pixels, step: int, seed: int) -> Pixels:
    from PIL import Image, ImageFilter

    radius = BLUR_SHARE[step] * min(rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(radius)))


def _jpeg(rgb: Pixels, step: int, seed: int) -> Pixels:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=JPEG_QUALITY[step], subsampling="4:2:0")
    return np.asarray(Image.open(stream, formats=("JPEG",)).convert("RGB"))


def _gamma(rgb: Pixels, step: int, seed: int) -> Pixels:
    power = GAMMA[step] if seed % 2 else 1 / GAMMA[step]
    table = np.rint(255 * (np.arange(256) / 255) ** power).astype(np.uint8)
    return table[rgb]


def _rotation(rgb: Pixels, step: int, seed: int) -> Pixels:
    """Turn about the middle; corners that come in are filled with the middle colour of the border."""
    from PIL import Image

    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
    fill = tuple(int(value) for value in np.sort(border, axis=0)[len(border) // 2])
    degrees = ROTATION_DEGREES[step] * (1 if seed % 2 else -1)
    return np.asarray(Image.fromarray(rgb).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill))


def _downscale(rgb: Pixels, step: int, seed: int) -> Pixels:
    """Reduce by averaging and enlarge again, smoothly."""
    from PIL import Image

    height, width = rgb.shape[:2]
    small = (max(1, round(width * SCALE[step])), max(1, round(height * SCALE[step])))
    reduced = Image.fromarray(rgb).resize(small, Image.Resampling.BOX)
    return np.asarray(reduced.resize((width, height), Image.Resampling.BICUBIC))


def _mirror(rgb: Pixels, step: int, seed: int) -> Pixels:
    return rgb[:, ::-1]


def _grey(rgb: Pixels, step: int, seed: int) -> Pixels:
    return np.full_like(rgb, GREY)


CHANGES: dict[str, Change] = {
    "noise": Change(_noise, True, "grain with a standard deviation of 6, 12, 20, 32, 48 of 255 grey levels"),
    "blur": Change(_blur, True, "Gaussian blur, 0.4, 0.8, 1.2, 1.8, 2.6 % of the shorter side"),
    "jpeg": Change(_jpeg, True, "JPEG at quality 25, 18, 15, 10, 7"),
    "gamma": Change(_gamma, True, "brightness to the power of 1.2, 1.4, 1.7, 2.1, 2.6, or the inverse"),
    "rotation": Change(_rotation, True, "a turn by 1, 2, 3, 4, 5 degrees to either side"),
    "downscale": Change(_downscale, True, "reduced to 60, 50, 40, 30, 25 % of its size and enlarged again"),
    "mirror": Change(_mirror, False, "left and right exchanged"),
    "grey": Change(_grey, False, "mid grey of the same size"),
}
