"""What a drift report shows beside its verdicts, as frozen records: flips to look at, and reliability by confidence.

Knows no statistics and no layout; docs/drift.md defines every figure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """What one run said to a question.

    run: its name. answer: the option chosen, or what the reply says; null where it says nothing (INVALID).
    confidence: the largest option probability, 0..1; null for open questions. correct: whether it is right.
    """

    run: str
    answer: str | None
    confidence: float | None
    correct: bool


@dataclass(frozen=True)
class Flip:
    """A question whose answer turned right or wrong at one level or more.

    example_id: of the question. modality: of its cell. task: of its cell. question: its text. key: the right answer.
    images: how many it shows. reference: what the reference said. levels: what each level said, in the report's order.
    """

    example_id: str
    modality: str
    task: str
    question: str
    key: str
    images: int
    reference: Said
    levels: tuple[Said, ...]

    @property
    def harmed(self) -> tuple[str, ...]:
        """The levels that are wrong where the reference is right."""
        return tuple(said.run for said in self.levels if self.reference.correct and not said.correct)

    @property
    def healed(self) -> tuple[str, ...]:
        """The levels that are right where the reference is wrong."""
        return tuple(said.run for said in self.levels if said.correct and not self.reference.correct)


@dataclass(frozen=True)
class ReliabilityBin:
    """A share of the answers, taken in the order of their confidence.

    items: how many, in parts where an item lies on an edge. confidence: their mean confidence, 0..1. accuracy: the
    share of right ones. lower, upper: Wilson's 95 % interval of it on items / D, the run's design effect.
    """

    items: float
    confidence: float
    accuracy: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Reliability:
    """How often a run is right where it is how confident: the reliability diagram in numbers.

    run: its name. items: its questions with options. ece: expected calibration error, the mean over the bins of the
    distance between confidence and accuracy. bins: 15 of equal mass, from the least confident up.
    """

    run: str
    items: int
    ece: float
    bins: tuple[ReliabilityBin, ...]
