"""Two images of one body, a prior and a current one, and what has happened in between: neither image alone tells it.

Each image shows two findings, one on each side, one small and one large. One of them is seen in both images, at the
same place of the body, and has grown, shrunk or stayed the same; the other has resolved, and a third has appeared on
its side, in the other half. Which of an image's two findings is which, that image alone does not tell. The cases are
dealt in blocks that hold every cell of the design once, so that within a block the best guess from one image is exactly
at chance (docs/phantoms.md says why a single finding could not be balanced so). Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from .example import JSON
from .phantom_anatomy import Pose
from .phantom_canvas import HALF_PX
from .phantom_images import (
    CENTRES_PX,
    CONTRAST_SHARE,
    RADIUS_PX,
    SCALE,
    SHIFT_PX,
    Kind,
    Lesion,
    Side,
    Size,
    generator,
    painted,
)
from .phantom_questions import Asker, Question

Half = Literal["upper", "lower"]
Change = Literal["grown", "shrunk", "unchanged"]
CHANGES: tuple[Change, ...] = ("grown", "shrunk", "unchanged")
SIDES: tuple[Side, ...] = ("left", "right")
HALVES: tuple[Half, ...] = ("upper", "lower")
SIZES: tuple[Size, ...] = ("small", "large")
PRIOR, CURRENT = "Prior image:", "Current image:"
TASK = "change"

CHANGED = (
    "One {finding_s} is seen in both images. Has it grown, shrunk or stayed the same?",
    "How has the {finding_s} that both images show changed since the prior image?",
)
APPEARED = (
    "On which side of the current image has {a_finding} appeared since the prior image?",
    "Which side of the current image shows a new {finding_s}?",
)
RESOLVED = (
    "On which side of the prior image has {a_finding} resolved since then?",
    "Which side of the prior image shows a {finding_s} that is gone from the current one?",
)
APPEARED_SIZE = ("What is the size of the {finding_s} that has appeared?", "How large is the new {finding_s}?")
RESOLVED_SIZE = ("What was the size of the {finding_s} that has resolved?",)
APPEARED_HERE = ("Has the {finding_s} on the {side} of the current image appeared since the prior image?",)
RESOLVED_HERE = ("Has the {finding_s} on the {side} of the prior image resolved since then?",)

_T = TypeVar("_T")
_OTHER: Mapping[str, str] = {
    "left": "right", "right": "left", "upper": "lower", "lower": "upper", "small": "large", "large": "small",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """Pictures and texts that are asked about together.

    parts: what is shown before the question, in order: a picture by its number, or a text. attributes: what is true.
    """

    id: str
    kind: Kind
    pictures: tuple[NDArray[np.uint8], ...]
    parts: tuple[int | str, ...]
    asked: tuple[Question, ...]
    attributes: Mapping[str, JSON]


@dataclass(frozen=True)
class Finding:
    """One finding of an image, by the half of the picture it lies in and its size."""

    half: Half
    size: Size


@dataclass(frozen=True)
class Cell:
    """One cell of the design. side: of the finding that both images show; before, after: that one; gone, new: others.

    gone lies on the other side of the prior image, new on the same side as gone in the current one.
    """

    side: Side
    before: Finding
    after: Finding
    gone: Finding
    new: Finding

    @property
    def change(self) -> Change:
        """What has happened to the finding that both images show."""
        if self.before.size == self.after.size:
            return "unchanged"
        return "grown" if self.after.size == "large" else "shrunk"

    @property
    def other(self) -> Side:
        """The side on which one finding has resolved and another appeared."""
        return "right" if self.side == "left" else "left"

    @property
    def prior(self) -> dict[str, Finding]:
        """What the prior image shows, by side: all that can be known from it alone."""
        return {self.side: self.before, self.other: self.gone}

    @property
    def current(self) -> dict[str, Finding]:
        """What the current image shows, by side."""
        return {self.side: self.after, self.other: self.new}


def _cells() -> Iterator[Cell]:
    """Yield the cells: each change equally often, given all that either image shows."""
    for side, half, gone_half, change, start in product(SIDES, HALVES, HALVES, CHANGES, SIZES):
        before: Size = {"grown": "small", "shrunk": "large", "unchanged": start}[change]  # type: ignore[assignment]
        after: Size = before if change == "unchanged" else _OTHER[before]  # type: ignore[assignment]
        yield Cell(
            side,
            Finding(half, before),
            Finding(half, after),
            Finding(gone_half, _OTHER[before]),  # type: ignore[arg-type]
            Finding(_OTHER[gone_half], _OTHER[after]),  # type: ignore[arg-type]
        )


CELLS: tuple[Cell, ...] = tuple(_cells())


def dealt(cells: Sequence[_T], seed: int, kind: Kind, index: int, stream: int) -> _T:
    """Return the cell of case `index`: every block of len(cells) cases holds each cell once, in an order of its own."""
    block, place = divmod(index, len(cells))
    return cells[int(generator(seed, kind, block, stream).permutation(len(cells))[place])]


def change_case(kind: Kind, seed: int, index: int) -> Case:
    """Return case number `index` of a kind's series `seed`; a pure function of the three."""
    cell = dealt(CELLS, seed, kind, index, 10)
    rng = generator(seed, kind, index, 11)
    exams = _exams(rng, kind, cell)
    pictures = tuple(
        painted(generator(seed, kind, index, 12 + number), kind, pose, lesions)[0]
        for number, (pose, lesions) in enumerate(exams)
    )
    attributes: dict[str, JSON] = {
        "family": TASK, "organ": kind.body_part, "finding": kind.finding, "change": cell.change, "common": cell.side,
        "prior": {side: [one.half, one.size] for side, one in sorted(cell.prior.items())},
        "current": {side: [one.half, one.size] for side, one in sorted(cell.current.items())},
    }  # fmt: skip
    asked = tuple(change_questions(cell, kind, generator(seed, kind, index, 14)))
    name = f"phantom-change-{kind.modality}-{seed}-{index:06d}"
    return Case(name, kind, pictures, (PRIOR, 0, CURRENT, 1), asked, attributes)


