"""What curation knows of an image without a model: pixel hash, pHashes, a small grey copy, contrast and sharpness.

Knows pixels only; what is too near, too flat or too blurred is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from .curate_crops import SIDE, boxes

_SHARPNESS_SIDE = 256
_HASHED_SIDE = 128


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """One decoded image.

    pixels: sha256 over size and pixels. hashes: (19,) uint64, the pHash of the whole image, then of its crops. grey:
    (64, 64) uint8, the whole image. contrast: standard deviation of the grey values, 0 to 127.5. sharpness: variance of
    the Laplacian at a longer side of at most 256 pixels.
    """

    pixels: str
    height: int
    width: int
    hashes: NDArray[np.uint64]
    grey: NDArray[np.uint8]
    contrast: float
    sharpness: float


def fingerprint(rgb: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of an upright image, (height, width, 3) uint8."""
    from PIL import Image

    height, width = rgb.shape[:2]
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).tobytes())
    grey = Image.fromarray(rgb).convert("L")
    return Fingerprint(
        pixels=digest.hexdigest(),
        height=height,
        width=width,
        hashes=_hashes(grey),
        grey=np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8),
        contrast=float(np.asarray(grey, dtype=np.float64).std()),
        sharpness=_sharpness(np.asarray(_reduced(grey, _SHARPNESS_SIDE), dtype=np.float64)),
    )


def _reduced(grey: Any, longer_side: int) -> Any:
    """Return the image with a longer side of at most `longer_side` pixels."""
    from PIL import Image

    side = max(grey.size)
    if side <= longer_side:
        return grey
    size = tuple(max(1, round(length * longer_side / side)) for length in grey.size)
    return grey.resize(size, Image.Resampling.BOX)


def _hashes(grey: Any) -> NDArray[np.uint64]:
    """The whole is hashed as it is, as anyone else would; the crops from a reduced image, which is cheaper."""
    from PIL import Image

    small = _reduced(grey, _HASHED_SIDE)
    crops = []
    for x, y, length in boxes()[1:]:
        box = (x * small.width, y * small.height, (x + length) * small.width, (y + length) * small.height)
        crops.append(small.resize((32, 32), Image.Resampling.LANCZOS, box=box))
    return np.array([_phash(image) for image in (grey, *crops)], dtype=np.uint64)


def _phash(grey: Any) -> int:
    bits = np.asarray(_imagehash().phash(grey, hash_size=8).hash, dtype=bool).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _sharpness(values: NDArray[np.float64]) -> float:
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
