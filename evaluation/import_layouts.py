"""The layouts that can be brought in: how each is recognised, and how its rows are read.

Ours first, then one per benchmark (benchmarks.py), then the plain forms. Readers yield drafts and bad rows; what is
not even JSON raises. Knows no pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .benchmarks import BENCHMARKS, Aside, Benchmark, benchmark_named, read_benchmark, recognised
from .dataset import EXAMPLES, MANIFEST, Dataset
from .example import DatasetError, TextRef
from .import_files import all_files, files_of, first_keys, json_rows, rows_of, split_of
from .import_rows import BadRow, Defaults, Draft, ImageFile, plain_draft
from .import_tables import saved_tables

Reader = Callable[[Path, Defaults, Aside, str], Iterator["Draft | BadRow"]]


@dataclass(frozen=True)
class Layout:
    """One way in which others store questions. benchmark: where it is an official one."""

    name: str
    about: str
    read: Reader
    benchmark: Benchmark | None = None


def _read_dataset(source: Path, defaults: Defaults, aside: Aside, subset: str) -> Iterator[Draft | BadRow]:
    bad: list[BadRow] = []
    opened = Dataset.open(source, lambda fault: bad.append(BadRow(fault.file, fault.line, fault.id, fault.reason)))
    yield from bad
    for line, row in enumerate(opened.examples, 1):
        parts = tuple(
            part.text if isinstance(part, TextRef) else ImageFile(source / part.path, sha256=part.sha256)
            for part in row.content
        )
        yield Draft(
            EXAMPLES, line, row.id, parts, row.answer, row.options, row.answer_type, row.modality, row.task, row.source,
            row.license, row.group, row.role, row.aliases, row.attributes,
        )  # fmt: skip


def _read_jsonl(source: Path, defaults: Defaults, aside: Aside, subset: str) -> Iterator[Draft | BadRow]:
    for path in files_of(source, ".jsonl"):
        yield from _plain(json_rows(path), path, split_of(path), defaults)


def _read_parquet(source: Path, defaults: Defaults, aside: Aside, subset: str) -> Iterator[Draft | BadRow]:
    for path in files_of(source, ".parquet"):
        yield from _plain(rows_of(path), path, split_of(path), defaults)


def _read_saved(source: Path, defaults: Defaults, aside: Aside, subset: str) -> Iterator[Draft | BadRow]:
    for split, path in saved_tables(source):
        yield from _plain(rows_of(path), path, split, defaults)


def _plain(rows: Iterable[tuple[int, Any]], path: Path, split: str, defaults: Defaults) -> Iterator[Draft | BadRow]:
    for line, row in rows:
        if isinstance(row, BadRow):
            yield row
        elif not isinstance(row, Mapping):
            yield BadRow(path.name, line, "", f"a row is an object, not {type(row).__name__}")
        else:
            try:
                yield plain_draft(row, path.name, line, path.parent, defaults, split)
            except DatasetError as error:
                yield BadRow(path.name, line, f"{row.get('id', '')!s:.200}", str(error))


_OURS = Layout("dataset", "a dataset folder of ours", _read_dataset)
_SAVED = Layout("datasets", "a folder saved by datasets.save_to_disk, fields as in jsonl", _read_saved)
_JSONL = Layout(
    "jsonl",
    "plain rows: id, image(s) or content, question, options, answer, modality, task, source, license, patient",
    _read_jsonl,
)
_PARQUET = Layout("parquet", "Parquet files, fields as in jsonl, images as paths or {bytes}", _read_parquet)
_OFFICIAL = tuple(Layout(row.name, row.title, partial(read_benchmark, row), row) for row in BENCHMARKS)

LAYOUTS = (_OURS, *_OFFICIAL, _SAVED, _JSONL, _PARQUET)


def layout_of(source: Path, name: str | None = None) -> Layout:
    """Return the layout of a source: the one named, else the one that its files show.

    The first of: a manifest of ours, the fields of a benchmark, a folder that `datasets` saved, JSONL rows with an
    answer, Parquet files.
    """
    names = ", ".join(layout.name for layout in LAYOUTS)
    if name is not None:
        found = next((layout for layout in LAYOUTS if layout.name == name), None)
        if found is None:
            raise DatasetError(f"layout {name!r} is unknown; use one of {names}")
        return found
    if not source.exists():
        raise DatasetError(f"{source} does not exist; give a folder or a file of rows")
    if (source / MANIFEST).is_file():
        return _OURS
    rows = (row for path in files_of(source, ".jsonl")[:1] for row in first_keys(path)[:1])
    keys = next(rows, frozenset())
    shown = recognised(source, benchmark_named("text-mcq") if {"question", "label"} <= keys else None)
    if shown is not None:
        return next(layout for layout in _OFFICIAL if layout.benchmark is shown)
    if (source / "state.json").is_file() or (source / "dataset_dict.json").is_file():
        return _SAVED
    if "answer" in keys:
        return _JSONL
    if files_of(source, ".parquet"):
        return _PARQUET
    for path in all_files(source)[:1]:
        first_keys(path)  # a malformed file is told as such
    raise DatasetError(f"{source} is in no known layout ({names}); see docs/benchmarks.md and docs/curation.md")
