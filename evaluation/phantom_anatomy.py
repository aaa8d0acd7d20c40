"""The six kinds of phantom: what the body part looks like, where a finding may lie, and how a finding is painted.

Knows no questions and no counting: it paints the lesions and distractors it is told to paint. All lengths in pixels of
the 112 x 112 canvas, angles in radians, grey levels 0..1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .phantom_canvas import (
    COLUMNS,
    HALF_PX,
    ROWS,
    SIZE_PX,
    Field,
    ellipse,
    grain,
    ring,
    segment,
    slope,
    smooth_field,
    soften,
    stamp,
    step,
    to_rgb,
)  # fmt: skip

LIGHTING = 0.12  # largest slope of uneven lighting at the border, in grey levels
LINE_CONTRAST = 0.13  # of a distractor line, in grey levels


@dataclass(frozen=True)
class Pose:
    """How the body lies in this picture: a shift in pixels and a scale about the middle."""

    x: float
    y: float
    scale: float

    def at(self, u: float, v: float) -> tuple[float, float]:
        """Return the pixel of a point given in half widths from the middle, -1..1."""
        return HALF_PX + self.x + u * self.scale * HALF_PX, HALF_PX + self.y + v * self.scale * HALF_PX

    def oval(self, u: float, v: float, a: float, b: float, edge_px: float = 1.0, angle: float = 0.0) -> Field:
        """Return the soft mask of an ellipse given in half widths."""
        x, y = self.at(u, v)
        return ellipse(x, y, a * self.scale * HALF_PX, b * self.scale * HALF_PX, edge_px, angle)


@dataclass(frozen=True)
class Marks:
    """What is painted over the anatomy. lesions, decoys: change in grey levels, 0 or more. lines: soft mask, 0..1.

    Lesions and lines are painted with the sign of the kind's finding, decoys with the other sign.
    """

    lesions: Field
    lines: Field
    decoys: Field

    @property
    def own(self) -> Field:
        """Everything of the finding's own sign."""
        return self.lesions + LINE_CONTRAST * self.lines


Painter = Callable[[np.random.Generator, Pose, Marks], NDArray[np.uint8]]


def paint_ct(rng: np.random.Generator, pose: Pose, marks: Marks) -> NDArray[np.uint8]:
    """A slice of the abdomen: fat rim, muscle, a bony ring at the spine, ribs, liver and kidneys."""
    inside = pose.oval(0, 0, 0.90, 0.80)
    soft = pose.oval(0, 0, 0.83, 0.73)
    grey = 0.03 + 0.24 * inside + 0.17 * soft
    grey += 0.06 * pose.oval(-0.42, -0.18, 0.36, 0.34, 2.5, rng.uniform(-0.4, 0.4))
    grey += 0.05 * pose.oval(0.46, -0.25, 0.20, 0.24, 2.5, rng.uniform(-0.4, 0.4))
    for side in (-1, 1):
        grey += 0.06 * pose.oval(side * 0.38, 0.30, 0.13, 0.19, 1.5, side * 0.3)
    for angle in np.arange(8) * (np.pi / 4) + rng.uniform(0.2, 0.6):
        x, y = pose.at(0.86 * np.cos(angle), 0.76 * np.sin(angle))
        grey = np.maximum(grey, 0.85 * segment(x, y, 9.0, 3.0, np.arctan2(0.76 * np.cos(angle), -0.86 * np.sin(angle))))
    x, y = pose.at(0.0, 0.50)
    grey = np.maximum(grey, 0.92 * ring(x, y, 6.0, 5.0, 4.5))
    grey += inside * (smooth_field(rng, 7, 0.035) + slope(rng, LIGHTING))
    grey += marks.own - marks.decoys
    grey += soften(grain(rng, 0.075))
    return to_rgb(grey, grey, grey)


def paint_mri(rng: np.random.Generator, pose: Pose, marks: Marks) -> NDArray[np.uint8]:
    """An axial slice of the head: bright scalp, dark skull, folded cortex, bright ventricles, a smooth bias field."""
    brain = pose.oval(0, 0, 0.70, 0.84)
    x, y = pose.at(0, 0)
    scalp = ring(x, y, 0.80 * pose.scale * HALF_PX, 0.94 * pose.scale * HALF_PX, 3.5)
    folds = np.sin(smooth_field(rng, 9, 5.0))
    white = pose.oval(0, 0, 0.52, 0.64, 3.0)
    grey = 0.03 + 0.60 * scalp + brain * (0.36 + 0.05 * white + (0.05 - 0.02 * white) * folds)
    for side in (-1, 1):
        horn = pose.oval(side * 0.11, rng.uniform(-0.03, 0.03), 0.06, 0.26, 1.2, side * -0.22)
        grey = grey * (1 - horn) + 0.88 * horn
    x, y = pose.at(0, -0.55)
    grey -= 0.16 * segment(x, y, 24.0, 1.5, np.pi / 2)
    grey += marks.own - marks.decoys
    grey *= 1.0 + smooth_field(rng, 2, 0.07) + slope(rng, 1.5 * LIGHTING)
    grey += grain(rng, 0.035)
    return to_rgb(grey, grey, grey)


