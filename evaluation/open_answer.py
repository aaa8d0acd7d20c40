"""Finds the short answer in a reply to an open question, where a clear rule says which words it is.

A statement; one span in bold; "called "X""; "most likely X"; "not X but Y"; a sentence whose subject repeats the
question and whose verb is a copula or says where, or how large. Otherwise the whole reply is compared as it is.
"""

from __future__ import annotations

import re

from .open_asked import (
    BRACKETS,
    LINKS,
    NO_CONTENT,
    PREFIX,
    added,
    asked_for,
    counted,
    has_verb,
    of_the_head,
    quantity,
    short_answer,
    trimmed,
    unframed,
)
from .reply_text import Readable, sentences, word_set, words
from .silence import broken_off, declines, undecided
from .stated import Statement, named_field, settled, statements

_BOLD = re.compile(r"\*\*([^*\n]+?)\*\*|__([^_\n]+?)__")
_QUOTED = re.compile(
    r"\b(?:called|named|known\s+as|termed|labell?ed|reads?|says)\s+(?:the\s+|an?\s+)?\"([^\"\n]+)\"", re.IGNORECASE
)
_BEST = re.compile(
    r"\b(?:the|my)\s+(?:most\s+(?:likely|probable|plausible)|leading|main|working|primary)\s+"
    r"(?:\w+\s+)?(?:diagnosis|finding|abnormality|cause|explanation|condition|disease|impression)\s+(?:here\s+)?"
    r"(?:is|would\s+be)\s+(?P<is>.+)$",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^[A-Z]\w+(?:\s\w+)?:\s+(.+)$")
_LIKELY = re.compile(
    r"^\W*(?:this\s+is\s+|it\s+is\s+)?(?:most\s+likely|most\s+probably|probably|likely)\s+(.+)$", re.IGNORECASE
)
_SAID = re.compile(
    r"^\W*i\s+(?:would\s+(?:say|guess)|think|believe|suspect)\s+(?:that\s+)?(?:(?:it|this)\s+is\s+)?(?!it\b|this\b|there\b|the\b|so\b|not\b)(.+)$",
    re.IGNORECASE,
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
    r"^(?P<of>[^,;:]*?)\b(?:is|are|was|were|would\s+be|appears?|looks?|seems?|measures?)\s+(?:to\s+be\s+|like\s+)?"
    r"(?:(?:most\s+)?(?:likely|probably)\s+)?(?:(?:located|situated|found|seen|centered|centred)\s+(?:in|on|at|within)\s+"
    r"|stained\s+with\s+|caused\s+by\s+|due\s+to\s+|called\s+|known\s+as\s+)?(?P<is>.+)$",
    re.IGNORECASE,
)
_SHOWS = re.compile(r"^(?P<of>[^,;:]*?)\b(?:shows?|demonstrates?|reveals?|depicts?)\s+(?P<is>.+)$", re.IGNORECASE)
_GENERIC = word_set("this it image picture scan study radiograph film view photograph section slide these")
_HEDGED = re.compile(r"\b(?:no|not|without|could|may|might|or|either|possibl[ey]|versus|vs)\b", re.IGNORECASE)
_IS_BEST = re.compile(
    r"^(?P<is>[^,;:]+?)\s+(?:is|are|was|would\s+be)\s+(?:the|my)\s+(?:most\s+(?:likely|probable)|leading|best|main)\b",
    re.IGNORECASE,
)
_FITS = re.compile(
    r"\b(?:(?:consistent|compatible|in\s+keeping)\s+with|suggests?|indicates?|represents?)\s+(?!that\b|there\b)(?P<is>.+)$"
    r"|\b(?:suggestive|indicative|diagnostic|characteristic|typical|pathognomonic)\s+of\s+(?P<of>.+)$",
    re.IGNORECASE,
)
_THERE = re.compile(
    r"^(?:there\s+(?:is|are)|(?:i|we)\s+(?:can\s+)?see|(?:the\s+patient|he|she)\s+has)\s+(?P<is>.+)$"
    r"|^(?P<of>(?:an?|the)\s+[^,;:]+?)\s+(?:is|are|can\s+be)\s+(?:seen|visible|present|noted|identified|evident)\b",
    re.IGNORECASE,
)
_ASKS_WHAT = re.compile(
    r"\b(?:diagnos[ei]s|abnormality|abnormalities|abnormal|finding|findings|disease|condition|pathology|lesion|problem|wrong|seen|shown|visible)\b",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"^\W*(?:either\b.{0,200}\bor\b)|\b(?:could|may|might)\s+(?:also\s+)?be\b.{0,200}\bor\b|\bdifferential\b",
    re.IGNORECASE | re.DOTALL,
)
_CHINESE = re.compile("^(?:.*(?:因此|所以|故))?[^,;]*?(?:是|为|位于|在于)([^,;.]+)[.]?\\s*$")


def open_answer(text: Readable, question: str = "") -> tuple[str | None, str]:
    """Return (answer, rule): the short answer, else the whole reply; (None, "invalid") where it says nothing."""
    found = statements(text)
    if found:
        return _stated(text, found)
    whole = text.marked.strip()
    if field := named_field(whole, question):
        return trimmed(field), "json"
    if not re.search(r"\w", whole) or text.noisy or declines(text.plain) or _only_doubts(text.plain):
        return None, "invalid"
    if broken_off(text.plain):
        return None, "invalid"
    short = _marked(whole) or _sentence(text.plain, question)
    return (short, "short answer") if short else (asked_for(unframed(trimmed(whole)), question), "whole reply")


def _stated(text: Readable, found: list[Statement]) -> tuple[str | None, str]:
    if undecided(text.plain[found[-1].end :]):
        return None, "invalid"
    kept = settled(text.plain, found, lambda said: trimmed(said) or None)
    if kept is None or kept[0] is None:
        return None, "invalid"
    return kept[0], kept[1].rule


def _only_doubts(text: str) -> bool:
    return bool(_SEVERAL.search(text)) and not re.search(r"\bmost\s+(?:likely|probable)\b", text, re.IGNORECASE)


def _marked(text: str) -> str | None:
    """Return the one span in bold, or the one name in quotes."""
    bold = {(one.group(1) or one.group(2)).strip() for one in _BOLD.finditer(text)}
    named = {span for span in bold if not span.endswith(":")}
    if len(named) == 1 and len(bold) == 1 and len(next(iter(named)).split()) <= 8:
        return trimmed(next(iter(named)))
    quoted = {one.group(1).strip() for one in _QUOTED.finditer(text)}
    return quoted.pop() if len(quoted) == 1 else None


def _sentence(text: str, question: str) -> str | None:
    """Return the short answer of the only sentence that gives one; None where none does, or several differ."""
    spans = [text[a:b].strip().rstrip(".!") for a, b in sentences(text)]
    if not spans:
        return None
    first = spans[0]
    if len(spans) == 1 and (label := _LABEL.match(first)):
        return short_answer(label.group(1), question)
    for pattern in (_NOT_BUT, _LIKELY, _SAID):
        if found := pattern.match(first):
            return short_answer(found.group(1), question)
    for pattern in (_BEST, _IS_BEST):
        best = {one.group("is").lower(): one.group("is") for span in spans if (one := pattern.search(span))}
        if best:
            return short_answer(best.popitem()[1], question) if len(best) == 1 else None
    if numbers := counted(text, question):
        return numbers.pop() if len(numbers) == 1 else None
    if size := quantity(text, question):
        return size
    if not has_verb(first):
        if new := added(first, question):
            return new
        opened = _EXPLAINED.sub(r"\1", BRACKETS.sub("", first).split(";")[0]).strip()
        opened = asked_for(opened, question)
        return trimmed(opened) if len(spans) > 1 or opened != first else None
    spans = of_the_head(spans, question)
    told = {short.lower(): short for span in spans if (short := _of_question(span, question))}
    if not told:
        told = {short.lower(): short for span in spans if (short := added(span, question))}
    for pattern in (_FITS, _THERE):
        if not told and _ASKS_WHAT.search(question):
            told = {short.lower(): short for span in spans if (short := _shown(pattern, span, question))}
    return next(iter(told.values())) if len(told) == 1 else None


def _shown(pattern: re.Pattern[str], sentence: str, question: str) -> str | None:
    """Return X of "consistent with X" or "there is X", where nothing in the sentence is denied or doubted."""
    found = pattern.search(sentence)
    if found is None or _HEDGED.search(sentence):
        return None
    return short_answer(found.group("is") or found.group("of"), question)


def _of_question(sentence: str, question: str) -> str | None:
    """Return X of "S is X", where S repeats words of the question or names the image."""
    if chinese := _CHINESE.match(sentence):
        return chinese.group(1).strip()
    if seen := _SEEN.match(sentence):
        return seen.group(1)
    sentence = PREFIX.sub("", sentence, count=1)
    found = _COPULA.match(sentence) or _SHOWS.match(sentence)
    if not found:
        return None
    subject = [word for word in words(found.group("of")) if word not in NO_CONTENT]
    asked = set(words(question))
    if re.match(r"\s*there\b", found.group("of"), re.IGNORECASE) or re.match(
        r"(?:not|no|used|shown)\b", found.group("is")
    ):
        return None
    if set(words(found.group("is"))) <= asked | LINKS:
        return None
    if not (set(subject) & asked or set(words(found.group("of"))) & _GENERIC):
        return None
    return short_answer(found.group("is"), question)
