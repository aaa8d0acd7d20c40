"""The one pixel path: from an upright RGB image to the patches a vision tower sees, in numpy and Pillow.

Every engine is fed from here: llama.cpp gets the resized RGB, ONNX and torch get the patches. Equal to the PIL image
processor of transformers for the Qwen-VL families. Knows nothing of files, text or engines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .images import MAX_ASPECT, ImageError


@dataclass(frozen=True)
class PixelRules:
    """The numbers of a checkpoint's preprocessor_config.json that decide what a model sees.

    patch_size, temporal_patch_size: pixels and frames per patch. merge_size: patches per side of an image token.
    min_pixels, max_pixels: area of the resized image. mean, std: per channel, on the scale 0..1.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> PixelRules:
        """Read the rules; refuse a processor whose steps are not those of this file."""
        size = config.get("size") or {}
        if not isinstance(size, Mapping):
            raise ImageError(f"preprocessor_config.json: size is {size!r}; an object is needed")
        minimum = config.get("min_pixels") or size.get("shortest_edge")
        maximum = config.get("max_pixels") or size.get("longest_edge")
        unusual = [key for key in ("do_resize", "do_rescale", "do_normalize") if config.get(key, True) is not True]
        if config.get("resample", 3) != 3:
            unusual.append("resample")
        if not abs(_number(config, "rescale_factor", 1 / 255) - 1 / 255) <= 1e-12:
            unusual.append("rescale_factor")
        if unusual or minimum is None or maximum is None:
            what = ", ".join(unusual) or "min_pixels and max_pixels"
            raise ImageError(f"preprocessor_config.json: {what} is missing or not what infimed reproduces")
        rules = cls(
            patch_size=_count("patch_size", config.get("patch_size", 14)),
            merge_size=_count("merge_size", config.get("merge_size", 2)),
            temporal_patch_size=_count("temporal_patch_size", config.get("temporal_patch_size", 2)),
            min_pixels=_count("min_pixels", minimum),
            max_pixels=_count("max_pixels", maximum),
            mean=_three(config, "image_mean"),
            std=_three(config, "image_std"),
        )
        if rules.min_pixels > rules.max_pixels:
            raise ImageError(
                f"preprocessor_config.json: min_pixels {rules.min_pixels} is above max_pixels {rules.max_pixels}"
            )
        if min(rules.std) <= 0:
            raise ImageError(f"preprocessor_config.json: image_std is {list(rules.std)}; positive numbers are needed")
        return rules

    def to_json(self) -> dict[str, Any]:
        """Return the rules as a preprocessor_config.json would name them."""
        return {
            "patch_size": self.patch_size,
            "merge_size": self.merge_size,
            "temporal_patch_size": self.temporal_patch_size,
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    @property
    def factor(self) -> int:
        """Pixels per side of an image token: every side of a resized image is a multiple of it."""
        return self.patch_size * self.merge_size


def _count(key: str, value: object) -> int:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value < 2**31 or value != int(value):
        raise ImageError(f"preprocessor_config.json: {key} is {value!r}; a whole number from 1 on is needed")
    return int(value)


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ImageError(f"preprocessor_config.json: {key} is {value!r}; a number is needed")
    return float(value)


def _three(config: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    values = config.get(key)
    stated = values if isinstance(values, (list, tuple)) else ()
    numbers = [float(value) for value in stated if isinstance(value, (int, float)) and math.isfinite(value)]
    if len(stated) != 3 or len(numbers) != 3:
        raise ImageError(f"preprocessor_config.json: {key} is {values!r}; three numbers are needed")
    return numbers[0], numbers[1], numbers[2]


@dataclass(frozen=True)
class Grid:
    """The patches of one image: frames, rows, columns."""

    t: int
    h: int
    w: int

    @property
    def patches(self) -> int:
        """How many patches the vision tower sees."""
        return self.t * self.h * self.w

    def tokens(self, merge_size: int) -> int:
        """How many image tokens the language model sees."""
        return self.patches // merge_size**2


def smart_resize(height: int, width: int, rules: PixelRules) -> tuple[int, int]:
    """Return the final (height, width): multiples of the factor, area within the rules, aspect nearly kept.

    The rule of Qwen2-VL (arXiv 2409.12191, section 2.1), with Python's rounding of halves to even as in its processor.
    """
    factor = rules.factor
    if max(height, width) / min(height, width) > MAX_ASPECT:
        raise ImageError(f"the image is {width} x {height}; sides must differ by less than {MAX_ASPECT} to 1")
    new_height = round(height / factor) * factor
    new_width = round(width / factor) * factor
    if new_height * new_width > rules.max_pixels:
        beta = math.sqrt(height * width / rules.max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < rules.min_pixels:
        beta = math.sqrt(rules.min_pixels / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


def resize(rgb: NDArray[np.uint8], rules: PixelRules) -> NDArray[np.uint8]:
    """Return the image at its final size: (height, width, 3), uint8, stretched by Pillow's bicubic filter."""
    from PIL import Image

    height, width = smart_resize(rgb.shape[0], rgb.shape[1], rules)
    if (height, width) == rgb.shape[:2]:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def grid_of(rgb: NDArray[np.uint8], rules: PixelRules) -> Grid:
    """Return the grid of an image at its final size."""
    return Grid(1, rgb.shape[0] // rules.patch_size, rgb.shape[1] // rules.patch_size)


def patches(rgb: NDArray[np.uint8], rules: PixelRules) -> tuple[NDArray[np.float32], Grid]:
    """Return the patches of an image at its final size, and their grid.

    rgb: (height, width, 3), uint8, sides multiples of the factor. Returns (patches, 3 * temporal * patch * patch),
    float32, ordered so that the merge_size**2 patches of one image token follow each other.
    """
    grid = grid_of(rgb, rules)
    mean = np.array(rules.mean, dtype=np.float32)
    std = np.array(rules.std, dtype=np.float32)
    pixels = (rgb * np.float64(1 / 255)).astype(np.float32)
    pixels = ((pixels - mean) / std).transpose(2, 0, 1)
    size, merge = rules.patch_size, rules.merge_size
    cells = pixels.reshape(3, grid.h // merge, merge, size, grid.w // merge, merge, size)
    cells = cells.transpose(1, 4, 2, 5, 0, 3, 6)  # row block, column block, row, column, channel, y, x
    frames = np.repeat(cells[:, :, :, :, :, None], rules.temporal_patch_size, axis=5)
    flat = frames.reshape(grid.patches, 3 * rules.temporal_patch_size * size * size)
    return np.ascontiguousarray(flat, dtype=np.float32), grid
