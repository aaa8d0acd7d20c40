"""What curation knows of an image without a model: pixel hash, pHash, thumbnails, contrast and sharpness.

Knows pixels only; what is too near, too flat or too blurred is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra

THUMBNAIL_SIDE = 32
DETAIL_SIDE = 64
_SHARPNESS_SIDE = 256


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """One decoded image.

    pixels: sha256 over size and pixels. phash: 64 bits. thumbnail: (1024,) float32, 32 x 32 grey values of zero mean
    and unit length (all zero where the thumbnail is flat). detail: (64, 64) uint8, grey. contrast: standard deviation
    of the grey values, 0 to 127.5. sharpness: variance of the Laplacian at a longer side of at most 256 pixels.
    """

    pixels: str
    height: int
    width: int
    phash: int
    thumbnail: NDArray[np.float32]
    detail: NDArray[np.uint8]
    contrast: float
    sharpness: float


def fingerprint(rgb: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of an upright image, (height, width, 3) uint8."""
    from PIL import Image

    height, width = rgb.shape[:2]
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).tobytes())
    grey = Image.fromarray(rgb).convert("L")
    small = np.asarray(grey.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX), dtype=np.float64).ravel()
    bits = np.asarray(_imagehash().phash(grey, hash_size=8).hash, dtype=bool).ravel()
    return Fingerprint(
        pixels=digest.hexdigest(),
        height=height,
        width=width,
        phash=int.from_bytes(np.packbits(bits).tobytes(), "big"),
        thumbnail=_unit(small).astype(np.float32),
        detail=np.asarray(grey.resize((DETAIL_SIDE, DETAIL_SIDE), Image.Resampling.BOX), dtype=np.uint8),
        contrast=float(np.asarray(grey, dtype=np.float64).std()),
        sharpness=_sharpness(grey),
    )


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - values.mean()
    length = float(np.linalg.norm(centred))
    return centred / length if length > 1e-6 else np.zeros_like(centred)


def _sharpness(grey: Any) -> float:
    from PIL import Image

    side = max(grey.size)
    if side > _SHARPNESS_SIDE:
        scale = _SHARPNESS_SIDE / side
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        grey = grey.resize(size, Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float64)
    if min(values.shape) < 3:
        return 0.0
    middle = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * middle
    return float(laplacian.var())


def _imagehash() -> Any:
    try:
        import imagehash
    except ImportError:
        raise MissingExtra("train", "imagehash") from None
    return imagehash
