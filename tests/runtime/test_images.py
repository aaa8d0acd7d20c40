from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infimed.runtime.images import ImageError, open_image


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_a_lossless_file_gives_its_pixels(format: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(picture(), format))
    assert np.array_equal(open_image(path), np.asarray(picture()))


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_a_lossy_file_gives_the_pixels_pillow_decodes(format: str) -> None:
    data = encoded(picture(), format)
    assert np.array_equal(open_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_an_image_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show it upright
    data = encoded(picture(), "PNG", exif=exif)
    assert np.array_equal(open_image(data), np.rot90(np.asarray(picture()), -1))


def test_transparency_lies_over_black() -> None:
    image = Image.new("RGBA", (30, 30), (255, 255, 255, 0))
    assert open_image(encoded(image, "PNG")).max() == 0


def test_grey_and_palette_images_become_rgb() -> None:
    for mode in ("L", "P", "1", "LA", "CMYK"):
        data = encoded(picture().convert("L").convert(mode) if mode == "LA" else picture().convert(mode), "TIFF")
        assert open_image(data).shape == (30, 40, 3), mode


def test_sixteen_bit_pixels_are_refused_not_clipped() -> None:
    image = Image.fromarray(np.full((30, 30), 40000, dtype=np.uint16))
    with pytest.raises(ImageError, match="more than 8 bits"):
        open_image(encoded(image, "PNG"))


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"not an image at all", "not one of"),
        (encoded(picture(), "PNG")[:200], "cannot be read"),
        (encoded(picture(), "GIF"), "not one of"),
        (huge_png(100_000, 100_000), "pixels|cannot be read"),
        (huge_png(4000, 10), "200 to 1"),
        (encoded(picture(), "TIFF", save_all=True, append_images=[picture()]), "2 frames"),
    ],
)
def test_what_is_no_usable_image_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        open_image(data)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(ImageError, match="not a file"):
            open_image(path)
