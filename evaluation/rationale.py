"""Reads a reply's reasoning by rules: what it names of the item's record, and whether its answer follows from it.

Reasoning is what stands in <think>...</think>, and before the stated answer. Every name is read by its clause: denied,
open (a question, a comparison, a condition) or affirmed. Whether the answer follows is decided by words alone: the
rules that read answers read the reasoning, and what they find there is held against the answer; where they find none it
is undecidable, never guessed. Knows no run, no level and no judge. docs/predictions.md states the rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .extraction import extract
from .mentions import Mention, marked_sentence, mentions
from .polarity import Stand, reading
from .rationale_words import (
    MODALITY_WORDS,
    ORGAN_WORDS,
    SIDE_WORDS,
    named,
    same_modality,
    same_organ,
)
from .reply_text import readable, words
from .stated import statements

Naming = Literal["right", "wrong", "not named"]
Follows = Literal["consistent", "contradicts", "undecidable"]
NAMINGS: tuple[Naming, ...] = ("right", "wrong", "not named")
FOLLOWS: tuple[Follows, ...] = ("consistent", "contradicts", "undecidable")
ASPECTS = ("modality", "organ", "side")
LEAST_WORDS = 4  # fewer before an answer ("The correct") are no reasoning
_THINK = re.compile(r"</?think>")
_PLACED = re.compile(
    r"\b(?:in|on|of|within|from|at|through|inside)\s+(?:the\s+|this\s+|an?\s+)?(?:\w+\s+)?$", re.IGNORECASE
)
_WELL = r"(?:clear|normal|unremarkable|healthy|intact|preserved|uninvolved|free\s+of)"
_WELL_AFTER = re.compile(rf"^[^,;.]*?\b(?:is|are|appears?|looks?|remains?)\s+(?:\w+\s+)?{_WELL}\b", re.IGNORECASE)
_WELL_BEFORE = re.compile(rf"\b{_WELL}\s+(?:\w+\s+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Rationale:
    """What rules read in one reply's reasoning. words: its length.

    modality, organ, side: what it names against the record; None where the record says nothing of it.
    """

    words: int
    modality: Naming | None
    organ: Naming | None
    side: Naming | None
    follows: Follows


def reasoning_of(reply: str) -> str:
    """Return the reasoning of a reply as plain text; empty where there is none."""
    thought, closed, rest = reply.rpartition("</think>")
    if not closed:
        before, opened, thought = reply.partition("<think>")
        rest = before if opened else reply
        thought = thought if opened else ""
    final = readable(rest).plain
    stated = statements(readable(rest))
    parts = [readable(_THINK.sub(" ", thought)).plain, final[: stated[0].start] if stated else ""]
    told = "\n".join(part.strip() for part in parts if part.strip())
    return told if len(words(told)) >= LEAST_WORDS else ""


def rationale(
    reply: str,
    answer: str | None,
    record: Mapping[str, str],
    *,
    answer_type: str,
    options: Sequence[str] = (),
    question: str = "",
) -> Rationale | None:
    """Return what a reply's reasoning says; None where it carries none.

    answer: what the reply says in the end, as extracted (None: INVALID). record: what is true of the item, by aspect.
    """
    text = reasoning_of(reply)
    if not text:
        return None
    return Rationale(
        words=len(words(text)),
        modality=_modality(text, record.get("modality", "")),
        organ=_organ(text, record.get("organ", "")),
        side=_side(text, record.get("side", "")),
        follows=_follows(text, answer, answer_type, options, question),
    )


def _follows(text: str, answer: str | None, answer_type: str, options: Sequence[str], question: str) -> Follows:
    if answer is None:
        return "undecidable"
    if answer_type == "open":
        stands = {stand for _, stand in _read(text, mentions(text, [answer], words(question)))}
        return "consistent" if "affirmed" in stands else "contradicts" if stands == {"denied"} else "undecidable"
    said = extract(text, answer_type=answer_type, options=options, question=question).answer
    if said is None:
        return "undecidable"
    return "consistent" if said == answer else "contradicts"


def _read(text: str, found: Sequence[Mention]) -> list[tuple[Mention, Stand]]:
    """Return what the text does with each mention, by its clause."""
    return [(one, reading(*marked_sentence(text, found, one)).stand) for one in found]


def _names(text: str, table: Mapping[str, re.Pattern[str]]) -> list[tuple[str, Stand, str, str]]:
    """Return (name, stand, what stands before it in its sentence, what after) for each mention of a table's words."""
    keys, found = list(table), named(text, table)
    return [
        (keys[one.option or 0], stand, *marked_sentence(text, found, one)) for one, stand in _read(text, found)
    ]  # fmt: skip


def _modality(text: str, true: str) -> Naming | None:
    """A modality is named where a clause affirms it, or places something in it ("no mass on the CT")."""
    if not true:
        return None
    said = [name for name, stand, before, _ in _names(text, MODALITY_WORDS) if _holds(stand, before)]
    return _judged(said, lambda name: same_modality(name, true), every=True)


def _organ(text: str, true: str) -> Naming | None:
    """An organ is named likewise; where several are, one that fits is enough, and a healthy one is no wrong one."""
    if not true:
        return None
    found = [one for one in _names(text, ORGAN_WORDS) if _holds(one[1], one[2])]
    fits = [name for name, *_ in found if same_organ(name, true)]
    others = [name for name, _, before, after in found if not _well(before, after)]
    return _judged(fits or others, lambda name: same_organ(name, true), every=False)


def _side(text: str, true: str) -> Naming | None:
    """A side is named where a clause affirms it of something that is not said to be healthy."""
    if not true:
        return None
    said = [
        name
        for name, stand, before, after in _names(text, SIDE_WORDS)
        if stand == "affirmed" and not _well(before, after)
    ]
    if true == "both" and {"left", "right"} <= set(said):
        return "right"
    return _judged(said, lambda name: name == true, every=True)


def _holds(stand: Stand, before: str) -> bool:
    return stand == "affirmed" or (stand == "denied" and bool(_PLACED.search(before)))


def _well(before: str, after: str) -> bool:
    return bool(_WELL_BEFORE.search(before) or _WELL_AFTER.match(after))


def _judged(said: Sequence[str], fits: Callable[[str], bool], every: bool) -> Naming:
    if not said:
        return "not named"
    right = [fits(name) for name in said]
    return "right" if (all(right) if every else any(right)) else "wrong"
