"""Says what an open question asks for, and cuts an answer down to it: the plane, the side, how many, how large.

Knows a question and one sentence of a reply at a time. Which sentence of a reply counts is decided in open_answer.py.
"""

from __future__ import annotations

import re

from .equivalents import other_names
from .reply_text import CJK, NUMBERS, word_set, words, words_at

_NUMBER = rf"(?:\d+|{'|'.join(sorted(NUMBERS, key=len, reverse=True))})"
_ASKED_ONE = re.compile(
    r"\b(?:what|which)\s+(?:(?:is|are|was)\s+the\s+)?(?:(?:type|kind)\s+of\s+)?(?:imaging\s+)?"
    r"(?P<noun>side|plane|level|sequence|view|projection|orientation|color|colour|phase|modality|stain)\b",
    re.IGNORECASE,
)
_ASKED_NOUN = re.compile(r"\b(?:what|which)\s+(?:(?:type|kind)\s+of\s+)?(\w+)", re.IGNORECASE)
_ASKED_OF = re.compile(r"\bwhat\s+(?:is|are|was|were)\s+the\s+(?:\w+\s+)??(?P<head>\w+)\s+of\b", re.IGNORECASE)
_HOW_MANY = re.compile(r"\bhow\s+many\s+(?:\w+\s+){0,3}?(?P<thing>\w+s)\b", re.IGNORECASE)
_HOW_MUCH = re.compile(
    r"^\W*(?:how\s+(?:large|big|long|wide|thick|many|much|old)|what\s+(?:is\s+the\s+)?(?:size|diameter|length|width|angle|volume))",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    r"\d+(?:\.\d+)?(?:\s?(?:x|\u00d7|by|-|to)\s?\d+(?:\.\d+)?)*\s?(?:mm|cm|m|ml|mL|cc|%|degrees?|weeks?|years?|months?|days?|HU)(?!\w)"
)
_IN_THE = re.compile(r"^(?:in|on|at|within)\s+(?=(?:the|a|an)\s)", re.IGNORECASE)
_KIND_OF = re.compile(
    r"^(?:an?\s+)?(?:case|type|form|kind|example)\s+of\s+|^(?:because\s+of|due\s+to|secondary\s+to)\s+", re.IGNORECASE
)
_PARTICIPLE = re.compile(r"^(\w+(?:ed|en|n|ing))\s+(?:in|on|at|to|towards?|with|by|from|using|as)\s+", re.IGNORECASE)
_MADE = word_set("obtained acquired taken produced performed captured made")
_ACRONYM = re.compile(r"^((?:an?\s+|the\s+)?[A-Z][A-Z\-]+)\s+(?:scan|image|imaging)$")
LINKS = word_set(
    "the a an of is are was were has have had can found identified in on at to this that it there be been "
    "being by with from as used shown seen visible "
    "located situated here image picture scan these we can see i"
)
NO_CONTENT = word_set("the a an of is are was were in on at this it to what which where how that image")
PREFIX = re.compile(r"^.*?\b(?:therefore|thus|hence|so|consequently|based\s+on\s+[^,]*)\b,?\s+", re.IGNORECASE)
_CUT = re.compile(
    r"\s*(?:[;,]|:\s|\s-\s|\b(?:because|since|although|though|which|where|while|whereas|but|as\s+(?:shown|seen|evidenced))\b).*$",
    re.IGNORECASE | re.DOTALL,
)
BRACKETS = re.compile(r"\s*\([^()]*\)")
_GLOSS = re.compile(r"^(.*?\S)\s*\([^()]*\)\s*$", re.DOTALL)
_ABOUT = re.compile(r"^(?:about|approximately|approx\.?|around|roughly|circa|nearly|~)\s*(?=\d)", re.IGNORECASE)


def trimmed(text: str) -> str:
    """Return a stated answer without quotes, full stop, a gloss in brackets and "about" before a number."""
    short = re.sub(r"\*\*|__|`", "", text).strip(" \t\n\"'*")
    short = re.sub(r"(?<!\.[A-Za-z])[.\u3002]+$", "", short).strip()
    glossed = _GLOSS.match(short)
    return _ABOUT.sub("", glossed.group(1) if glossed else short).strip(" \"'")


