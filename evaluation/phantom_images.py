"""Phantoms: seeded 112 x 112 pictures with known findings, sides, counts, sizes and positions.

`phantom(kind, seed, index)` is a pure function: the same three give the same pixels. Knows no questions, no files. The
ranges below are the statement of how hard the pictures are; a test holds every picture to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from .phantom_anatomy import (
    Marks,
    Painter,
    Pose,
    paint_ct,
    paint_fundus,
    paint_histopathology,
    paint_mri,
    paint_ultrasound,
    paint_xray,
)  # fmt: skip
from .phantom_canvas import HALF_PX, SIZE_PX, Field, ellipse, segment

Size = Literal["small", "large"]
Side = Literal["left", "right"]

COUNT_SHARES = (0.4, 0.2, 0.2, 0.2)  # share of pictures with 0, 1, 2 and 3 lesions
RADIUS_PX: dict[Size, tuple[float, float]] = {"small": (3.4, 4.4), "large": (7.0, 8.6)}
CONTRAST_SHARE: dict[Size, float] = {"small": 1.0, "large": 0.75}  # so that the summed brightness says less of the size
EDGE_PX = 0.8  # half width of a lesion's border
GAP_PX = 5.0  # least distance between the borders of two lesions
CENTRES_PX = 18.0  # least distance between the centres of two lesions
SHIFT_PX = 3.0  # largest shift of the body, each way
SCALE = (0.94, 1.04)  # of the body
LINES = 2  # at most, 0 to 2 equally often: distractors of the lesions' own sign but another shape, on both sides
LINE_LENGTH_PX = (12.0, 24.0)
LINE_WIDTH_PX = (1.6, 2.8)
DECOYS = 2  # at most, 0 to 2 equally often: distractors of a lesion's shape and size but the other sign, on both sides
_TRIES = 200


class PhantomError(InfimedError):
    """A phantom that cannot be made: an unknown kind, or a size beyond what is offered."""


@dataclass(frozen=True)
class Zone:
    """Where lesions may lie: an ellipse on each side of the picture, mirrored, in half widths from the middle.

    u, v: centre of the right one. a, b: half axes. keep_out: (u, v, radius) of places hidden by anatomy, on both sides.
    """

    u: float
    v: float
    a: float
    b: float
    keep_out: tuple[tuple[float, float, float], ...] = ()

    def holds(self, pose: Pose, x: float, y: float, radius_px: float, sign: int) -> bool:
        """Return whether a disc lies wholly inside the zone of a side (sign -1: left, 1: right)."""
        centre_x, centre_y = pose.at(sign * self.u, self.v)
        half = pose.scale * HALF_PX
        a, b = self.a * half - radius_px, self.b * half - radius_px
        if ((x - centre_x) / a) ** 2 + ((y - centre_y) / b) ** 2 > 1.0:
            return False
        for u, v, radius in self.keep_out:
            out_x, out_y = pose.at(sign * u, v)
            if (x - out_x) ** 2 + (y - out_y) ** 2 < (radius * half + radius_px) ** 2:
                return False
        return (x - HALF_PX) * sign > radius_px


@dataclass(frozen=True)
class Kind:
    """A modality and what it shows. modality: as in the taxonomy of examples; said: as a person names it.

    contrast: smallest and largest change that a small lesion makes, in grey levels 0..1; see CONTRAST_SHARE.
    """

    modality: str
    said: str
    body_part: str
    finding: str
    findings: str
    zone: Zone
    contrast: tuple[float, float]
    painter: Painter


KINDS: dict[str, Kind] = {
    kind.modality: kind
    for kind in (
        Kind("ct", "CT", "abdomen", "nodule", "nodules", Zone(0.42, -0.06, 0.36, 0.56), (0.30, 0.48), paint_ct),
        Kind("mri", "MRI", "brain", "lesion", "lesions", Zone(0.43, 0.0, 0.27, 0.58), (0.27, 0.46), paint_mri),
        Kind("xray", "X-ray", "chest", "opacity", "opacities", Zone(0.44, 0.0, 0.32, 0.70), (0.22, 0.38), paint_xray),
        Kind(
            "ultrasound", "ultrasound", "liver", "mass", "masses", Zone(0.32, 0.14, 0.28, 0.60),
            (0.34, 0.46), paint_ultrasound,
        ),
        Kind(
            "fundus", "fundus photography", "eye", "haemorrhage", "haemorrhages",
            Zone(0.40, 0.0, 0.36, 0.66, ((0.56, 0.0, 0.24),)), (0.27, 0.46), paint_fundus,
        ),
        Kind(
            "histopathology", "histopathology", "tissue", "mitotic cluster", "mitotic clusters",
            Zone(0.48, 0.0, 0.44, 0.84), (0.40, 0.58), paint_histopathology,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Lesion:
    """A disc: centre from the top left corner, radius and contrast (grey levels 0..1)."""

    x_px: float
    y_px: float
    radius_px: float
    contrast: float


@dataclass(frozen=True, eq=False)
class Phantom:
    """A picture and all that is true of it. side, size: None where there is no lesion. The picture is painted late."""

    kind: Kind
    seed: int
    index: int
    lesions: tuple[Lesion, ...]
    size: Size | None
    side: Side | None

    @property
    def id(self) -> str:
        """Names the picture: kind, seed and index make it again."""
        return f"phantom-{self.kind.modality}-{self.seed}-{self.index:06d}"

    @property
    def half(self) -> Literal["upper", "lower"] | None:
        """The half of the picture that holds the centres of all lesions; None where there is none, or both do."""
        tops = {lesion.y_px < HALF_PX for lesion in self.lesions}
        if len(tops) != 1:
            return None
        return "upper" if tops == {True} else "lower"

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The picture: (112, 112, 3), uint8."""
        return self._drawn[0]

    @property
    def marks(self) -> Marks:
        """What was painted over the anatomy: lesions, lines and decoys."""
        return self._drawn[1]

    @cached_property
    def _drawn(self) -> tuple[NDArray[np.uint8], Marks]:
        rng = generator(self.seed, self.kind, self.index)
        pose, lesions, _, _ = _plan(rng, self.kind)
        return painted(rng, self.kind, pose, lesions)


