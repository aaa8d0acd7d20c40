"""How a wording is taken apart: templates with slots, each slot a pattern of plain words.

The slots refuse words that could change what belongs to what (not, or, which, in ...), so that only plain noun phrases
are moved from one form to another. Knows no families; they are in wordings.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

_NOT_PLAIN = (
    "not|no|or|and|than|that|this|these|those|which|who|whose|where|when|if|is|are|was|were|be|been|has|have|had|does|do|"
    "did|other|else|only|more|less|most|least|in|on|at|with|without|within|to|from|by|for|it|they|he|she|you|there|any|"
    "under|over|above|below|between|behind|near|outside|inside|along|across|into|after|before|during|"
    "present|seen|visible|shown|placed|given|used|noted|taken|located|identified|performed"
)
_WORD = rf"(?!(?:{_NOT_PLAIN})\b)[A-Za-z][\w'/-]*"
_PLAIN = rf"{_WORD}(?: {_WORD}){{0,5}}"
SLOTS = {
    "one": rf"(?:an?|any|evidence of|an? signs? of) {_PLAIN}",
    "mass": rf"(?!(?:an?|any|the|evidence|signs?)\b){_PLAIN}",
    "many": rf"(?:any )?(?!(?:an?|the)\b){_PLAIN}",
    "any": rf"(?:(?:an?|the|evidence of) )?{_PLAIN}",
    "the": rf"the {_PLAIN}",
    "where": rf"(?:in|on|at) the {_PLAIN}",
    "half": r"(?:in|on) the (?:(?:upper|lower|left|right) )+(?:half|side|part|quadrant|lobe|lung|hemisphere)"
    r"(?: of the image)?",
    "be": r"is|are",
    "what": r"(?:imaging )?(?:modality|plane|view|projection|organ|body part|part of the body|anatomical region|"
    r"anatomical plane|organ or region|body part or tissue|region|tissue|finding|abnormality|disease|pathology)",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """Wordings with one meaning. forms: templates over SLOTS. tasks: where they mean the same; empty for all."""

    name: str
    forms: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """One pattern per form, its slots as named groups."""
        return tuple(re.compile(_pattern(form)) for form in self.forms)

    def parse(self, question: str) -> tuple[int, Mapping[str, str]] | None:
        """Return the number of the first form that covers the question, and what fills its slots."""
        for number, pattern in enumerate(self.patterns):
            if found := pattern.fullmatch(question):
                return number, found.groupdict()
        return None


def _pattern(form: str) -> str:
    parts = re.split(r"\{(\w+)\}", form)
    return "".join(f"(?P<{part}>{SLOTS[part]})" if index % 2 else re.escape(part) for index, part in enumerate(parts))
