"""Recipes: strict TOML files read into frozen dataclasses; a key that is not a field is refused, with the nearest one.

Knows no step of training: each step declares its own dataclass (types, defaults, ranges in __post_init__) and hands it
to `read_recipe`. Recipes say what is done; where things lie is said by flags.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from .. import InfimedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


class RecipeError(InfimedError):
    """A recipe that cannot be followed: which file, which key, what is wrong, what would be right."""


def read_recipe(path: Path, cls: type[T]) -> T:
    """Return the recipe at `path` as `cls`, a dataclass whose nested tables are dataclasses too.

    Field types: str, int, float, bool, Literal, dataclass, `X | None`, tuple[X, ...], dict[str, X]. Raises RecipeError.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read ({error.strerror}); name a TOML file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: the recipe is not UTF-8 text; name a TOML file") from error
    return parse_recipe(text, cls, source=str(path))


def parse_recipe(text: str, cls: type[T], source: str = "recipe") -> T:
    """Return the recipe in `text` as `cls`; `source` is named in errors."""
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError is one; a number of thousands of digits is another
        raise RecipeError(f"{source}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"{source}: brackets are nested too deeply to be read; no key needs more than two") from error
    return cast(T, _read_table(table, cls, source, ""))


def find_recipe(name: str) -> Path:
    """Return the file `name`, or the recipe of that name which the package brings along."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(__file__).parent / "recipes"
    names = sorted(file.stem for file in shipped.glob("*.toml"))
    if path.name == name and path.stem in names and path.suffix in ("", ".toml"):
        return shipped / f"{path.stem}.toml"
    raise RecipeError(f"{name}: no such recipe; name a TOML file or one of: {', '.join(names) or 'none shipped'}")


def _read_table(table: Mapping[str, Any], cls: type[Any], source: str, prefix: str) -> object:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    where = f"[{prefix[:-1]}] " if prefix else ""
    for key in table:
        if key not in fields:
            raise RecipeError(f"{source}: {where}unknown key {key!r}; {_nearest(key, fields)}")
    values = {key: _read_value(value, hints[key], source, prefix + key) for key, value in table.items()}
    for name, field in fields.items():
        if name in values:
            continue
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{source}: {where}key {name!r} is missing; it has no default")
    try:
        return cls(**values)
    except (ValueError, OverflowError) as error:
        raise RecipeError(f"{source}: {where}{error}") from error


def _nearest(key: str, fields: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key.lower(), fields, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(fields)}"


def _read_value(value: object, hint: Any, source: str, key: str) -> object:
    """Return `value` as the type `hint` asks for; no silent conversion but int to float and list to tuple."""
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise RecipeError(f"{source}: {key} is a number of {len(str(abs(value)))} digits; TOML allows 64 bits")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _read_value(value, next(kind for kind in arguments if kind is not type(None)), source, key)
    if origin is Literal:
        if value not in arguments or type(value) not in {type(allowed) for allowed in arguments}:
            raise RecipeError(f"{source}: {key} = {value!r:.80}; choose one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_read_value(item, arguments[0], source, f"{key}[{i}]") for i, item in enumerate(value))
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {name: _read_value(item, arguments[1], source, f"{key}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _read_table(value, cast(type[Any], hint), source, f"{key}.")
    if hint is float and type(value) in (int, float):
        number = float(cast(float, value))
        if not math.isfinite(number):
            raise RecipeError(f"{source}: {key} = {value!r} is not a finite number")
        return number
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise RecipeError(f"{source}: {key} = {value!r:.80} is not {_said(hint)}")


def _said(hint: Any) -> str:
    """Return the name of a field's type in words."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        return "a list"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "a table"
    words = {float: "a number", int: "a whole number", str: "a text in quotes", bool: "true or false"}
    return words.get(hint, str(hint))
