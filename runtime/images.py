"""Opens an image file as upright RGB pixels, within stated limits.

The limits are checked on the header, before any pixel is decoded. Metadata is dropped: only pixels leave. Knows
nothing of models.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
MAX_ASPECT = 200
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_TIFF_BITS = 258  # BitsPerSample
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

Source = Union[str, "os.PathLike[str]", bytes]


class ImageError(InfimedError):
    """The image cannot be read, or lies outside the limits."""


def open_image(source: Source) -> NDArray[np.uint8]:
    """Return the image as (height, width, 3), uint8: EXIF orientation applied, transparency over black.

    source: a path, or the bytes of a file. Raises ImageError for a missing, empty, truncated, animated, too large or
    non-image file, and for pixels of more than 8 bits: those need a window (level and width) that nobody has chosen.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = "the image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read(Path(source))
    if not data:
        raise ImageError(f"{name} is empty; give a {', '.join(FORMATS)} file")
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name} has {len(data):,} bytes, more than the limit of {MAX_BYTES:,}; reduce it first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_header(name, image)
                image.load()
                upright = ImageOps.exif_transpose(image)
    except InfimedError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not one of {', '.join(FORMATS)}; convert it first") from None
    except Exception as error:  # Pillow raises many kinds for a broken file; each is the user's file, not our fault
        reason = str(error).splitlines()[0] if str(error) and "0x" not in str(error) else type(error).__name__
        raise ImageError(f"{name} cannot be read as an image ({reason}); check the file") from None
    if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        ground = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(ground, upright)
    return np.ascontiguousarray(np.asarray(upright.convert("RGB"), dtype=np.uint8))


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ImageError(f"{path} is not a file; give the path of an image")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(f"{path} has {path.stat().st_size:,} bytes, more than the limit of {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be opened ({error.strerror}); check the path and its permissions") from None


def _check_header(name: str, image: ImageFile) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} is {width} x {height}, more than {MAX_PIXELS:,} pixels; reduce it first")
    if max(width, height) >= MAX_ASPECT * min(width, height):
        raise ImageError(f"{name} is {width} x {height}; sides must differ by less than {MAX_ASPECT} to 1")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageError(f"{name} holds {frames} frames; give one frame")
    if image.mode.startswith(("I", "F")) or _stored_bits(image) > 8:
        raise ImageError(f"{name} has pixels of more than 8 bits (mode {image.mode}); window it to 8 bits first")
    if image.mode not in _EIGHT_BIT_MODES:
        raise ImageError(f"{name} has colours of mode {image.mode}; save it as grey or RGB first")


def _stored_bits(image: ImageFile) -> int:
    """Return how many bits a channel has in the file: Pillow opens 16-bit colours as 8-bit ones, without their rest."""
    if image.format == "PNG" and image.tile:
        return 16 if ";16" in str(image.tile[0][3]) else 8
    if image.format == "TIFF":
        stated = getattr(image, "tag_v2", {}).get(_TIFF_BITS, 1)
        return int(max(stated if isinstance(stated, tuple) else (stated,)))
    return 8
