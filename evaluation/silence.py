"""Recognises a reply that declines, cannot tell, or breaks off before it says anything. Knows no options."""

from __future__ import annotations

import re

_REFUSES = re.compile(
    r"\b(?:can\s+not|could\s+not|unable\s+to|not\s+able\s+to|am\s+not\s+(?:allowed|qualified|permitted)\s+to|will\s+not|do\s+not)\s+"
    r"(?:\w+ly\s+|(?:be\s+able\s+to\s+))?(?:view|access|interpret|analy[sz]e|assist|help|provide|diagnose|determine|tell|decide|say\s+which|"
    r"identify\s+(?:the|an?)\s+(?:image|person)|see\s+(?:the|any|an|your|this|that)?\s*(?:image|picture|photo|attachment|scan)s?|"
    r"make\s+an?|give|answer|choose|be\s+(?:determined|certain|sure|concluded|answered)|know|process|comment|confirm|"
    r"have\s+(?:enough|sufficient|access))\b"
    r"|\bno\s+(?:image|picture|photo|attachment)s?\b[^.]{0,80}\b(?:attached|provided|uploaded|included|found|received|visible)\b"
    r"|\b(?:image|picture)\s+(?:was|is|has)\s+not\s+(?:been\s+)?(?:attached|provided|uploaded|available|included|clear|shown|visible)\b|\bplease\s+(?:upload|provide|attach|share)\b"
    "|无法|不能(?:确定|判断|给出|提供)|难以(?:判断|确定)|"
    "不确定",
    re.IGNORECASE,
)
_CANNOT_TELL = re.compile(
    r"\b(?:difficult|hard|impossible|not\s+possible)\s+to\s+(?:say|tell|determine|judge|decide|assess|know|be\s+sure)\b"
    r"|\b(?:can|could)\s+(?:neither|not)\s+be\s+(?:\w+ly\s+)?(?:determined|assessed|evaluated|confirmed|established|decided|answered)\b"
    r"|\b(?:can\s+not|could\s+not|unable\s+to|not\s+able\s+to)\s+(?:\w+ly\s+)?(?:measure|estimate|quantify|count|assess|evaluate|establish)\b"
    r"|\b(?:insufficient|not\s+enough|more)\s+(?:information|data|images?|views?|context)\b|\bindeterminate\b|\binconclusive\b"
    r"|\bunanswerable\b|\b(?:no|without(?:\s+(?:an|the))?)\s+image(?=\s*(?:$|[.,;]|(?:is|was|to|here)\b))"
    r"|\b(?:am|is|are)\s+(?:not\s+(?:sure|certain)|unsure|uncertain|undecided)\b|\bdepends\s+on\b"
    r"|\bany\s+of\s+(?:these|them|the\s+above)\b|\beither\s+(?:one|of\s+(?:these|them|the\s+two))\b",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"\b(?:can\s+not|could\s+not|unable\s+to|not\s+able\s+to|do\s+not\s+know|am\s+(?:not\s+(?:sure|certain)|unsure|torn))\s*"
    r"(?:\w+\s+){0,3}?(?:which|between|whether)\b",
    re.IGNORECASE,
)
_CUT = re.compile(
    r"(?:\b(?:is|are|was|were|be|the|an?|of|to|with|and|or|that|by|in|on|following|because|most|likely|shows?)|:|,|\()\s*$",
    re.IGNORECASE,
)


def declines(text: str) -> int:
    """Return where a plain text last refuses, or says that it cannot see or tell; 0 where it does not."""
    return max((found.end() for pattern in (_REFUSES, _CANNOT_TELL) for found in pattern.finditer(text)), default=0)


def undecided(text: str) -> bool:
    """Return whether a plain text says that it cannot settle which of several holds; a disclaimer does not say so."""
    return bool(_UNDECIDED.search(text))


def broken_off(text: str) -> bool:
    """Return whether a text ends where its answer should begin ("The most likely diagnosis is")."""
    return bool(_CUT.search(text))
