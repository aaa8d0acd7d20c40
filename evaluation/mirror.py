"""Exchanges left and right in the words of an example, and tells which examples have words that cannot be mirrored.

A mirrored picture with mirrored words is the same question, unless a word's meaning hangs on the body's own sides (a
left ventricle stays one in the mirror) or on writing. Such examples are left out with the reason. Knows no pixels.
"""

from __future__ import annotations

import re

from .example import Example, TextRef
from .probe import LeftOut, Outcome, Picture, Setting, variant

_OTHER = {"left": "right", "right": "left", "\u5de6": "\u53f3", "\u53f3": "\u5de6"}
_SIDE = re.compile(
    r"(?<![A-Za-z])(left|right)(?=(?:most|wards?|hand(?:ed)?|sided?)?(?![A-Za-z]))|[\u5de6\u53f3]", re.IGNORECASE
)
_UNEVEN_BODIES = frozenset({"xray", "ct", "mri", "ultrasound"})
# Each reason with the words that give it; searched in the texts, the options, the answer and its aliases.
_ANYWHERE = tuple(
    (reason, re.compile(words, flags))
    for reason, words, flags in (
        (
            "names writing or marks, which a mirror turns round",
            r"\b(?:letters?|markers?|labell?ed|written|caption)\b",
            re.IGNORECASE,
        ),
        ("names a turn or an hour of the clock", r"\bo'?clock\b|clockwise\b", re.IGNORECASE),
        (
            "names a side by other words than left and right",
            r"\b(?:situs|dextr|levo|laevo|sinist)\w*",
            re.IGNORECASE,
        ),
        (
            "abbreviates a side",
            r"\b(?:[LR]|[LR][UML]L|[LR][UL]Q|R[AV]|L[AV]|LAD|LCX|RCA|LMCA|O[DSU]|[LR](?:AO|PO|MCA|ACA|PCA|ICA))\b",
            0,
        ),
        (
            "uses left or right for something else than a side",
            r"\b(?:all|just|that's|is that) right\b|\bright (?:now|angled?|away)\b|\bleft (?:over|behind)\b|, right\?",
            re.IGNORECASE,
        ),
        ("uses left and right in one word", "\u5de6\u53f3|\u53f3\u5de6", 0),
    )
)
# With a side word these are structures that keep their name in a mirror, or exist on one side only.
_BOUND = re.compile(
    r"\b(?:atri(?:um|a|al)|(?<!lateral )ventric\w+|middle lobe|lingula\w*|coronary|circumflex|gastric|colic|"
    r"(?:hemi)?colon|bundle|main(?:stem)? bronch\w+|aortic arch|crus|handed|dominan\w+)\b",
    re.IGNORECASE,
)
_NORMAL = re.compile(r"\b(?:ab)?normal\w*|\banomal\w*", re.IGNORECASE)


def mirror_text(text: str) -> str:
    """Return the text with left and right exchanged, capitals kept; its own inverse."""
    return _SIDE.sub(lambda found: _like(found.group(), _OTHER[found.group().lower()]), text)


def names_a_side(text: str) -> bool:
    """Return whether a text holds a word that mirror_text changes."""
    return _SIDE.search(text) is not None


def _like(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[:1].isupper() else word


def why_not_mirrored(example: Example) -> str:
    """Return why an example has no mirror image in words; empty where it has one."""
    if not example.images:
        return "shows no picture"
    texts = (*example.texts, *example.options, example.answer, *example.aliases)
    for reason, words in _ANYWHERE:
        if any(words.search(text) for text in texts):
            return reason
    if any(names_a_side(text) and _BOUND.search(text) for text in texts):
        return "names a structure that has its side by nature"
    judged = (*example.texts, example.answer, *example.aliases)
    if example.modality in _UNEVEN_BODIES and any(_NORMAL.search(text) for text in judged):
        return "asks whether all is normal; a body in the mirror is not"
    return ""


def mirrored(example: Example, setting: Setting) -> Outcome:
    """Mirror the picture and exchange left and right in all words.

    Options that the mirror maps onto each other keep their places, so that the key moves and only the picture differs;
    other options are mirrored where they stand.
    """
    if reason := why_not_mirrored(example):
        return LeftOut(reason)
    turned = tuple(mirror_text(option) for option in example.options)
    answer = mirror_text(example.answer)
    content = tuple(TextRef(mirror_text(part.text)) if isinstance(part, TextRef) else part for part in example.content)
    return (
        variant(
            example,
            "mirrored",
            "mirrored",
            content=content,
            answer=answer,
            options=example.options if set(turned) == set(example.options) else turned,
            aliases=tuple(mirror_text(alias) for alias in example.aliases),
            picture=Picture("mirror", 0, 0),
        ),
    )
