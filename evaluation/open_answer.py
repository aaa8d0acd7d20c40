"""Finds the short answer in a reply to an open question, where a clear rule says which words it is.

A statement; one span in bold; "called "X""; "most likely X"; "not X but Y"; a sentence whose subject repeats the
question and whose verb is a copula or says where, or how large. Otherwise the whole reply is compared as it is.
"""

from __future__ import annotations

import re

from .reply_text import Readable, sentences, word_set, words
from .silence import broken_off, declines
from .stated import Statement, statements

_BOLD = re.compile(r"\*\*([^*\n]+?)\*\*|__([^_\n]+?)__")
_QUOTED = re.compile(
    r"\b(?:called|named|known\s+as|termed|labell?ed|reads?|says)\s+(?:the\s+|an?\s+)?\"([^\"\n]+)\"", re.IGNORECASE
)
_LIKELY = re.compile(
    r"^\W*(?:this\s+is\s+|it\s+is\s+)?(?:most\s+likely|most\s+probably|probably|likely)\s+(.+)$", re.IGNORECASE
)
_NOT_BUT = re.compile(r"^\W*not\s+[^,.;]+?,?\s+but\s+(.+)$", re.IGNORECASE)
_EXPLAINED = re.compile(
    r"^([^,]+?),\s+(?:(?:and\s+|but\s+)?not|because|since|which|as|\w+ing)\b.*$", re.IGNORECASE | re.DOTALL
)
_SEEN = re.compile(
    r"^(?:there\s+(?:is|are)\s+)?(no\s+[\w\- ]+?)\s+(?:is|are|was|were|can\s+be)\s+"
    r"(?:seen|visible|present|identified|noted|detected|evident)\b.*$",
    re.IGNORECASE,
)
_COPULA = re.compile(
    r"^(?P<of>[^,;:]*?)\b(?:is|are|was|were|appears?|looks?|seems?|measures?)\s+(?:to\s+be\s+|like\s+)?"
    r"(?:(?:most\s+)?(?:likely|probably)\s+)?(?:(?:located|situated|found|seen|centered|centred)\s+(?:in|on|at|within)\s+"
    r"|stained\s+with\s+|caused\s+by\s+|due\s+to\s+|called\s+|known\s+as\s+)?(?P<is>.+)$",
    re.IGNORECASE,
)
_SHOWS = re.compile(r"^(?P<of>[^,;:]*?)\b(?:shows?|demonstrates?|reveals?|depicts?)\s+(?P<is>.+)$", re.IGNORECASE)
_GENERIC = word_set("this it image picture scan study radiograph film view photograph section slide these")
_NO_CONTENT = word_set("the a an of is are was were in on at this it to what which where how that image")
_PREFIX = re.compile(r"^.*?\b(?:therefore|thus|hence|so|consequently|based\s+on\s+[^,]*)\b,?\s+", re.IGNORECASE)
_CUT = re.compile(
    r"\s*(?:[;,]|:\s|\s-\s|\b(?:because|since|although|though|which|where|while|whereas|but|as\s+(?:shown|seen|evidenced))\b).*$",
    re.IGNORECASE | re.DOTALL,
)
_ABOUT = re.compile(r"^(?:about|approximately|approx\.?|around|roughly|circa|nearly|~)\s*(?=\d)", re.IGNORECASE)
_QUANTITY = re.compile(
    r"\d+(?:\.\d+)?(?:\s?(?:x|\u00d7|by|-|to)\s?\d+(?:\.\d+)?)*\s?(?:mm|cm|m|ml|mL|cc|%|degrees?|weeks?|years?|months?|days?|HU)(?!\w)"
)
_HOW_MUCH = re.compile(
    r"^\W*(?:how\s+(?:large|big|long|wide|thick|many|much|old)|what\s+(?:is\s+the\s+)?(?:size|diameter|length|width|angle|volume))",
    re.IGNORECASE,
)
_GLOSS = re.compile(r"^(.*?\S)\s*\([^()]*\)\s*$", re.DOTALL)
_BRACKETS = re.compile(r"\s*\([^()]*\)")
_SEVERAL = re.compile(
    r"\b(?:could|may|might)\s+(?:also\s+)?be\b.{0,200}\bor\b|\bdifferential\b", re.IGNORECASE | re.DOTALL
)
_CHINESE = re.compile("^(?:.*(?:因此|所以|故))?[^,;]*?(?:是|为|位于|在于)([^,;.]+)[.]?\\s*$")


