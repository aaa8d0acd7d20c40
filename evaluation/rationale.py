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
from .mentions import Mention, marked_sentence
from .polarity import Stand, reading
from .rationale_follows import COMPARED, Follows, follows
from .rationale_words import (
    MODALITY_WORDS,
    ORGAN_WORDS,
    SIDE_WORDS,
    UNSPECIFIC,
    WELL_AFTER,
    WELL_BEFORE,
    named,
    same_modality,
    same_organ,
)
from .reply_text import readable, words
from .stated import statements

Naming = Literal["right", "wrong", "not named"]
NAMINGS: tuple[Naming, ...] = ("right", "wrong", "not named")
ASPECTS = ("modality", "organ", "side")
LEAST_WORDS = 4  # fewer before an answer ("The correct") are no reasoning
_THINK = re.compile(r"</?think>")
_PLACED = re.compile(
    r"\b(?:in|on|of|within|from|at|through|inside)\s+(?:the\s+|this\s+|an?\s+)?(?:\w+\s+)?$", re.IGNORECASE
)
_SAYS = re.compile(r"\b(?:says?|states?|claims?|reads?|reports|according\s+to|none|nothing)\b[^,;.]*$", re.IGNORECASE)


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


def parted(reply: str) -> tuple[str, str]:
    """Return (reasoning in plain text, what is left: the answer); no reasoning is the empty text."""
    thought, closed, rest = reply.rpartition("</think>")
    if not closed:
        before, opened, after = reply.partition("<think>")
        thought, rest = (after, before) if opened else ("", reply)
    final = readable(rest)
    stated = statements(final)
    begins = stated[0].start if stated else 0
    parts = [readable(_THINK.sub(" ", thought)).plain, final.plain[:begins]]
    told = "\n".join(part.strip() for part in parts if part.strip())
    return (told, final.plain[begins:]) if len(words(told)) >= LEAST_WORDS else ("", rest)


def rationale(
    reply: str,
    record: Mapping[str, str],
    *,
    answer_type: str,
    options: Sequence[str] = (),
    question: str = "",
) -> Rationale | None:
    """Return what a reply's reasoning says; None where it carries none. record: what is true of the item, by aspect.

    The answer is read from what stands after the reasoning alone: a whole reply that contradicts itself is INVALID, and
    those are the ones to be found here.
    """
    text, rest = parted(reply)
    if not text:
        return None
    answer = extract(rest, answer_type=answer_type, options=options, question=question).answer
    return Rationale(
        words=len(words(text)),
        modality=_modality(text, record.get("modality", "")),
        organ=_organ(text, record.get("organ", "")),
        side=_side(text, record.get("side", "")),
        follows=follows(text, answer, answer_type, options, question),
    )


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
    text = COMPARED.sub("on the", text)
    said = [name for name, stand, before, _ in _names(text, MODALITY_WORDS) if _holds(stand, before)]
    return _judged(said, lambda name: same_modality(name, true), every=True)


def _organ(text: str, true: str) -> Naming | None:
    """An organ is named likewise; where several are, one that fits is enough, and a healthy one is no wrong one."""
    if not true:
        return None
    found = [one for one in _names(text, ORGAN_WORDS) if _holds(one[1], one[2])]
    found = [one for one in found if one[0] not in UNSPECIFIC or one[0] == true]
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
        if stand == "affirmed" and not _well(before, after) and not _SAYS.search(before)
    ]
    if true == "both" and {"left", "right"} <= set(said):
        return "right"
    return _judged(said, lambda name: name == true, every=True)


def _holds(stand: Stand, before: str) -> bool:
    return stand == "affirmed" or (stand == "denied" and bool(_PLACED.search(before)))


def _well(before: str, after: str) -> bool:
    return bool(WELL_BEFORE.search(before) or WELL_AFTER.match(after))


def _judged(said: Sequence[str], fits: Callable[[str], bool], every: bool) -> Naming:
    if not said:
        return "not named"
    right = [fits(name) for name in said]
    return "right" if (all(right) if every else any(right)) else "wrong"
