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


@pytest.mark.parametrize(("channels", "kind"), [(1, 0), (3, 2), (2, 4), (4, 6)])
def test_sixteen_bit_colours_are_refused_not_cut(channels: int, kind: int) -> None:
    # Pillow opens all but grey of these in an 8-bit mode, and drops the lower byte.
    rows = b"".join(b"\0" + row.tobytes() for row in np.full((30, 30, channels), 0x01F0, dtype=">u2"))
    with pytest.raises(ImageError, match="more than 8 bits"):
        open_image(png(30, 30, 16, kind, zlib.compress(rows)))
    assert open_image(png(30, 30, 8, 2, zlib.compress((b"\0" + bytes(90)) * 30))).max() == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 12, 16, 32])
def test_tiff_colours_of_more_than_eight_bits_are_refused(channels: int, bits: int) -> None:
    data = tiff(bits, channels, bytes(30 * 30 * channels * 4))
    if bits == 8:
        assert open_image(data).shape == (30, 30, 3)
        return
    with pytest.raises(ImageError, match=r"more than 8 bits|not one of"):  # Pillow itself refuses some
        open_image(data)
    if bits == 16:
        with pytest.raises(ImageError, match="more than 8 bits"):
            open_image(data)


def test_colours_that_are_not_rgb_are_refused_for_what_they_are() -> None:
    with pytest.raises(ImageError, match="mode LAB; save it as grey or RGB"):
        open_image(tiff(8, 3, bytes(30 * 30 * 3), colours=8))


def tiff(bits: int, channels: int, data: bytes, colours: int | None = None) -> bytes:
    """Return a TIFF file of 30 x 30 pixels. colours: tag 262, by the number of channels if None."""
    colours = (1 if channels == 1 else 2) if colours is None else colours
    extra = {338: (3, [2])} if channels == 4 else {}
    tags = {
        **{256: (4, [30]), 257: (4, [30]), 258: (3, [bits] * channels), 259: (3, [1]), 262: (3, [colours])},
        **{273: (4, [0]), 277: (3, [channels]), 278: (4, [30]), 279: (4, [len(data)]), **extra},
    }
    behind = 8 + 2 + 12 * len(tags) + 4
    tags[273] = (4, [behind + 2 * channels])
    entries = b""
    for tag, (type_, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if type_ == 3 else 'I'}", *values).ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, type_, len(values))
        entries += packed if len(packed) == 4 else struct.pack("<I", behind)
    samples = struct.pack(f"<{channels}H", *[bits] * channels)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + samples + data


def png(width: int, height: int, bits: int, kind: int, pixels: bytes) -> bytes:
    """Return a PNG file. kind: its colour type. pixels: the compressed rows."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def huge_png(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, zlib.compress(b""))


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
