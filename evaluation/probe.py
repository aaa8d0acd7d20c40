"""What a probe makes of an example: questions to ask in its place, each with the key that is right for it.

A probe is a pure function of an example and a Setting. Its rows carry the example's id, a tilde and the variant's name,
so that a prediction tells what it is a variant of. Knows no pixels, no engine and no run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from .. import InfimedError
from .example import Content, Example, ImageRef, TextRef

KeyKind = Literal["same", "mirrored", "abstain", "other"]
_T = TypeVar("_T")
_VARIANT = re.compile(r"(.*)~([a-z]+(?:-\d+)?)", re.DOTALL)


class ProbeError(InfimedError):
    """A probe that does not exist, or cannot be asked for like this."""


@dataclass(frozen=True)
class Picture:
    """How every image of a row is changed: a row of corruptions.CHANGES, its severity (1 to 5, else 0) and its seed."""

    change: str
    severity: int
    seed: int


@dataclass(frozen=True)
class Probed:
    """One row of a probe. of: the example's id. key: how the right answer follows from the example's.

    "same" and "mirrored" (left and right exchanged): a sound model says the same, or its mirror image. "abstain": what
    is shown no longer tells the answer; the row keeps the example's key, to count answers given all the same. "other":
    another question, with the row's own key.
    """

    of: str
    variant: str
    example: Example
    key: KeyKind
    picture: Picture | None = None


@dataclass(frozen=True)
class LeftOut:
    """An example that the probe does not cover, and why."""

    reason: str


Outcome = tuple[Probed, ...] | LeftOut


@dataclass(frozen=True)
class Shown:
    """What one group shows: images that stand together in an example."""

    images: tuple[ImageRef, ...]
    group: str
    modality: str


@dataclass(frozen=True)
class Setting:
    """What a probe may use besides the example. shown: other images, each once, in one order (see `all_shown`)."""

    seed: int = 0
    severity: int = 0
    shown: tuple[Shown, ...] = field(default=(), repr=False)

    def number(self, below: int, *parts: str) -> int:
        """Return a number from 0 to below - 1 that depends on the seed and the parts only."""
        digest = hashlib.sha256("\0".join((str(self.seed), *parts)).encode()).digest()
        return int.from_bytes(digest[:8], "big") % below

    def shuffled(self, things: Sequence[_T], *parts: str) -> tuple[_T, ...]:
        """Return the things in an order that depends on the seed and the parts only (Fisher and Yates)."""
        order = list(things)
        for last in range(len(order) - 1, 0, -1):
            other = self.number(last + 1, *parts, str(last))
            order[last], order[other] = order[other], order[last]
        return tuple(order)


def all_shown(examples: Iterable[Example]) -> tuple[Shown, ...]:
    """Return what examples show, in an order that does not depend on theirs."""
    found = {Shown(row.images, row.group, row.modality) for row in examples if row.images}
    return tuple(sorted(found, key=lambda one: ([ref.sha256 for ref in one.images], one.group, one.modality)))


Ask = Callable[[Example, Setting], Outcome]


def variant(
    example: Example,
    name: str,
    key: KeyKind = "same",
    *,
    question: str | None = None,
    content: tuple[Content, ...] | None = None,
    answer: str | None = None,
    options: tuple[str, ...] | None = None,
    answer_type: Literal["choice", "yesno", "open"] | None = None,
    aliases: tuple[str, ...] | None = None,
    picture: Picture | None = None,
) -> Probed:
    """Return a row of a probe: the example with what is given changed. name: small letters, or letters-number.

    Attributes (lesions' places and the like) are dropped: they may no longer be true of what is shown.
    """
    parts = example.content if content is None else content
    if question is not None:
        parts = (*parts[:-1], TextRef(question))
    asked = replace(
        example,
        id=f"{example.id}~{name}",
        content=parts,
        answer=example.answer if answer is None else answer,
        options=example.options if options is None else options,
        answer_type=example.answer_type if answer_type is None else answer_type,
        aliases=example.aliases if aliases is None else aliases,
        attributes={},
    )
    return Probed(example.id, name, asked, key, picture)


def source_of(example_id: str) -> tuple[str, str]:
    """Return the example's id and the variant's name that a row's id tells. Raises ProbeError for another id."""
    found = _VARIANT.fullmatch(example_id)
    if found is None:
        raise ProbeError(f"{example_id!r} is no row of a probe: its id names no variant")
    return found.group(1), found.group(2)
