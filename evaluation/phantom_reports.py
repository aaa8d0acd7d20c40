"""An image and a report of it that is right, or wrong in one respect: neither the image nor the text alone tells which.

The report may be wrong about whether there is a finding, its side, its size or the number. The cases are dealt in
blocks that hold every cell of the design once: given all that the image shows, or all that the report says, half of the
reports agree. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from .example import JSON
from .phantom_anatomy import Pose
from .phantom_images import SCALE, SHIFT_PX, Kind, Side, Size, generator, painted, place
from .phantom_pairs import SIDES, SIZES, Case, dealt
from .phantom_questions import Asker, Question

Aspect = Literal["finding", "side", "size", "number"]
ASPECTS: tuple[Aspect, ...] = ("finding", "side", "size", "number")
TASK = "agreement"
MOST = 3  # findings in an image
_WORDS = ("no", "one", "two", "three")

REPORTS = (
    "Report: {count} {size} {name} on the {side} side of the image.",
    "Findings: there {is_are} {word} {size} {name}, {side}.",
    "Report: {Word} {size} {name} {is_are} seen on the {side}.",
)
NEGATIVE = ("Report: no {name}.", "Findings: there is no {name}.", "Report: No {name} is seen.")
AGREES = (
    "Does the report agree with the image?",
    "Is the report right about this image?",
)
CONTRADICTS = (
    "Is anything in the report wrong?",
    "Does the report contradict the image?",
)
WHICH = (
    "The report is wrong in one respect. Which?",
    "What does the report state wrongly?",
)


@dataclass(frozen=True)
class Told:
    """What an image shows, or a report says, of the findings. count 0: there is none; side and size then say nothing.

    count: 0 to MOST.
    """

    count: int
    size: Size
    side: Side

    @property
    def seen(self) -> tuple[int, str, str]:
        """All that can be read off it: where there is no finding it has no size and no side."""
        return (self.count, self.size, self.side) if self.count else (0, "", "")


@dataclass(frozen=True)
class Cell:
    """One cell of the design. aspect: what the report may be wrong about."""

    aspect: Aspect
    image: Told
    report: Told

    @property
    def agrees(self) -> bool:
        """Whether the report says what the image shows."""
        return self.image.seen == self.report.seen


def _cells() -> Iterator[Cell]:
    """Yield the cells: each aspect equally often, and each with as many reports that agree as not."""
    for count, size, side in product(range(1, MOST + 1), SIZES, SIDES):
        told = Told(count, size, side)
        none = replace(told, count=0)
        yield from (Cell("finding", one, other) for one, other in product((told, none), repeat=2))
        yield from (Cell("side", told, replace(told, side=other)) for other in SIDES for _ in range(2))
        yield from (Cell("size", told, replace(told, size=other)) for other in SIZES for _ in range(2))
        yield from (Cell("number", told, replace(told, count=other)) for other in (count, *range(1, MOST + 1)))


CELLS: tuple[Cell, ...] = tuple(_cells())


def report_case(kind: Kind, seed: int, index: int) -> Case:
    """Return case number `index` of a kind's series `seed`; a pure function of the three."""
    cell = dealt(CELLS, seed, kind, index, 20)
    rng = generator(seed, kind, index, 21)
    pose = Pose(rng.uniform(-SHIFT_PX, SHIFT_PX), rng.uniform(-SHIFT_PX, SHIFT_PX), rng.uniform(*SCALE))
    sign = -1 if cell.image.side == "left" else 1
    lesions = place(rng, kind, pose, cell.image.count, cell.image.size, sign)
    words = generator(seed, kind, index, 22)
    asked = tuple(report_questions(cell, kind, words))
    attributes: dict[str, JSON] = {
        "family": TASK, "organ": kind.body_part, "finding": kind.finding, "aspect": cell.aspect, "agrees": cell.agrees,
        "image": list(cell.image.seen), "report": list(cell.report.seen),
    }  # fmt: skip
    name = f"phantom-report-{kind.modality}-{seed}-{index:06d}"
    picture = painted(rng, kind, pose, lesions)[0]
    return Case(name, kind, (picture,), (0, written(cell.report, kind, words)), asked, attributes)


def written(told: Told, kind: Kind, rng: np.random.Generator) -> str:
    """Return a report in one of its wordings, which are drawn alike whatever is said."""
    number = int(rng.integers(len(REPORTS)))
    many = told.count > 1
    name = kind.findings if many else kind.finding
    if not told.count:
        return NEGATIVE[number].format(name=name)
    word = _WORDS[told.count]
    return REPORTS[number].format(
        count=told.count, word=word, Word=word.capitalize(), size=told.size, name=name, side=told.side,
        is_are="are" if many else "is",
    )  # fmt: skip


def report_questions(cell: Cell, kind: Kind, rng: np.random.Generator) -> Iterator[Question]:
    """Yield what is asked of a case; from image or report alone every offered answer is equally likely.

    What is wrong is asked only where image and report both speak of a finding: side, size and number are then wrong
    equally often.
    """
    asker = Asker(rng, kind, 1)
    yield asker.yes_no(TASK, AGREES, cell.agrees)
    yield asker.yes_no(TASK, CONTRADICTS, not cell.agrees)
    if not cell.agrees and cell.aspect != "finding":
        yield asker.choice(TASK, WHICH, cell.aspect, asker.shuffled(ASPECTS[1:]))