def paint_xray(rng: np.random.Generator, pose: Pose, marks: Marks) -> NDArray[np.uint8]:
    """A frontal chest radiograph: two dark lung fields crossed by ribs, the heart on the right of the picture."""
    lungs = np.maximum(pose.oval(-0.44, 0, 0.36, 0.76, 2.5, 0.08), pose.oval(0.44, 0, 0.36, 0.76, 2.5, -0.08))
    grey = 0.66 - 0.36 * lungs
    grey += 0.24 * pose.oval(0.14, 0.38, 0.28, 0.30, 3.0, 0.4)
    across = np.abs(COLUMNS - HALF_PX - pose.x) / HALF_PX
    phase = (ROWS / HALF_PX) * 2 * np.pi * 2.6 + across**2 * 3.0 + rng.uniform(0, 2 * np.pi)
    grey += 0.055 * lungs * np.sin(phase)
    for side in (-1, 1):
        x, y = pose.at(side * 0.45, -0.72)
        grey += 0.10 * segment(x, y, 34.0, 3.0, side * rng.uniform(-0.45, -0.2))
    x, y = pose.at(0.0, 0.0)
    grey += 0.05 * np.sin(ROWS * 0.9) * step(np.abs(COLUMNS - x) - 4.0, 1.0)
    grey += smooth_field(rng, 6, 0.03) + slope(rng, LIGHTING)
    grey += marks.own - marks.decoys
    grey += grain(rng, 0.035)
    return to_rgb(grey, grey, grey)


def paint_ultrasound(rng: np.random.Generator, pose: Pose, marks: Marks) -> NDArray[np.uint8]:
    """A sector scan of the liver: speckle in layers of tissue, black outside the fan; findings bright, decoys dark."""
    dx, dy = COLUMNS - HALF_PX - pose.x, ROWS + 26.0 - pose.y
    depth = np.sqrt(dx * dx + dy * dy)
    angle = np.abs(np.arctan2(dx, dy))
    fan = step((angle - 0.60) * depth, 1.0) * step(30.0 - depth, 1.0) * step(depth - 134.0, 1.0)
    tissue = (
        0.36 + 0.07 * np.sin(depth * 0.22 + rng.uniform(0, 6.28)) + smooth_field(rng, 6, 0.06) + slope(rng, LIGHTING)
    )
    tissue = np.clip(tissue + marks.own - marks.decoys, 0.04, 1.0)
    first, second = rng.standard_normal((2, SIZE_PX, SIZE_PX))
    speckle = np.sqrt(soften(first) ** 2 + soften(second) ** 2) / 0.47
    grey = 0.02 + fan * tissue * (0.75 + 0.25 * speckle)  # compounded: as from several angles at once
    return to_rgb(grey, grey, grey)


def paint_fundus(rng: np.random.Generator, pose: Pose, marks: Marks) -> NDArray[np.uint8]:
    """The back of the eye: an orange disc, a bright optic disc on one side, branching vessels, a dim macula."""
    x, y = pose.at(0, 0)
    eye = ellipse(x, y, 0.93 * HALF_PX, 0.93 * HALF_PX)
    nasal = 1 if rng.random() < 0.5 else -1
    disc_x, disc_y = pose.at(nasal * 0.56, rng.uniform(-0.08, 0.08))
    vessels: Field = np.zeros((SIZE_PX, SIZE_PX))
    for up in (-1, 1):
        for bend in (rng.uniform(0.30, 0.42), rng.uniform(0.58, 0.75)):
            along = (COLUMNS - disc_x) * -nasal / HALF_PX
            curve = disc_y + up * bend * HALF_PX * np.sqrt(np.clip(along, 0, None)) * (1.25 - 0.4 * along)
            vessels = np.maximum(vessels, step(np.abs(ROWS - curve) - 0.9, 0.8) * (along > 0))
    red, green, blue = 0.80, 0.44, 0.18
    light = 1.0 + smooth_field(rng, 4, 0.04) + slope(rng, 1.5 * LIGHTING)
    macula_x, macula_y = pose.at(nasal * -0.25, 0.0)
    light = light - 0.10 * ellipse(macula_x, macula_y, 13.0, 13.0, 8.0)
    dark = marks.own + 0.16 * vessels
    disc = ellipse(disc_x, disc_y, 7.5, 8.5, 1.5)
    pale = marks.decoys
    noise = grain(rng, 0.03)
    return to_rgb(
        eye * ((red - 0.9 * dark + 0.5 * pale) * light * (1 - disc) + 0.98 * disc + noise) + 0.02,
        eye * ((green - 1.0 * dark + 1.1 * pale) * light * (1 - disc) + 0.86 * disc + noise) + 0.02,
        eye * ((blue - 0.4 * dark + 0.6 * pale) * light * (1 - disc) + 0.52 * disc + noise) + 0.02,
    )


def paint_histopathology(rng: np.random.Generator, pose: Pose, marks: Marks) -> NDArray[np.uint8]:
    """A stained section: pink stroma with fibres, scattered purple nuclei; findings are dense, decoys pale."""
    cells = np.zeros((SIZE_PX, SIZE_PX))
    for x, y, radius, depth in rng.random((70, 4)):
        stamp(cells, x * SIZE_PX, y * SIZE_PX, 1.5 + 1.1 * radius, 0.20 + 0.16 * depth)
    fibres = np.sin(smooth_field(rng, 5, 3.0) + (COLUMNS * pose.scale + ROWS) * 0.35)
    light = smooth_field(rng, 5, 0.03) + slope(rng, LIGHTING) + 0.025 * fibres
    pale = marks.decoys
    purple = np.maximum(cells, marks.own * (1.0 + 0.25 * np.sin(smooth_field(rng, 22, 3.0))))
    noise = grain(rng, 0.03)
    return to_rgb(
        0.88 + light - 1.00 * purple + 0.25 * pale + noise,
        0.66 + light - 1.25 * purple + 0.80 * pale + noise,
        0.78 + light - 0.45 * purple + 0.45 * pale + noise,
    )
