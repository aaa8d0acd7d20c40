"""What is asked about a phantom: choice, yes/no and open questions over modality x task, in several wordings.

Wordings, the order of options and which questions an image gets are drawn from the phantom's own seed. Over many
phantoms every closed question is balanced, so that its words alone tell nothing. Knows no pixels and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .phantom_canvas import HALF_PX
from .phantom_images import KINDS, Kind, Phantom

TASKS = ("modality", "anatomy", "finding", "laterality", "count", "size", "location", "open")
YES_NO = ("yes", "no")
NUMBERS = ("0", "1", "2", "3")
NOTHING = "no abnormality"
CAPTION = "Describe the image."
MARGIN_PX = 6.0  # no question about the upper or lower half where a centre lies nearer to the middle line than this
CHOICES = 4  # options of a question with many possible answers

MODALITY = ("Which imaging modality was used to acquire this image?", "What kind of image is this?")
MODALITY_OPEN = ("Which imaging modality is this?", "How was this image made?")
ANATOMY = ("Which part of the body is shown?", "What does the image show?")
FINDING = ("Is there {a_finding}?", "Is {a_finding} present in this image?", "Does the image show {a_finding}?")
ABNORMAL = ("Is there any abnormality in this image?", "Is the image abnormal?")
SIDE = ("On which side of the image {is_finding}?", "Which side of the image is affected?")
SIDE_LEFT = ("{is_finding} on the left side of the image?",)
SIDE_RIGHT = ("{is_finding} on the right side of the image?",)
COUNT = ("How many {findings} are there?", "What is the number of {findings} in this image?")
SIZE = ("What is the size of the {finding_s}?", "How large {is_finding}?")
SIZE_LARGE = ("{is_finding} large?",)
SIZE_SMALL = ("{is_finding} small?",)
LOCATION = ("In which part of the image {is_finding}?", "Where {is_finding} located?")
UPPER = ("{is_finding} in the upper half of the image?",)
LOWER = ("{is_finding} in the lower half of the image?",)
OPEN = ("What abnormality is seen?", "Name the main finding.")
WORDINGS = (
    *MODALITY, *MODALITY_OPEN, *ANATOMY, *FINDING, *ABNORMAL, *SIDE, *SIDE_LEFT, *SIDE_RIGHT, *COUNT,
    *SIZE, *SIZE_SMALL, *SIZE_LARGE, *LOCATION, *UPPER, *LOWER, *OPEN,
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question with its answer, ready to become an example. wording: names the sentence, whatever fills it."""

    task: str
    answer_type: Literal["choice", "yesno", "open"]
    text: str
    options: tuple[str, ...]
    answer: str
    wording: str


def questions(phantom: Phantom, kinds: Sequence[Kind] = tuple(KINDS.values())) -> tuple[Question, ...]:
    """Return the questions of a phantom, in the order of TASKS. kinds: the modalities that options may name.

    A phantom with lesions is asked about the presence of a finding only as often as keeps yes and no equal; one
    without is asked to count only as often as keeps 0, 1, 2 and 3 equal.
    """
    order = [kind.modality for kind in KINDS.values()]
    rng = np.random.Generator(np.random.PCG64([phantom.seed, order.index(phantom.kind.modality), phantom.index, 1]))
    asker = Asker(rng, phantom.kind, len(phantom.lesions))
    return tuple(
        question for question in _all(asker, phantom, kinds) if rng.random() < _share(question, len(phantom.lesions))
    )


def _share(question: Question, lesions: int) -> float:
    """Return how often a question is kept, from COUNT_SHARES: 0.4 without lesions, 0.2 each with 1, 2 and 3."""
    if question.task in ("finding", "open") and lesions:
        return 2 / 3
    if question.task == "count" and not lesions:
        return 1 / 2
    return 1.0


