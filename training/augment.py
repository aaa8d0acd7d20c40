"""Changes a training image a little each time it is shown: zoom, turn, light, mirror. A few hundred then last longer.

A pure function of the image, the recipe and a random generator. Knows nothing of examples or of what they ask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.example import TASKS


@dataclass(frozen=True)
class AugmentSpec:
    """The recipe's [augment] table; all off by default.

    zoom: largest share by which an image is enlarged or moved. turn_degrees: largest turn to either side. light:
    largest change of contrast and brightness, as a share of the full range. mirror: tasks whose answers stay true when
    left and right change places; half of an image's showings are mirrored if all questions of its row are of these.
    """

    zoom: float = 0.0
    turn_degrees: float = 0.0
    light: float = 0.0
    mirror: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.zoom <= 0.5 and 0 <= self.turn_degrees <= 45 and 0 <= self.light <= 0.5):
            raise ValueError("zoom and light lie between 0 and 0.5, turn_degrees between 0 and 45")
        unfit = [task for task in self.mirror if task not in TASKS or task in ("laterality", "location")]
        if unfit:
            raise ValueError(f"mirror = {list(self.mirror)}: {unfit[0]!r} is no task, or its answers name a side")

    @property
    def does_something(self) -> bool:
        """Return whether any image is changed at all."""
        return bool(self.zoom or self.turn_degrees or self.light or self.mirror)


def augment(
    rgb: NDArray[np.uint8], spec: AugmentSpec, draw: np.random.Generator, may_mirror: bool
) -> NDArray[np.uint8]:
    """Return a changed copy of the same size; what a turn uncovers repeats the image's mean colour."""
    from PIL import Image

    height, width = rgb.shape[:2]
    scale = 1 / (1 + spec.zoom * draw.uniform())
    angle = math.radians(spec.turn_degrees) * draw.uniform(-1, 1)
    shift = draw.uniform(-0.5, 0.5, 2) * spec.zoom * (width, height)
    mirrored = may_mirror and draw.uniform() < 0.5
    gain, offset = 1 + spec.light * draw.uniform(-1, 1), 255 * spec.light * draw.uniform(-0.5, 0.5)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    flip = -1.0 if mirrored else 1.0
    # Pillow asks for the inverse: where in the source each pixel of the result comes from, about the centre.
    centre = np.array([width / 2, height / 2])
    matrix = np.array([[flip * cos, sin], [-flip * sin, cos]])
    start = centre + shift - matrix @ centre
    affine = (*matrix[0], start[0], *matrix[1], start[1])
    fill = tuple(int(value) for value in rgb.reshape(-1, 3).mean(axis=0))
    moved = Image.fromarray(rgb).transform(
        (width, height), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=fill
    )
    lit = (np.asarray(moved, np.float32) - 127.5) * np.float32(gain) + np.float32(127.5 + offset)
    changed: NDArray[np.uint8] = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    return changed
