"""What a dataset says of itself: counts, licences, sources, roles, and the sha256 of every file.

Knows the fields of an Example and the form of manifest.json; writes no file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .example import JSON, DatasetError, Example
from .jsonform import FormError, parse

SCHEMA = "infimed.dataset/1"


@dataclass(frozen=True)
class DatasetManifest:
    """What a dataset says of itself.

    licences, sources: number of examples each. counts: examples by modality, task, cell, answer type and role.
    roles: group -> role (roles joined by "+" where an official split divides a group). files: sha256 of examples.jsonl
    and of every notice. images: sha256 by path. inputs: sha256 of what it was made from, by name. details: what the
    maker adds (rows refused, recipe, seed).
    """

    name: str
    examples: int
    licences: Mapping[str, int]
    sources: Mapping[str, JSON]
    counts: Mapping[str, JSON]
    roles: Mapping[str, str]
    files: Mapping[str, str]
    images: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, JSON] = field(default_factory=dict)
    schema: str = SCHEMA

    def to_bytes(self) -> bytes:
        """Return the exact bytes of manifest.json."""
        return (json.dumps(self.__dict__, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> DatasetManifest:
        """Read and check manifest.json."""
        row = load_json(path.read_bytes(), str(path), "the file")
        if not isinstance(row, dict) or row.get("schema") != SCHEMA:
            found = row.get("schema") if isinstance(row, dict) else type(row).__name__
            raise DatasetError(f"{path}: schema {found!r} is not {SCHEMA}; import the data again")
        if set(row) != set(cls.__dataclass_fields__):
            wrong = ", ".join(sorted(set(row) ^ set(cls.__dataclass_fields__)))
            raise DatasetError(f"{path}: fields missing or unknown: {wrong}; import the data again")
        for name in set(row) - {"name", "examples", "schema"}:
            if not isinstance(row[name], dict):
                raise DatasetError(f"{path}: {name} is an object, not {row[name]!r:.80}")
        return cls(**row)


def describe(
    name: str,
    examples: Sequence[Example],
    files: Mapping[str, str],
    *,
    inputs: Mapping[str, str],
    details: Mapping[str, JSON],
    official_split: bool,
) -> DatasetManifest:
    """Return the manifest of `examples`. Raises DatasetError where a group stands in two roles without leave."""
    refs = {ref.path: ref.sha256 for example in examples for ref in example.images}
    return DatasetManifest(
        name=name,
        examples=len(examples),
        licences=_count(example.license for example in examples),
        sources=_sources(examples),
        counts=_counts(examples),
        roles=_roles(examples, official_split),
        files=dict(sorted(files.items())),
        images=dict(sorted(refs.items())),
        inputs=dict(sorted(inputs.items())),
        details=dict(details),
    )


def load_json(data: str | bytes, where: str, what: str) -> Any:
    """Return the value of JSON text; `where` and `what` name it in the DatasetError that anything else raises."""
    try:
        return parse(data, what)
    except FormError as error:
        raise DatasetError(f"{where}: {error}") from None


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _sources(examples: Sequence[Example]) -> dict[str, JSON]:
    sources: dict[str, JSON] = {}
    for source in sorted({example.source for example in examples}):
        rows = [example for example in examples if example.source == source]
        sources[source] = {
            "examples": len(rows),
            "images": len({ref.path for row in rows for ref in row.images}),
            "groups": len({row.group for row in rows}),
            "licences": sorted({row.license for row in rows}),
        }
    return sources


def _counts(examples: Sequence[Example]) -> dict[str, JSON]:
    return {
        "modality": dict(_count(example.modality for example in examples)),
        "task": dict(_count(example.task for example in examples)),
        "cell": dict(_count("/".join(example.cell) for example in examples)),
        "answer_type": dict(_count(example.answer_type for example in examples)),
        "role": dict(_count(example.role for example in examples)),
        "images": len({ref.path for example in examples for ref in example.images}),
        "groups": len({example.group for example in examples}),
    }


def _roles(examples: Sequence[Example], official_split: bool) -> dict[str, str]:
    roles: dict[str, set[str]] = {}
    for example in examples:
        if example.role:
            roles.setdefault(example.group, set()).add(example.role)
    for group, found in roles.items():
        if len(found) > 1 and not official_split:
            raise DatasetError(f"group {group!r} is divided between {' and '.join(sorted(found))}; roles go by group")
    return {group: "+".join(sorted(found)) for group, found in sorted(roles.items())}
