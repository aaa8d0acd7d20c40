"""Decides by words alone whether an answer follows from the reasoning before it, or contradicts it.

The rules that read answers (extraction.py) read the reasoning; what they find is held against the answer. Where they
find nothing as it stands, the reasoning is read again with fewer words: without clauses that say something is healthy,
without the places of a finding (a finding anywhere answers "is there one?", its absence somewhere does not). What then
still says nothing is undecidable: medicine is not inferred. Knows no record and no run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from .asked import asked
from .extraction import extract
from .mentions import marked_sentence, mentions
from .polarity import reading
from .rationale_words import SIDE_WORDS, WELL_AFTER, WELL_BEFORE, without_idioms
from .reply_text import NUMBERS, sentences, words

Follows = Literal["consistent", "contradicts", "undecidable"]
FOLLOWS: tuple[Follows, ...] = ("consistent", "contradicts", "undecidable")
COMPARED = re.compile(r"\bcompared\s+(?:with|to)\s+(?:the\s+)?(?:prior|previous|earlier)\b", re.IGNORECASE)
_CLAUSE = re.compile(r"[^.,;:\n]+[.,;:\n]*")
_NONE_THERE = re.compile(r"^\s*(?:none|nothing)\b", re.IGNORECASE)
_PLACE = re.compile(
    r"\s(?:on|in|of|at|within|along|over)\s+(?:the|this|an?|its|both)\s+[\w\- ]+?"
    r"(?=\s+(?:is|are|was|were|with|and|but|has|have|which|that)\b|[.,;:]|$)",
    re.IGNORECASE,
)
_SINGLE = re.compile(r"\b(?:a|the)\s+(?:single|solitary)\b|\b(?:single|solitary)\b", re.IGNORECASE)
_HOW_MANY = re.compile(
    r"^\W*(?:how\s+many|what\s+is\s+the\s+number\s+of)\s+(?:\w+\s+)*?(\w+)\s+(?:are|is|can|do)\b", re.IGNORECASE
)
_ASKS = ("is", "are", "was", "were", "has", "have", "does", "do", "can")


def follows(text: str, answer: str | None, answer_type: str, options: Sequence[str], question: str) -> Follows:
    """Return whether an answer follows from a reasoning in plain text. answer: as extracted, None where INVALID."""
    if answer is None:
        return "undecidable"
    if answer_type == "open":
        found = mentions(text, [answer], words(question))
        stands = {reading(*marked_sentence(text, found, one)).stand for one in found}
        return "consistent" if "affirmed" in stands else "contradicts" if stands == {"denied"} else "undecidable"
    said = next(_said(text, answer_type, options, question), None)
    if said is None:
        return "undecidable"
    return "consistent" if said == answer else "contradicts"


def _said(text: str, answer_type: str, options: Sequence[str], question: str) -> Iterator[str]:
    """Yield what the reasoning says of the question: read as it stands first, then with ever fewer words."""
    text = COMPARED.sub("on the", text)
    if any(pattern.search(option) for option in options for pattern in SIDE_WORDS.values()):
        text = without_idioms(text)

    def read(told: str) -> Iterator[str]:
        found = extract(told, answer_type=answer_type, options=options, question=question)
        if found.answer is not None and not (found.rule == "option text" and _adds_up(told, options)):
            yield found.answer

    yield from read(text)
    if answer_type == "yesno":
        yield from _repeated(text, question)
        wanted = asked(question)
        present = {"there": "yes", "is": "yes", "absent": "no"}.get(wanted.kind if wanted else "")
        yield from (found for found in read(_PLACE.sub("", text)) if found == present)
    else:
        counted = _counted(text, options, question)
        yield from read(counted) if counted != text else ()
        yield from read(_without_healthy(counted, options))


def _without_healthy(text: str, options: Sequence[str]) -> str:
    """Return the text without clauses that call something healthy, or say that there is none, where no option does."""
    if any(re.search(r"\b(?:normal|clear|healthy|none|nothing)\b", option, re.IGNORECASE) for option in options):
        return text
    kept = [
        clause
        for clause in _CLAUSE.findall(text)
        if not (WELL_AFTER.match(clause) or WELL_BEFORE.search(clause) or _NONE_THERE.match(clause))
    ]
    return "".join(kept)


def _counted(text: str, options: Sequence[str], question: str) -> str:
    """Return the text with "a single" as one and, where nothing is there of what is counted, zero as a number."""
    asks = _HOW_MANY.match(question)
    if not asks or not all(option.strip().isdecimal() for option in options):
        return text
    none = re.compile(rf"\bno\s+(?:\w+\s+)?{re.escape(asks.group(1))}\b(?!\s+(?:on|in|of|at|within)\b)", re.IGNORECASE)
    return none.sub(f"0 {asks.group(1)}", _SINGLE.sub("1", text))


def _adds_up(text: str, options: Sequence[str]) -> bool:
    """Return whether a text gives several numbers where a number is asked: "one above and one below" is not one."""
    if not options or not all(option.strip().isdecimal() for option in options):
        return False
    return sum(word.isdecimal() or word in NUMBERS or word == "another" for word in words(text)) > 1


def _repeated(text: str, question: str) -> Iterator[str]:
    """Yield yes where a sentence says the question's own words as a statement, no where it says them with "not"."""
    last = [question[slice(*span)] for span in sentences(question)][-1:]
    said = words(last[0]) if last else []
    if len(said) < 4 or said[0] not in _ASKS:
        return
    verb, rest = said[0], said[1:]
    told: set[str] = set()
    for begin, end in sentences(text):
        spoken = words(text[begin:end])
        for place in range(1, len(rest)):
            subject, tail = rest[:place], rest[place:]
            stated = [verb, *tail] if verb not in ("does", "do") else [_third(tail[0], verb), *tail[1:]]
            told |= {"yes"} if _holds(spoken, [*subject, *stated]) else set()
            told |= {"no"} if _holds(spoken, [*subject, verb, "not", *tail]) else set()
    if len(told) == 1:
        yield told.pop()


def _third(word: str, verb: str) -> str:
    return f"{word}s" if verb == "does" else word


def _holds(spoken: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether a sentence is these words, before them at most one that joins it to the last ("so", "and")."""
    return any(list(spoken[start : start + len(wanted)]) == list(wanted) for start in (0, 1)) and (
        len(spoken) <= len(wanted) + 1
    )
