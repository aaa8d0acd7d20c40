"""Reads a yes/no question: what it asks for, and whether a yes means that it is there or that it is not.

"Is there a fracture of the clavicle?" asks for a fracture; "are the lungs free of nodules?" asks for their absence; "is
the study normal?" asks for a property. A question that fits no pattern is not read: an answer that needs it is INVALID.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .reply_text import plain, sentences, words

_BE = r"(?:is|are|was|were)"
_DET = (
    r"(?:(?:any|an?|the|some|definite|visible|signs?|evidence|findings?|features?|indications?|of|suggestion|obvious)"
    r"\s+)*"
)
_SEEN = (
    r"(?:present|seen|visible|visuali[sz]ed|identified|noted|detected|evident|apparent|shown|demonstrated|observed|found|"
    r"suspected|there|used|given|administered)"
)
_SHOW = (
    r"(?:show|have|contain|demonstrate|reveal|suggest|include|depict|exhibit|display|indicate|see|identify|find|detect|"
    r"notice)"
)
_TAIL = (
    r"(?:\s+(?:on|in|within|from|for)\s+(?:this|the|these)\s+(?:\w+\W+){0,3}?(?:image|images|picture|scan|radiograph|film|view|study|"
    r"ct|mri|x-ray|photograph|photo|slice|section|oct|ultrasound|examination|patch|frame))?\s*$"
)
_PATTERNS = (
    ("absent", rf"{_BE}\s+(?:there\s+)?(?:an?\s+|the\s+)?absence\s+of\s+{_DET}(?P<x>.+?)(?:\s+(?:\w+ed|seen))?{_TAIL}"),
    ("absent", rf"{_BE}\s+.+?\s(?:free\s+(?:of|from)|without|clear\s+of|negative\s+for)\s+{_DET}(?P<x>.+?){_TAIL}"),
    ("absent", rf"{_BE}\s+{_DET}(?P<x>.+?)\s+(?:absent|excluded|ruled\s+out|missing|not\s+{_SEEN}){_TAIL}"),
    ("there", rf"{_BE}\s+there\s+{_DET}(?P<x>.+?)(?:\s+{_SEEN})?{_TAIL}"),
    ("there", rf"{_BE}\s+{_DET}(?P<x>.+?)\s+{_SEEN}{_TAIL}"),
    ("there", rf"(?:can|could)\s+{_DET}(?P<x>.+?)\s+be\s+{_SEEN}{_TAIL}"),
    ("there", rf"(?:does|do|did|can|could)\s+.+?\s{_SHOW}\s+{_DET}(?P<x>.+?){_TAIL}"),
    ("is", rf"{_BE}\s+(?:this|it|that|these|those)\s+(?:an?\s+)(?P<x>.+?){_TAIL}"),
    ("is", rf"{_BE}\s+(?P<of>(?:this|the|that|these)\s+[\w\- ]+?)\s+an?\s+(?P<x>.+?){_TAIL}"),
    ("property", rf"{_BE}\s+(?P<of>(?:this|it|that|these|those|the|both|all)?(?:[\w\- ]+?)?)\s+(?P<x>[\w\-]+){_TAIL}"),
)
_COMPILED = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS)
_PLACE = re.compile(
    r"\s(?:of|in|on|at|under|within|along|involving|beneath|near|from|around|between|above|below)\s", re.IGNORECASE
)
_IN_IMAGE = re.compile(rf"{_TAIL.removesuffix(chr(36))}$", re.IGNORECASE)
_NEGATED = re.compile(
    r"\b(?:not|no|without|never)\b|\b(?:absent|absence|negative|excluded|ruled)\b|\bfree\s+(?:of|from)\b", re.IGNORECASE
)
_STARTS = re.compile(r"\b(?:is|are|was|were|does|do|did|can|could)\s", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What a question asks. kind: "there" (a thing), "absent" (that it is not), "is" (an identity) or "property".

    thing: the words of X without its place ("fracture" of "fracture of the clavicle"). of: the words of what has the
    property. every: all words of the question, among which a reply's own place must be. placed: whether it names one.
    """

    kind: str
    thing: tuple[str, ...]
    of: tuple[str, ...]
    every: frozenset[str]
    placed: bool = False


def asked(question: str) -> Asked | None:
    """Return what a question asks; None where no pattern reads it."""
    text = plain(question)
    spans = list(sentences(text))
    if not spans:
        return None
    last = text[slice(*spans[-1])].strip().rstrip("?").strip()
    begins = _STARTS.search(last)
    if begins is None:
        return None
    last = last[begins.start() :]
    every = frozenset(words(question))
    for kind, pattern in _COMPILED:
        found = pattern.fullmatch(last)
        if found is None:
            continue
        thing = _PLACE.split(found.group("x"))[0]
        if _NEGATED.search(thing) or (kind == "property" and _NEGATED.search(last)):
            return None
        of = tuple(words(found.groupdict().get("of") or ""))
        named = tuple(word for word in words(thing) if word not in ("a", "an", "the"))
        if not named or "or" in named or "and" in named:
            return None
        return Asked(kind, named, of, every, bool(_PLACE.search(_IN_IMAGE.sub(" ", f"{last} "))))
    return None
