"""Turns frozen dataclasses into JSON and back, checking every field on the way in.

Knows dataclasses, tuples, mappings from text, optional values, literals and plain values; no file, no particular type.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .. import InfimedError

T = TypeVar("T")
_PLAIN = (str, int, bool)


class FormError(InfimedError):
    """A JSON value that is not what its type says."""


class OutOfForm(FormError):
    """JSON text that is whole but holds what no value may be: NaN, thousands of digits, hundreds of brackets."""


def to_json(value: Any) -> Any:
    """Return the JSON form of a value: fields by name, tuples as lists. Raises FormError on NaN or infinity."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise FormError(f"{value} has no JSON form")
    return value


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a JSON form by their place in it: {"subject.level": ..., "levels[0].reference": ...}."""
    if isinstance(value, Mapping):
        parts = [flat(item, f"{prefix}.{name}" if prefix else str(name)) for name, item in value.items()]
    elif isinstance(value, list):
        parts = [flat(item, f"{prefix}[{index}]") for index, item in enumerate(value)]
    else:
        return {prefix: value}
    return {name: item for part in parts for name, item in part.items()}


def parse(data: bytes | str, where: str = "value") -> Any:
    """Return the value of JSON text. Raises OutOfForm for NaN, infinity and the like, FormError for anything else."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        return json.loads(data, parse_constant=refuse)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormError(f"{where} is not JSON ({' '.join(str(error).split())})") from None
    except (ValueError, RecursionError) as error:
        raise OutOfForm(f"{where} is not JSON ({' '.join(str(error).split())})") from None


def from_json(kind: type[T], value: Any, where: str = "value") -> T:
    """Return the dataclass of a JSON object; `where` names it in errors.

    Fields with a default may be missing; unknown fields are refused.
    """
    return cast(T, _read(kind, value, where))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, vars(sys.modules[kind.__module__]))


@cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(kind), get_args(kind)


@cache
def _fields(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(kind)}


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = _parts(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        rest = [part for part in arguments if part is not type(None)]
        for part in rest[:-1]:
            try:
                return _read(part, value, where)
            except FormError:
                continue
        return _read(rest[-1], value, where)
    if origin is Literal:
        if value not in arguments:
            raise FormError(f"{where} is {value!r}; it must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise FormError(f"{where} is {value!r:.60}; it must be a list")
        return _read_tuple(arguments, value, where)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise FormError(f"{where} is {value!r:.60}; it must be an object")
        return {str(key): _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is float or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        told = "a finite number" if kind is float else kind.__name__
        raise FormError(f"{where} is {value!r:.60}; it must be {told}")
    return value


def _read_tuple(kinds: tuple[Any, ...], value: Sequence[Any], where: str) -> tuple[Any, ...]:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        if kinds[0] in _PLAIN and all(type(item) is kinds[0] for item in value):
            return tuple(value)
        return tuple(_read(kinds[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if len(kinds) != len(value):
        raise FormError(f"{where} has {len(value)} values; it must have {len(kinds)}")
    return tuple(
        _read(kind, item, f"{where}[{index}]") for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise FormError(f"{where} is {value!r:.60}; it must be an object")
    fields = _fields(kind)
    if unknown := sorted(set(value) - set(fields)):
        raise FormError(f"{where} has the unknown field {unknown[0]!r}; known are {', '.join(fields)}")
    given = {}
    hints = _hints(kind)
    for name, field in fields.items():
        if name in value:
            item, wanted = value[name], hints[name]
            plain = type(item) is wanted and wanted in _PLAIN
            given[name] = item if plain else _read(wanted, item, f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise FormError(f"{where} has no field {name!r}")
    return kind(**given)
