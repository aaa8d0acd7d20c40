"""Reads which option a reply to a choice question says: what it states, opens with, concludes, or alone affirms.

In order: a statement; the whole reply is an option; what the reply opens with; its conclusion, or its verdict on each
option; the one option it affirms; the one left when all others are rejected. Two options at a step are INVALID.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from .mentions import MOST, Mention, marked_sentence, mentions
from .polarity import MARK, Reading, reading
from .reply_text import Readable, sentences, word_set, words
from .silence import declines, undecided
from .stated import CORRECTION, settled, statements
from .yes_no import yes_or_no

_ASKS_WHICH_NOT = re.compile(
    r"\b(?:EXCEPT|NOT|LEAST)\b|\b(?i:except|least\s+likely|ruled?\s+out|excluded?|incorrect|false|untrue|unlikely|"
    r"(?:is|are|does|do|was|were|can)(?:\s+not|n't))\b"
)
_OPENING = re.compile(r"^\W*(?:(?:option|choice|letter|most\s+likely|probably|likely|the|an?)\W+)*$", re.IGNORECASE)
_AFTER_OPENING = re.compile(
    r"^\s*(?:$|[.,;!(\n\"]|-\s|:\s|because\b|since\b|as\b|with\b|though\b|although\b|based\b|due\b|given\b|not\b)",
    re.IGNORECASE,
)
_ANOTHER = re.compile(
    rf"^\s*(?:[,/&+()和或与及]|and\b|or\b|plus\b)\s*(?:(?:and|or|the|an?|maybe|perhaps|possibly|even|also)\s+)*{MARK}",
    re.IGNORECASE,
)
_EXCEPTED = re.compile(r"\b(?:exception|odd\s+one\s+out)\s+(?:here\s+)?is\W*(?:option\s+|the\s+)?$", re.IGNORECASE)
_OR_ELSE = re.compile(rf"^\s*[,(]?\s*or\s+(?:maybe|perhaps|possibly|even)\s+(?:the\s+|an?\s+)?{MARK}", re.IGNORECASE)
_REJECTS = re.compile(
    r"\W*(?:why\s+(?:not\s+)?)?(?:the\s+)?(?:other|others|remaining|incorrect|wrong|alternative|rejected)\b[^.\n]*"
    r"(?:option|choice|answer|diagnos[ei]s|alternative|others)?[^.\n]*:\W*",
    re.IGNORECASE,
)
_LETTER_FIRST = re.compile(r"\W*(?:option\s+)?([A-Z])[.)]\s+(?=[A-Z])")
_EMPTY = word_set("no not a an the and or of in on is it this")
_NEW_LINE = re.compile(r"(?:^|\n)\W*$")


def choose(text: Readable, options: Sequence[str], question: str = "") -> tuple[str | None, str]:
    """Return (option, rule); (None, "invalid") where the reply settles on none."""
    stated = settled(
        text.plain, statements(text), lambda said: _free(_lettered(said, options), options, question, stated=True)[0]
    )
    if stated is not None:
        answer, last = stated
        return _corrected(text.plain[last.end :], options, question, (answer, last.rule))
    if text.noisy:
        return None, "invalid"
    return _free(text.plain, options, question)


def _lettered(said: str, options: Sequence[str]) -> str:
    """Return the letter of "A. However, ...", where the sentence behind it names no other option; else the text."""
    opens = _LETTER_FIRST.match(said)
    if opens is None or mentions(said[opens.end() :], options) or CORRECTION.search(said):
        return said
    return opens.group(1)


def _corrected(
    rest: str, options: Sequence[str], question: str, found: tuple[str | None, str]
) -> tuple[str | None, str]:
    """Return what stands after a correction, where the rest of the reply holds one; else what was found before."""
    turns = list(CORRECTION.finditer(rest))
    if found[0] is None or undecided(rest):
        return None, "invalid"
    if not turns:
        return found
    return _free(rest[turns[-1].end() :], options, question)


def _free(text: str, options: Sequence[str], question: str, stated: bool = False) -> tuple[str | None, str]:
    whole = _whole(text, options, stated)
    if whole is not None:
        return whole
    turns = list(CORRECTION.finditer(text))
    if turns:
        text = text[turns[-1].end() :]
    text = _without_rejected(text, options)
    found = mentions(text, options, words(question))
    if _yes_no_options(options) and not any(one.option is not None and one.lettered for one in found):
        return _said_yes_or_no(text, options, question, found)
    if not found or len(found) > MOST or any(one.conflict for one in found):
        return None, "invalid"
    bare = text
    for one in reversed(found):
        bare = bare[: one.start] + MARK * (one.end - one.start) + bare[one.end :]
    readings = [reading(*marked_sentence(text, found, one)) for one in found]
    commits = (
        one.start for one, read in zip(found, readings, strict=True) if read.stand == "affirmed" and read.decided
    )
    if declines(bare) > max(commits, default=0):
        return None, "invalid"
    negative = not stated and bool(_ASKS_WHICH_NOT.search(question))
    picked, rule = _picked(text, found, readings, len(options), negative)
    return (options[picked], rule) if picked is not None else (None, "invalid")


def _without_rejected(text: str, options: Sequence[str]) -> str:
    """Return a text without its list of the other options, under a heading like "Why the others are wrong:"."""
    lines, kept, listing = text.split("\n"), [], False
    for line in lines:
        if listing and line.strip():
            one = next(iter(mentions(line, options)), None)
            listing = one is not None and not line[: one.start].strip(" \t(")
        if _REJECTS.fullmatch(line):
            listing = True
        elif not listing:
            kept.append(line)
    return "\n".join(kept)


def _whole(text: str, options: Sequence[str], stated: bool) -> tuple[str | None, str] | None:
    """Return the option that is the whole text, by its words or its letter; None where the text is more."""
    if text.rstrip().endswith("?"):
        return None, "invalid"
    said = words(text)
    equal = [option for option in options if said and words(option) == said]
    equal = [option for option in equal if option.casefold() == text.strip().casefold()] or equal
    if len(equal) == 1:
        return equal[0], "option text"
    told = [option for option in options if said and _tells(said, words(option), [words(one) for one in options])]
    if len(told) == 1:
        return told[0], "option text"
    bare = re.fullmatch(r"\W*(?:option\s+)?\(?\s*([A-Za-z])\s*\)?\s*[.:]?\W*", text, re.IGNORECASE)
    if bare:
        index = ord(bare.group(1).upper()) - ord("A")
        return (options[index], "letter") if index < len(options) else (None, "invalid")
    return None


def _tells(said: Sequence[str], option: Sequence[str], options: Sequence[Sequence[str]]) -> bool:
    """Return whether the words are an option's first ones ("left" of "left lung"), or all that sets it apart."""
    if len(said) >= len(option) or set(said) <= _EMPTY or not set(said) - {"a"}:
        return False
    shared = set.intersection(*(set(one) for one in options))
    return option[: len(said)] == list(said) or [word for word in option if word not in shared] == list(said)