def _all(asker: Asker, phantom: Phantom, kinds: Sequence[Kind]) -> Iterator[Question]:
    kind, lesions = phantom.kind, len(phantom.lesions)
    yield asker.choice("modality", MODALITY, kind.said, asker.some(kind.said, [one.said for one in kinds]))
    yield asker.open("modality", MODALITY_OPEN, kind.said)
    yield asker.choice("anatomy", ANATOMY, kind.body_part, asker.some(kind.body_part, [one.body_part for one in kinds]))
    yield asker.yes_no("finding", FINDING, lesions > 0)
    yield asker.yes_no("finding", ABNORMAL, lesions > 0)
    if phantom.side:
        yield asker.choice("laterality", SIDE, phantom.side, asker.shuffled(("left", "right")))
        asked = asker.one_of(("left", "right"))
        yield asker.yes_no("laterality", SIDE_LEFT if asked == "left" else SIDE_RIGHT, phantom.side == asked)
    yield asker.choice("count", COUNT, str(lesions), NUMBERS)
    if phantom.size:
        yield asker.choice("size", SIZE, phantom.size, asker.shuffled(("small", "large")))
        asked = asker.one_of(("small", "large"))
        yield asker.yes_no("size", SIZE_SMALL if asked == "small" else SIZE_LARGE, phantom.size == asked)
    if phantom.half and all(abs(lesion.y_px - HALF_PX) >= MARGIN_PX for lesion in phantom.lesions):
        corners = asker.shuffled(("upper left", "upper right", "lower left", "lower right"))
        yield asker.choice("location", LOCATION, f"{phantom.half} {phantom.side}", corners)
        asked = asker.one_of(("upper", "lower"))
        yield asker.yes_no("location", UPPER if asked == "upper" else LOWER, phantom.half == asked)
    yield asker.open("open", OPEN, kind.finding if lesions else NOTHING)


def caption(phantom: Phantom) -> str:
    """Return one sentence that says all: used to train, not to evaluate."""
    kind, lesions = phantom.kind, len(phantom.lesions)
    if not lesions:
        return f"{kind.said}, {kind.body_part}: {NOTHING}."
    places = ", ".join(
        f"{'upper' if lesion.y_px < HALF_PX else 'lower'} {phantom.side}"
        for lesion in sorted(phantom.lesions, key=lambda one: one.y_px)
    )
    name = kind.finding if lesions == 1 else kind.findings
    return f"{kind.said}, {kind.body_part}: {lesions} {phantom.size} {name}, {places}."


class Asker:
    """Draws wordings and orders of options, and fills in the words of a kind and a number."""

    def __init__(self, rng: np.random.Generator, kind: Kind, lesions: int) -> None:
        self._rng = rng
        article = "an" if kind.finding[0] in "aeiou" else "a"
        name = kind.findings if lesions > 1 else kind.finding
        self._words = {
            "a_finding": f"{article} {kind.finding}",
            "findings": kind.findings,
            "finding_s": name,
            "is_finding": f"are the {name}" if lesions > 1 else f"is the {name}",
        }

    def one_of(self, things: Sequence[str]) -> str:
        return things[int(self._rng.integers(len(things)))]

    def shuffled(self, options: Sequence[str]) -> tuple[str, ...]:
        return tuple(options[int(i)] for i in self._rng.permutation(len(options)))

    def some(self, right: str, names: Sequence[str]) -> tuple[str, ...]:
        """Return the right name and others, CHOICES in all where there are as many, shuffled."""
        others = self.shuffled([name for name in names if name != right])
        return self.shuffled((right, *others[: CHOICES - 1]))

    def choice(self, task: str, wordings: Sequence[str], answer: str, options: Sequence[str]) -> Question:
        text, wording = self._text(wordings)
        return Question(task, "choice", text, tuple(options), answer, wording)

    def yes_no(self, task: str, wordings: Sequence[str], true: bool) -> Question:
        text, wording = self._text(wordings)
        return Question(task, "yesno", text, YES_NO, "yes" if true else "no", wording)

    def open(self, task: str, wordings: Sequence[str], answer: str) -> Question:
        text, wording = self._text(wordings)
        return Question(task, "open", text, (), answer, wording)

    def _text(self, wordings: Sequence[str]) -> tuple[str, str]:
        wording = self.one_of(wordings)
        text = wording.format(**self._words)
        return text[0].upper() + text[1:], wording
