"""Rows out of Parquet files and of folders saved by the `datasets` library; its decoders are switched off.

Images stay the bytes they are. Knows the fields of the plain form through plain_draft; needs the train extra.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import MissingExtra
from .example import DatasetError
from .import_layouts import files_of, one_row
from .import_rows import BadRow, Defaults, Draft, plain_draft


def read_parquet(source: Path, defaults: Defaults) -> Iterator[Draft | BadRow]:
    """Yield the drafts of one Parquet file, or of all in a folder; the split is in the file's name."""
    datasets = _library()
    for path in files_of(source, ".parquet"):
        try:
            table = datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
        except Exception as error:  # pyarrow raises many kinds for a broken file
            raise DatasetError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]:.120})") from None
        yield from _rows(table, path, defaults)


def read_saved(source: Path, defaults: Defaults) -> Iterator[Draft | BadRow]:
    """Yield the drafts of a folder written by `save_to_disk`; a dictionary of splits gives each row its split."""
    datasets = _library()
    try:
        saved = datasets.load_from_disk(str(source), keep_in_memory=True)
    except Exception as error:  # as above
        raise DatasetError(f"{source}: cannot be read by datasets ({str(error).splitlines()[0]:.120})") from None
    tables = saved.items() if isinstance(saved, datasets.DatasetDict) else [("", saved)]
    for split, table in tables:
        yield from _rows(table, source / (split or "rows"), defaults)


def _rows(table: Any, path: Path, defaults: Defaults) -> Iterator[Draft | BadRow]:
    plain = table.cast(_undecoded(table.features))
    for line, row in enumerate(plain, 1):
        yield one_row(plain_draft, row, path, line, defaults)


def _undecoded(features: Any) -> Any:
    """Return the features with every image column left as {bytes, path}."""
    datasets = _library()
    result = features.copy()
    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            result[name] = datasets.Image(decode=False)
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            result[name] = datasets.List(datasets.Image(decode=False))
    return result


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtra("train", "datasets") from None
    datasets.disable_progress_bars()
    # It logs what it then raises; the error is told once.
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    return datasets
