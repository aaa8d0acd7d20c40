"""Files become rows: JSONL, JSON, CSV, Parquet and Arrow, one row at a time, with the split their place states.

What is no such file at all raises with its place; a single row that no value may hold is a BadRow. Knows no benchmark.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .example import DatasetError
from .import_rows import BadRow
from .jsonform import FormError, OutOfForm, parse

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
# Beside the rows of a folder that `datasets` saved; and what it keeps of its own computations.
_NO_ROWS = ("state.json", "dataset_info.json", "dataset_dict.json", "cache-*.arrow", "tmp*.arrow")
_FIRST = 20  # rows looked at to know a file; one of them may lack a field
KEY = "#"  # the field under which a JSON object of rows keeps each row's key
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_WORDS = {"train": "train", "validation": "validation", "validate": "validation", "valid": "validation",
          "val": "validation", "dev": "validation", "test": "test"}  # fmt: skip


def files_of(source: Path, *suffixes: str) -> list[Path]:
    """Return the files of a source with one of `suffixes`, sorted: the file itself, or those in its folder."""
    found = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    return [path for path in found if path.suffix in suffixes]


def all_files(source: Path) -> list[Path]:
    """Return every file of a source, and of the folders in it, that can hold rows; sorted by its place."""
    if source.is_file():
        return [source] if source.suffix in SUFFIXES else []
    found = (path for path in source.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return sorted(
        path
        for path in found
        if not any(path.match(pattern) for pattern in _NO_ROWS)
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )


def family_of(path: Path) -> tuple[Path, str]:
    """Return what the shards of one table share: their folder and their name without the shard's number."""
    return path.parent, _SHARD.sub("", path.stem)


def split_of(path: Path, source: Path | None = None, *, keep_dev: bool = False) -> str:
    """Return the official split that a file's name states, or the empty text.

    source: where given, the names of the folders between it and the file are asked too, the nearest first (a folder
    that `datasets` saved). keep_dev: "dev" is a split of its own and not the validation split.
    """
    names = [_SHARD.sub("", path.stem)]
    if source is not None and source.is_dir():
        names += reversed(path.relative_to(source).parent.parts)
    for name in names:
        found = {word for word in re.split(r"[^a-z]+", name.casefold()) if word in _WORDS}
        splits = {"dev" if keep_dev and word == "dev" else _WORDS[word] for word in found}
        for split in ("train", "dev", "validation", "test"):
            if split in splits:
                return split
    return ""


def rows_of(path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[int, Any]]:
    """Yield (line, row) of a file; in JSON, Parquet and Arrow the line is the row's number, from 1.

    columns: of a CSV file without a header. A JSON object of objects gives its keys in the field "#". Raises
    DatasetError for a file that is not what its name says.
    """
    if path.suffix == ".jsonl":
        return json_rows(path)
    if path.suffix == ".json":
        return _json_file(path)
    if path.suffix == ".csv":
        return _csv_rows(path, columns)
    from .import_tables import arrow_rows, parquet_rows

    return parquet_rows(path) if path.suffix == ".parquet" else arrow_rows(path)


def first_keys(path: Path) -> tuple[frozenset[str], ...]:
    """Return the fields of each of a file's first rows that are objects; a fault in a later row is not seen."""
    rows = (frozenset(row) for _, row in rows_of(path) if isinstance(row, Mapping))
    return tuple(islice(rows, _FIRST))


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, row) of a JSONL file; a row that is JSON but holds NaN or the like is a BadRow.

    Raises DatasetError with file and line for anything that is not JSON.
    """
    with path.open("rb") as stream:
        for line, text in enumerate(stream, 1):
            if not text.strip():
                continue
            try:
                row = parse(text, "the row")
            except OutOfForm as error:
                row = BadRow(path.name, line, "", str(error))
            except FormError as error:
                raise DatasetError(f"{path}:{line}: {error}; the file is malformed") from None
            yield line, row


def _json_file(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a JSON list, of an object of objects, or of lines that are objects (MedMCQA's own files)."""
    data = path.read_bytes()
    try:
        value = parse(data, "the file")
    except OutOfForm as error:
        value = _with_nan(data, path, error)
    except FormError as error:
        if not _first_line_is_an_object(data):
            raise DatasetError(f"{path}: {error}; the file is malformed") from None
        yield from json_rows(path)
        return
    if isinstance(value, Mapping):
        held = list(value.items())
        value = [{**row, KEY: key} for key, row in held if isinstance(row, Mapping)]
        if len(value) != len(held) or not held:
            return  # one record, not rows
    if not isinstance(value, list):
        raise DatasetError(f"{path}: the file holds {type(value).__name__}, not a list of rows")
    for number, row in enumerate(value, 1):
        try:
            json.dumps(row, allow_nan=False)
        except (ValueError, RecursionError) as error:
            row = BadRow(path.name, number, "", f"the row is not JSON ({error})")
        yield number, row


def _with_nan(data: bytes, path: Path, error: OutOfForm) -> Any:
    """Return the value of JSON whose only fault is NaN or infinity: the rows that hold them are refused one by one."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise DatasetError(f"{path}: {error}; the file is malformed") from None


def _first_line_is_an_object(data: bytes) -> bool:
    try:
        return isinstance(parse(data.lstrip().split(b"\n", 1)[0]), dict)
    except FormError:
        return False


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        names: Sequence[str] = columns
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                raise DatasetError(f"{path}:{reader.line_num}: not CSV in UTF-8 ({error}); malformed") from None
            if not cells:
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                if len(set(names)) < len(names):
                    raise DatasetError(f"{path}:1: two columns bear one name ({', '.join(names):.120})")
            elif len(cells) != len(names):
                reason = f"the row has {len(cells)} cells, the header {len(names)}"
                yield reader.line_num, BadRow(path.name, reader.line_num, "", reason)
            else:
                yield reader.line_num, dict(zip(names, cells, strict=True))