def painted(
    rng: np.random.Generator, kind: Kind, pose: Pose, lesions: Sequence[Lesion]
) -> tuple[NDArray[np.uint8], Marks]:
    """Return the (112, 112, 3) picture of a body that lies like this with these lesions, and what was painted over it.

    rng draws the distractors, the anatomy's texture and the noise.
    """
    mask: Field = np.zeros((SIZE_PX, SIZE_PX))
    for lesion in lesions:
        mask += lesion.contrast * ellipse(lesion.x_px, lesion.y_px, lesion.radius_px, lesion.radius_px, EDGE_PX)
    marks = Marks(mask, _lines(rng, kind, pose), _decoys(rng, kind, pose, tuple(lesions)))
    return kind.painter(rng, pose, marks), marks


def phantom(kind: Kind, seed: int, index: int) -> Phantom:
    """Return the picture number `index` of a kind's series `seed`."""
    _, lesions, size, side = _plan(generator(seed, kind, index), kind)
    return Phantom(kind, seed, index, lesions, size if lesions else None, side if lesions else None)


def generator(seed: int, kind: Kind, *numbers: int) -> np.random.Generator:
    """Return the generator of a kind's series `seed` at these numbers; a first number or more, all from 0 up."""
    if min(seed, *numbers) < 0:
        raise PhantomError(f"phantom seed {seed}, index {numbers[0]}: both are whole numbers from 0 up")
    return np.random.Generator(np.random.PCG64([seed, sorted(KINDS).index(kind.modality), *numbers]))


