"""The probe that leaves a part out: the prior image, the current one, the report.

An item that needs all its parts cannot be answered from the rest; robustness_parts.py says what a run made of it. Knows
no pixels and no engine.
"""

from __future__ import annotations

from .example import Example
from .parts import is_cross_modal, parts_of
from .probe import LeftOut, Outcome, Setting, variant

LEAVE_OUT = "leave-out"


def left_out(example: Example, setting: Setting) -> Outcome:
    """Leave out each part in turn, with its label; the key is kept to count answers that are given all the same."""
    parts = parts_of(example)
    if not is_cross_modal(len(example.images), len(parts)):
        return LeftOut("shows no image with another part beside it")
    return tuple(
        variant(
            example,
            part.name,
            "abstain",
            content=tuple(each for place, each in enumerate(example.content) if place not in part.places),
        )
        for part in parts
    )
