"""Finds what a reply says by fixed rules in a fixed order; a reply that says nothing clear is INVALID, never guessed.

Each answer type has its reader: choosing.py, yes_no.py, open_answer.py. All first look for a statement of the answer
(stated.py) and read the same text (reply_text.py). Knows no answer key: it cannot favour the right one. The rules are
written down in docs/predictions.md, "What a reply says".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .choosing import choose
from .open_answer import open_answer
from .reply_text import readable
from .yes_no import yes_or_no

INVALID_RULE = "invalid"


@dataclass(frozen=True)
class Extraction:
    """What a reply says and the rule that found it.

    answer: an option's text, "yes", "no" or free text; None means INVALID. rule: "boxed", "tag", "json", "stated",
    "letter", "opening", "concluded", "option text", "rejected", "elimination", "yes/no", "asked", "short answer",
    "whole reply" or "invalid".
    """

    answer: str | None
    rule: str


def extract(reply: str, *, answer_type: str, options: Sequence[str] = (), question: str = "") -> Extraction:
    """Return what the reply says. answer_type: "choice" (options in the order shown), "yesno" or "open".

    question: what was asked; without it "there is no effusion" answers no yes/no question, as it may answer either way.
    """
    text = readable(reply)
    if answer_type == "choice":
        return Extraction(*choose(text, options, question))
    if answer_type == "yesno":
        return Extraction(*yes_or_no(text, question))
    return Extraction(*open_answer(text, question))