def _plan(rng: np.random.Generator, kind: Kind) -> tuple[Pose, tuple[Lesion, ...], Size, Side]:
    """Draw how the body lies and where its lesions are; what follows from the generator paints them."""
    pose = Pose(rng.uniform(-SHIFT_PX, SHIFT_PX), rng.uniform(-SHIFT_PX, SHIFT_PX), rng.uniform(*SCALE))
    count = int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
    size: Size = "small" if rng.random() < 0.5 else "large"
    side: Side = "left" if rng.random() < 0.5 else "right"
    return pose, place(rng, kind, pose, count, size, -1 if side == "left" else 1), size, side


def _point(rng: np.random.Generator, zone: Zone, pose: Pose, radius_px: float, sign: int) -> tuple[float, float]:
    centre_x, centre_y = pose.at(sign * zone.u, zone.v)
    half = pose.scale * HALF_PX
    while True:
        x = centre_x + rng.uniform(-1, 1) * zone.a * half
        y = centre_y + rng.uniform(-1, 1) * zone.b * half
        if zone.holds(pose, x, y, radius_px, sign):
            return x, y


def place(rng: np.random.Generator, kind: Kind, pose: Pose, count: int, size: Size, sign: int) -> tuple[Lesion, ...]:
    """Return `count` lesions of one size on one side (sign -1: left, 1: right), none too near another.

    It starts over where the last one has no room.
    """
    while True:
        lesions: list[Lesion] = []
        for _ in range(_TRIES):
            if len(lesions) == count:
                return tuple(lesions)
            radius = rng.uniform(*RADIUS_PX[size])
            x, y = _point(rng, kind.zone, pose, radius, sign)
            if all(_apart(x, y, radius, other) for other in lesions):
                lesions.append(Lesion(x, y, radius, rng.uniform(*kind.contrast) * CONTRAST_SHARE[size]))
        if len(lesions) == count:
            return tuple(lesions)


def _lines(rng: np.random.Generator, kind: Kind, pose: Pose) -> Field:
    mask: Field = np.zeros((SIZE_PX, SIZE_PX))
    for _ in range(int(rng.integers(LINES + 1))):
        x, y = _point(rng, kind.zone, pose, 2.0, -1 if rng.random() < 0.5 else 1)
        length, width = rng.uniform(*LINE_LENGTH_PX), rng.uniform(*LINE_WIDTH_PX)
        mask = np.maximum(mask, segment(x, y, length, width, rng.uniform(0, np.pi)))
    return mask


def _decoys(rng: np.random.Generator, kind: Kind, pose: Pose, lesions: tuple[Lesion, ...]) -> Field:
    mask: Field = np.zeros((SIZE_PX, SIZE_PX))
    for _ in range(int(rng.integers(DECOYS + 1))):
        size: Size = "small" if rng.random() < 0.5 else "large"
        radius, contrast = rng.uniform(*RADIUS_PX[size]), rng.uniform(*kind.contrast) * CONTRAST_SHARE[size]
        sign = -1 if rng.random() < 0.5 else 1
        for _ in range(_TRIES):
            x, y = _point(rng, kind.zone, pose, radius, sign)
            if all((x - one.x_px) ** 2 + (y - one.y_px) ** 2 > (radius + one.radius_px + 1) ** 2 for one in lesions):
                mask = np.maximum(mask, contrast * ellipse(x, y, radius, radius, EDGE_PX))
                break
    return mask


def _apart(x: float, y: float, radius_px: float, other: Lesion) -> bool:
    least = max(CENTRES_PX, radius_px + other.radius_px + GAP_PX)
    return (x - other.x_px) ** 2 + (y - other.y_px) ** 2 >= least**2


def kinds_named(names: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds of these modalities in the given order; refuses unknown ones with the list."""
    for name in names:
        if name not in KINDS:
            raise PhantomError(f"there is no phantom of {name!r}; choose among {', '.join(KINDS)}")
    return tuple(KINDS[name] for name in names)