def open_answer(text: Readable, question: str = "") -> tuple[str | None, str]:
    """Return (answer, rule): the short answer, else the whole reply; (None, "invalid") where it says nothing."""
    found = statements(text)
    if found:
        return _stated(text, found)
    whole = text.marked.strip()
    if not re.search(r"\w", whole) or text.noisy or declines(text.plain) or _only_doubts(text.plain):
        return None, "invalid"
    if broken_off(text.plain):
        return None, "invalid"
    short = _marked(whole) or _sentence(text.plain, question)
    return (short, "short answer") if short else (_trimmed(whole), "whole reply")


def _stated(text: Readable, found: list[Statement]) -> tuple[str | None, str]:
    from .stated import settled

    kept = settled(text.plain, found, lambda said: _trimmed(said) or None)
    if kept is None or kept[0] is None:
        return None, "invalid"
    return kept[0], kept[1].rule


def _only_doubts(text: str) -> bool:
    return bool(_SEVERAL.search(text)) and not re.search(r"\bmost\s+likely\b", text, re.IGNORECASE)


def _trimmed(text: str) -> str:
    """Return a stated answer without quotes, full stop, a gloss in brackets and "about" before a number."""
    short = re.sub(r"\*\*|__|`", "", text).strip(" \t\n\"'*")
    short = re.sub(r"(?<!\.[A-Za-z])[.\u3002]+$", "", short).strip()
    glossed = _GLOSS.match(short)
    return _ABOUT.sub("", glossed.group(1) if glossed else short).strip(" \"'")


def _marked(text: str) -> str | None:
    """Return the one span in bold, or the one name in quotes."""
    bold = {(one.group(1) or one.group(2)).strip() for one in _BOLD.finditer(text)}
    named = {span for span in bold if not span.endswith(":")}
    if len(named) == 1 and len(bold) == 1 and len(next(iter(named)).split()) <= 8:
        return _trimmed(next(iter(named)))
    quoted = {one.group(1).strip() for one in _QUOTED.finditer(text)}
    return quoted.pop() if len(quoted) == 1 else None


def _sentence(text: str, question: str) -> str | None:
    """Return the short answer of the only sentence that gives one; None where none does, or several differ."""
    spans = [text[a:b].strip().rstrip(".!") for a, b in sentences(text)]
    if not spans:
        return None
    first = spans[0]
    for pattern in (_NOT_BUT, _LIKELY):
        if found := pattern.match(first):
            return _short(found.group(1), question)
    quantities = {one.group() for one in _QUANTITY.finditer(text)}
    if len(quantities) == 1 and _HOW_MUCH.match(question):
        return quantities.pop()
    if not _verb(first):
        opened = _EXPLAINED.sub(r"\1", _BRACKETS.sub("", first).split(";")[0]).strip()
        return _trimmed(opened) if len(spans) > 1 or opened != first else None
    told = {short.lower(): short for span in spans if (short := _of_question(span, question))}
    return next(iter(told.values())) if len(told) == 1 else None


def _verb(sentence: str) -> bool:
    head = _CUT.sub("", sentence)
    return bool(
        re.search(
            r"\b(?:is|are|was|were|has|have|shows?|appears?|seems?|can|do|does|looks?|measures?|demonstrates?|reveals?|see|think|\w+ed)\b|[\u3400-\u9fff]",
            head,
            re.IGNORECASE,
        )
    )


def _of_question(sentence: str, question: str) -> str | None:
    """Return X of "S is X", where S repeats words of the question or names the image."""
    if chinese := _CHINESE.match(sentence):
        return chinese.group(1).strip()
    if seen := _SEEN.match(sentence):
        return seen.group(1)
    sentence = _PREFIX.sub("", sentence, count=1)
    found = _COPULA.match(sentence) or _SHOWS.match(sentence)
    if not found:
        return None
    subject = [word for word in words(found.group("of")) if word not in _NO_CONTENT]
    asked = set(words(question))
    if re.match(r"\s*there\b", found.group("of"), re.IGNORECASE) or re.match(
        r"(?:not|no|used|shown)\b", found.group("is")
    ):
        return None
    if not (set(subject) & asked or set(words(found.group("of"))) & _GENERIC):
        return None
    return _short(found.group("is"), question)


def _short(text: str, question: str) -> str | None:
    """Return the answer up to the end of its clause, without a place that the question already names."""
    short = _CUT.sub("", _BRACKETS.sub("", text)).strip()
    placed = re.match(r"^(.*\S)\s+(?:in|on|of|at)\s+(.+)$", short)
    if placed and set(words(placed.group(2))) <= set(words(question)):
        short = placed.group(1)
    short = re.sub(r"^(?:in|on|at|within)\s+(?=(?:the|a|an)\s)", "", short)
    return _trimmed(short) or None