def change_questions(cell: Cell, kind: Kind, rng: np.random.Generator) -> Iterator[Question]:
    """Yield what is asked of a case; from either image alone every offered answer is equally likely."""
    asker = Asker(rng, kind, 1)
    yield asker.choice(TASK, CHANGED, cell.change, asker.shuffled(CHANGES))
    yield asker.choice(TASK, APPEARED, cell.other, asker.shuffled(SIDES))
    yield asker.choice(TASK, RESOLVED, cell.other, asker.shuffled(SIDES))
    yield asker.choice(TASK, APPEARED_SIZE, cell.new.size, asker.shuffled(SIZES))
    yield asker.choice(TASK, RESOLVED_SIZE, cell.gone.size, asker.shuffled(SIZES))
    for wordings in (APPEARED_HERE, RESOLVED_HERE):
        side = asker.one_of(SIDES)
        yield asker.yes_no(TASK, tuple(text.replace("{side}", side) for text in wordings), side == cell.other)


def _exams(rng: np.random.Generator, kind: Kind, cell: Cell) -> tuple[tuple[Pose, tuple[Lesion, ...]], ...]:
    """Return (pose, lesions) of the prior and the current image.

    Places, contrasts and radii are drawn alike for every finding, whatever becomes of it, so that nothing about a
    single image's findings tells the one that stays. The body keeps its scale and moves a little between the images.
    """
    scale = rng.uniform(*SCALE)
    poses = [Pose(rng.uniform(-SHIFT_PX, SHIFT_PX), rng.uniform(-SHIFT_PX, SHIFT_PX), scale) for _ in range(2)]
    places = {(side, half): _place(rng, kind, poses, side, half) for side, half in product(SIDES, HALVES)}
    radii = {size: rng.uniform(*RADIUS_PX[size], 3) for size in SIZES}
    contrasts = rng.uniform(*kind.contrast, 3)

    def lesion(pose: Pose, side: Side, one: Finding, number: int) -> Lesion:
        x, y = pose.at(*places[side, one.half])
        return Lesion(x, y, float(radii[one.size][number]), float(contrasts[number]) * CONTRAST_SHARE[one.size])

    prior = lesion(poses[0], cell.side, cell.before, 0), lesion(poses[0], cell.other, cell.gone, 1)
    current = lesion(poses[1], cell.side, cell.after, 0), lesion(poses[1], cell.other, cell.new, 2)
    return (poses[0], prior), (poses[1], current)


def _place(rng: np.random.Generator, kind: Kind, poses: Sequence[Pose], side: Side, half: Half) -> tuple[float, float]:
    """Draw a place of the body, in half widths, that holds the largest finding in every pose, well inside its half."""
    sign, reach, zone = -1 if side == "left" else 1, max(RADIUS_PX["large"]), kind.zone
    while True:
        u, v = sign * zone.u + rng.uniform(-1, 1) * zone.a, zone.v + rng.uniform(-1, 1) * zone.b
        at = [pose.at(u, v) for pose in poses]
        inside = all(zone.holds(pose, x, y, reach, sign) for pose, (x, y) in zip(poses, at, strict=True))
        if inside and all(_is_in(y, half) for _, y in at):
            return u, v


def _is_in(y_px: float, half: Half) -> bool:
    """Return whether a centre lies in this half, so far from the middle that two halves' findings keep apart."""
    below = y_px - HALF_PX
    return (below if half == "lower" else -below) >= CENTRES_PX / 2
