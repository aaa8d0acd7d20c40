"""Roles by a named split: the official one, or the official one with no image on both sides.

A split has a name, and the name goes into the dataset's manifest and from there into every run and report. Knows
examples and their official split; no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .example import JSON, DatasetError, Example, Role

SPLITS: Mapping[str, str] = {
    "official": "roles as the source states its split",
    "image-disjoint": "the official split; rows of other roles with an image or group of a test row have no role",
}
USUAL_ROLES: Mapping[str, Role] = {"train": "train", "validation": "search", "test": "test"}
_ORDER: tuple[Role, ...] = ("test", "search", "calibration", "train")


def divided(
    examples: Sequence[Example], name: str, roles: Mapping[str, Role]
) -> tuple[tuple[Example, ...], dict[str, JSON]]:
    """Return the examples in the roles of a named split, and what the manifest says of it.

    roles: the role of each official split; a split without a role is left without. Raises DatasetError for an unknown
    name, and for rows whose official split is not stated or not known.
    """
    if name not in SPLITS:
        raise DatasetError(f"split {name!r:.40} is unknown; use one of {', '.join(SPLITS)}")
    strange = Counter(split for example in examples if (split := _split_of(example)) not in roles)
    if strange:
        told = ", ".join(f"{number:,} rows say {split or 'nothing'!r}" for split, number in sorted(strange.items()))
        raise DatasetError(f"the official split is not stated for all rows ({told}; known: {', '.join(roles)})")
    rows = [example.with_role(roles[_split_of(example)]) for example in examples]
    shared = _shared_images(rows)
    aside = 0
    if name == "image-disjoint":
        rows, aside = _apart(rows)
    counts = Counter(row.role or "no role" for row in rows)
    told_roles: dict[str, JSON] = dict(roles)
    return tuple(rows), {
        "name": name,
        "rule": SPLITS[name],
        "roles": told_roles,
        "questions": dict(sorted(counts.items())),
        "test_images": len(_keys(row for row in rows if row.role == "test")),
        "test_images_in_other_roles": shared if name == "official" else _shared_images(rows),
        "set_aside": aside,
    }


def _split_of(example: Example) -> str:
    return str(example.attributes.get("split", ""))


def _keys(examples: Iterable[Example]) -> set[str]:
    """Return the images of the examples; they are named by their bytes."""
    return {ref.path for example in examples for ref in example.images}


def _shared_images(rows: Sequence[Example]) -> int:
    test = _keys(row for row in rows if row.role == "test")
    return len(test & _keys(row for row in rows if row.role not in ("test", "")))


def _apart(rows: Sequence[Example]) -> tuple[list[Example], int]:
    """Return the rows with no image and no group in two roles: an earlier role in _ORDER keeps it."""
    owner: dict[str, Role] = {}
    for role in _ORDER:
        for row in rows:
            if row.role == role and not any(owner.get(key, role) != role for key in _held(row)):
                owner.update(dict.fromkeys(_held(row), role))
    kept = [
        row.with_role("") if row.role and any(owner.get(key) != row.role for key in _held(row)) else row for row in rows
    ]
    return kept, sum(before.role != after.role for before, after in zip(rows, kept, strict=True))


def _held(row: Example) -> list[str]:
    return [f"group {row.group}", *(ref.path for ref in row.images)]
