"""A JSON Schema of a frozen dataclass: its fields as jsonform.py writes them, its words from the docstrings.

A docstring documents fields as sentences "name: words" or "name, other: words"; what has none is an error, so that no
field of a format goes undocumented. Knows no particular type.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .. import InfimedError

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", int: "integer", bool: "boolean", float: "number"}
_NAMED = re.compile(r"(?:^|(?<=[.;:?] ))([a-z_0-9]+(?:, [a-z_0-9]+)*): ")


class UndocumentedField(InfimedError):
    """A field that its dataclass's docstring says nothing of."""


def json_schema(kind: type, title: str, glossary: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the schema of a dataclass's JSON form. glossary: words for fields that mean the same in every record.

    Raises UndocumentedField, and TypeError for what has no form.
    """
    definitions: dict[str, Any] = {}
    root = _object(kind, definitions, glossary or {})
    return {"$schema": DRAFT, "title": title, **root, "$defs": dict(sorted(definitions.items()))}


def field_words(kind: type, glossary: Mapping[str, str]) -> dict[str, str]:
    """Return what a dataclass's docstring says of each field, else what the glossary says of its name.

    Raises UndocumentedField for a field without words.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    text = " ".join((inspect.getdoc(kind) or "").split())
    marks = [match for match in _NAMED.finditer(text) if set(match[1].split(", ")) <= set(names)]
    found = {name: glossary[name] for name in names if name in glossary}
    ends = [*(match.start() for match in marks[1:]), len(text)]
    for match, end in zip(marks, ends[: len(marks)], strict=True):
        words = text[match.end() : end].strip(" ;")
        found |= dict.fromkeys(match[1].split(", "), words)
    for name in names:
        if not found.get(name):
            raise UndocumentedField(
                f"{kind.__name__}.{name} is not documented; say it in the docstring as '{name}: ...'"
            )
    return found


def _object(kind: type, definitions: dict[str, Any], glossary: Mapping[str, str]) -> dict[str, Any]:
    words, hints = field_words(kind, glossary), get_type_hints(kind, vars(sys.modules[kind.__module__]))
    summary = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    names = [field.name for field in dataclasses.fields(kind)]
    return {
        "description": summary,
        "type": "object",
        "properties": {
            name: {"description": words[name], **_form(hints[name], definitions, glossary)} for name in names
        },
        "required": names,
        "additionalProperties": False,
    }


def _form(kind: Any, definitions: dict[str, Any], glossary: Mapping[str, str]) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_form(part, definitions, glossary) for part in arguments]}
    if kind is type(None):
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return {"type": "array", "items": _form(arguments[0], definitions, glossary)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _form(arguments[1], definitions, glossary)}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        name = kind.__name__
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _object(kind, definitions, glossary)
        return {"$ref": f"#/$defs/{name}"}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    raise TypeError(f"{kind} has no form in a JSON Schema")