def _yes_no_options(options: Sequence[str]) -> bool:
    return {"yes", "no"} <= {option.strip().lower() for option in options}


def _said_yes_or_no(
    text: str, options: Sequence[str], question: str, found: Sequence[Mention]
) -> tuple[str | None, str]:
    """Return the option yes or no, read as of a yes/no question, or the other option that the reply opens with."""
    others = [
        one for one in found if one.option is not None and options[one.option].strip().lower() not in ("yes", "no")
    ]
    if others:
        opens = not text[: others[0].start].strip() and len({one.option for one in others}) == 1
        return (options[others[0].option or 0], "opening") if opens else (None, "invalid")
    said, rule = yes_or_no(Readable(text, text), question)
    return next(((option, rule) for option in options if option.strip().lower() == said), (None, "invalid"))


def _picked(
    text: str, found: Sequence[Mention], readings: Sequence[Reading], count: int, negative: bool
) -> tuple[int | None, str]:
    """Return (index of the option, rule). negative: the question asks which option does not hold."""

    def named(stand: str, decided: bool = False) -> set[int | None]:
        return {
            m.option for m, r in zip(found, readings, strict=True) if r.stand == stand and (r.decided or not decided)
        }

    def only(chosen: Set[int | None], rule: str) -> tuple[int | None, str]:
        return (next(iter(chosen)), rule) if len(chosen) == 1 and None not in chosen else (None, "invalid")

    affirmed, denied = named("affirmed"), named("denied")
    if _opens(text, found, readings):
        return only({found[0].option}, "opening")
    decided = named("affirmed", decided=True)
    if not decided and any(_OR_ELSE.match(marked_sentence(text, found, one)[1]) for one in found):
        return None, "invalid"
    if negative:
        excepted = {m.option for m in found if _EXCEPTED.search(text[: m.start])}
        if excepted:
            return only(excepted, "rejected")
        if len(denied) == 1 and len(affirmed) == count - 1 and not denied & affirmed:
            return only(denied, "rejected")
        if decided and not decided <= denied:
            return (None, "invalid")
        rest = set(range(count)) - affirmed
        if not denied and len(rest) == 1 and affirmed and not rest & {m.option for m in found}:
            return only(rest, "elimination")
        return only(denied, "rejected")
    if decided:
        return only(decided, "concluded")
    if affirmed - denied:
        return only(affirmed - denied, "option text") if not affirmed & denied else (None, "invalid")
    doubted = named("doubted") - denied
    if doubted:
        return only(doubted, "option text")
    left = set(range(count)) - denied
    if len(left) == 1 and count > 1 and not affirmed and not left & {m.option for m in found}:
        return next(iter(left)), "elimination"
    return None, "invalid"


def _opens(text: str, found: Sequence[Mention], readings: Sequence[Reading]) -> bool:
    """Return whether the reply opens with an option that stands for itself, and no later line opens with another."""
    first, stand = found[0], readings[0]
    if not _OPENING.match(text[: first.start]) or stand.stand != "affirmed":
        return False
    before, after = marked_sentence(text, found, first)
    rest = text[first.end :]
    if not _AFTER_OPENING.match(rest) and not (first.lettered and not before.strip(" ([")):
        return False
    if _ANOTHER.match(after):
        return False
    own = next((end for begin, end in sentences(text) if begin <= first.start < end), len(text))
    others = [(one, read) for one, read in zip(found, readings, strict=True) if one.option != first.option]
    if any(one.start < own and read.stand == "affirmed" for one, read in others):
        return False
    return not any(read.stand == "affirmed" and _NEW_LINE.search(text[: one.start]) for one, read in others)
