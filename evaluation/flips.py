"""Chooses the flips that a person should look at: the level's surest new errors first, one per patient and level.

A rule without a choice of anyone's, so that nobody picks the flattering ones. Knows rows in one order, no images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .drift_views import Flip, Said
from .prediction import Prediction

HARMFUL_PER_LEVEL = 6
HEALING_PER_LEVEL = 2


def choose_flips(
    reference: Sequence[Prediction], levels: Mapping[str, Sequence[Prediction]], run: str
) -> tuple[Flip, ...]:
    """Return the flips to look at: first what harms most levels, then by the confidence of the wrong answer.

    reference: its rows, in the order of the levels' rows. run: the reference's name. Of each level at most
    HARMFUL_PER_LEVEL harmful and HEALING_PER_LEVEL healing flips are taken, one of a patient or group.
    """
    chosen: set[int] = set()
    for rows in levels.values():
        pairs = list(enumerate(zip(reference, rows, strict=True)))
        harmful = [at for at, (one, other) in pairs if one.correct and not other.correct]
        healing = [at for at, (one, other) in pairs if other.correct and not one.correct]
        chosen |= set(_surest(harmful, rows, HARMFUL_PER_LEVEL)) | set(_surest(healing, rows, HEALING_PER_LEVEL))
    found = [
        Flip(
            example_id=reference[at].example_id,
            modality=reference[at].modality,
            task=reference[at].task,
            question=reference[at].wording,
            key=reference[at].answer,
            images=reference[at].images,
            reference=_said(run, reference[at]),
            levels=tuple(_said(name, rows[at]) for name, rows in levels.items()),
        )
        for at in chosen
    ]
    return tuple(sorted(found, key=_order))


def _surest(indices: Sequence[int], rows: Sequence[Prediction], most: int) -> list[int]:
    """Return the rows with the surest answers, one of a group."""
    kept: dict[str, int] = {}
    for at in sorted(indices, key=lambda at: (-(_confidence(rows[at]) or 0.0), rows[at].example_id)):
        kept.setdefault(rows[at].group, at)
    return list(kept.values())[:most]


def _order(flip: Flip) -> tuple[bool, int, float, str]:
    moved = {*flip.harmed, *flip.healed}
    sure = max(said.confidence or 0.0 for said in flip.levels if said.run in moved)
    return not flip.harmed, -len(moved), -round(sure, 9), flip.example_id


def _said(run: str, row: Prediction) -> Said:
    return Said(run, row.choice if row.options else row.extracted, _confidence(row), row.correct)


def _confidence(row: Prediction) -> float | None:
    return round(max(row.probabilities), 9) if row.probabilities else None
