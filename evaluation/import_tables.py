"""Rows out of Parquet and Arrow files, as the model hub and the `datasets` library store them, a few at a time.

Images stay the {bytes, path} they are; nothing is decoded and no code of a dataset is run. Knows no field names; needs
pyarrow, which the train extra brings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import MissingExtra
from .example import DatasetError

_ROWS = 64  # held in memory at once; a row may hold seven images


def parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, row) of a Parquet file. Raises DatasetError where it cannot be read."""
    pyarrow = _library()
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as table:
            yield from _numbered(table.iter_batches(batch_size=_ROWS))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _broken(path, "Parquet", error) from None


def arrow_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, row) of an Arrow file, in its stream or file form; raises as parquet_rows."""
    pyarrow = _library()
    try:
        with pyarrow.memory_map(str(path)) as source:
            try:
                batches: Iterable[Any] = pyarrow.ipc.open_stream(source)
            except pyarrow.ArrowInvalid:
                opened = pyarrow.ipc.open_file(source)
                batches = (opened.get_batch(index) for index in range(opened.num_record_batches))
            yield from _numbered(batches)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _broken(path, "Arrow", error) from None


def saved_tables(folder: Path) -> list[tuple[str, Path]]:
    """Return (split, file) of a folder that `save_to_disk` wrote; the split is empty for a single table.

    Raises DatasetError for a folder that is none, or that lacks a file it names.
    """
    splits = _told(folder / "dataset_dict.json", "splits") if (folder / "dataset_dict.json").is_file() else [""]
    found: list[tuple[str, Path]] = []
    for split in splits:
        held = folder / str(split)
        if held != folder and held.parent != folder:
            raise DatasetError(f"{folder / 'dataset_dict.json'}: {split!r} is no name of a split")
        for file in _told(held / "state.json", "_data_files"):
            name = file.get("filename") if isinstance(file, dict) else None
            if not isinstance(name, str) or Path(name).name != name or not (held / name).is_file():
                raise DatasetError(f"{held / 'state.json'} names the table {name!r}, which is not in that folder")
            found.append((str(split), held / name))
    return found


def _told(path: Path, name: str) -> list[Any]:
    try:
        value = json.loads(path.read_bytes())[name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as datasets writes it ({error!s:.80})") from None
    if not isinstance(value, list):
        raise DatasetError(f"{path}: {name} is a list, not {value!r:.60}")
    return value


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for batch in batches:
        batch.validate(full=True)  # offsets that leave their buffer are an error, not a crash
        for start in range(0, batch.num_rows, _ROWS):
            for row in batch.slice(start, _ROWS).to_pylist():
                number += 1
                yield number, row


def _broken(path: Path, kind: str, error: Exception) -> DatasetError:
    told = str(error).splitlines() or [type(error).__name__]
    return DatasetError(f"{path}: cannot be read as {kind} ({told[0]:.120})")


def _library() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise MissingExtra("train", "pyarrow") from None
    return pyarrow
