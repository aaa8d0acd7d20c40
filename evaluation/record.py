"""What is known of an item beside its key: its modality, organ and side, against which reasoning is held.

Taken from the example's fields and attributes, from its key where the question asks for just that, and for phantoms
from their kind. Knows no reply.
"""

from __future__ import annotations

from collections.abc import Mapping

from .example import Example
from .phantom_images import KINDS
from .rationale_words import MODALITY_WORDS, SIDE_WORDS, named, organ_of

PHANTOMS = "infimed-phantoms"
_ORGANS = ("organ", "body_part", "location")  # attributes that name one, by source


def record_of(example: Example) -> Mapping[str, str]:
    """Return what is known, by "modality", "organ" and "side"; what is not known is absent."""
    found = {"modality": _modality(example), "organ": _organ(example), "side": _side(example)}
    return {name: value for name, value in found.items() if value}


def _modality(example: Example) -> str:
    return example.modality if example.modality in MODALITY_WORDS else ""


def _organ(example: Example) -> str:
    said = [str(example.attributes.get(name) or "") for name in _ORGANS]
    if example.task == "anatomy":
        said.append(example.answer)
    if example.source == PHANTOMS and example.modality in KINDS:
        said.append(KINDS[example.modality].body_part)
    return next((organ for text in said if (organ := organ_of(text))), "")


def _side(example: Example) -> str:
    """Return the side of the finding: as the source states it, else where a question for a place has it as its key."""
    stated = example.attributes.get("side")
    if isinstance(stated, str) and stated in SIDE_WORDS:
        return stated
    if example.task not in ("laterality", "location") or example.answer_type != "choice":
        return ""
    sides = {one.option for one in named(example.answer, SIDE_WORDS)}
    return list(SIDE_WORDS)[sides.pop() or 0] if len(sides) == 1 else ""