def short_answer(text: str, question: str) -> str | None:
    """Return the answer up to the end of its clause, without a place that the question already names."""
    short = _CUT.sub("", BRACKETS.sub("", text)).strip()
    placed = re.match(r"^(.*\S)\s+(?:in|on|of|at)\s+(.+)$", short)
    if placed and set(words(placed.group(2))) <= set(words(question)):
        short = placed.group(1)
    return trimmed(asked_for(unframed(short), question)) or None


def unframed(text: str) -> str:
    """Return a text without the "in" of "in the left lung", "a case of" and "due to" that open it."""
    return _KIND_OF.sub("", _IN_THE.sub("", text))


def asked_for(answer: str, question: str) -> str:
    """Return an answer without the noun that the question asks by ("axial plane"), and "CT" of "CT scan"."""
    answer = re.sub(_ACRONYM, r"\1", answer)
    taken = _PARTICIPLE.match(answer)
    if taken and (taken.group(1).lower() in words(question) or taken.group(1).lower() in _MADE):
        answer = answer[taken.end() :]
    noun = _ASKED_ONE.search(question)
    if noun is None or other_names(words(answer)):
        return answer
    tail = rf"(?<=\w)\s+(?:{noun.group('noun')}s?|image|imaging|slice|section|scan)\s*$"
    return re.sub(tail, "", answer, flags=re.IGNORECASE)


def counted(text: str, question: str) -> set[str]:
    """Return the numbers that count what a "how many" question asks for, as "two large kidneys" does."""
    many = _HOW_MANY.search(question)
    if many is None:
        return set()
    thing = re.escape(many.group("thing")[:-1])
    pattern = rf"(?<![\w.])({_NUMBER})\s+(?:(?!and\b|or\b|of\b)[\w\-]+\s+){{0,2}}?{thing}s?\b"
    return {found.group(1).lower() for found in re.finditer(pattern, text, re.IGNORECASE)}


def quantity(text: str, question: str) -> str | None:
    """Return the only quantity with a unit, where the question asks how large, how old or how long."""
    found = {one.group() for one in _QUANTITY.finditer(text)}
    return found.pop() if len(found) == 1 and _HOW_MUCH.match(question) else None


def of_the_head(sentences: list[str], question: str) -> list[str]:
    """Return the sentences that begin with the head X of "what is the X of ...?"; all where none does."""
    head = _ASKED_OF.search(question)
    if head is None:
        return sentences
    begins = re.compile(rf"\W*(?:\w+\s+)?{re.escape(head.group('head'))}\b", re.IGNORECASE)
    return [sentence for sentence in sentences if begins.match(sentence)] or sentences


def added(sentence: str, question: str) -> str | None:
    """Return what a sentence adds to the question whose words it repeats: one run of six words at most, else None."""
    if re.search(f"[{CJK}]", sentence):
        return None
    fragment = not has_verb(sentence)
    sentence = _CUT.sub("", BRACKETS.sub("", PREFIX.sub("", sentence, count=1))).strip()
    asked = [word for word in words(question) if word not in NO_CONTENT]
    said = words_at(sentence)
    old = [any(_stem(word) == _stem(want) for want in asked) for word, _, _ in said]
    new = [not known and word not in LINKS for known, (word, _, _) in zip(old, said, strict=True)]
    if not any(old) or not any(new) or any(word in ("no", "not", "or") for word, _, _ in said):
        return None
    first, last = new.index(True), len(new) - 1 - new[::-1].index(True)
    if last - first >= 6 or any(old[first : last + 1]) or (fragment and (sum(old[:first]) < 2 or any(old[last:]))):
        return None
    noun = _ASKED_NOUN.search(question)
    if noun and [word for word, _, _ in said[last + 1 : last + 2]] == [noun.group(1).lower()]:
        last += 1
    return asked_for(sentence[said[first][1] : said[last][2]], question)


def _stem(word: str) -> str:
    return re.sub(r"(?:ing|ed|es|e|s)$", "", word) if len(word) > 3 else word


def has_verb(sentence: str) -> bool:
    """Return whether the first clause has a verb that could tell something."""
    return bool(
        re.search(
            r"\b(?:is|are|was|were|has|have|shows?|appears?|seems?|can|do|does|would|suggests?|indicates?|represents?|"
            r"looks?|measures?|demonstrates?|reveals?|see|think|\w+ed)\b|[\u3400-\u9fff]",
            _CUT.sub("", sentence),
            re.IGNORECASE,
        )
    )
