"""Parquet and Arrow files: rows a few at a time, in both forms of Arrow; damage is one clear error or none."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from infimed.evaluation.example import DatasetError
from infimed.evaluation.import_files import rows_of
from infimed.evaluation.import_tables import saved_tables
from infimed.evaluation.importers import import_dataset

pa = pytest.importorskip("pyarrow")
ROWS: list[dict[str, Any]] = [
    {"id": f"r{n}", "options": ["a", "b"], "image": {"bytes": bytes(range(200)), "path": None}, "n": n,
     "context": {"contexts": ["x", "y" * n]}}
    for n in range(130)
]  # fmt: skip


def written(kind: str) -> bytes:
    import pyarrow.parquet

    table, stream = pa.Table.from_pylist(ROWS), io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(table, stream)
        return stream.getvalue()
    with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    return stream.getvalue()


def path_of(kind: str, folder: Path) -> Path:
    return folder / ("rows.parquet" if kind == "parquet" else "rows.arrow")


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_every_row_comes_once_in_its_order_with_the_bytes_of_its_image(kind: str, tmp_path: Path) -> None:
    path_of(kind, tmp_path).write_bytes(written(kind))
    found = list(rows_of(path_of(kind, tmp_path)))
    assert [number for number, _ in found] == list(range(1, 131))
    assert [row for _, row in found] == ROWS


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_damage_anywhere_is_one_error_of_ours_or_none(kind: str, tmp_path: Path) -> None:
    good, path, refused = written(kind), path_of(kind, tmp_path), 0
    for seed in range(150):
        chance, data = random.Random(seed), bytearray(good)
        for _ in range(chance.choice((1, 2, 8))):
            place = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data[place] ^= 1 << chance.randrange(8)
                case 1:
                    data[place : place + 4] = chance.choice((b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 4))
                case 2:
                    del data[place : place + chance.randrange(1, 64)]
                case _:
                    data = data[: max(1, place)]
        path.write_bytes(data)
        try:
            list(rows_of(path))
        except DatasetError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 75


@pytest.mark.parametrize(
    ("file", "value", "told"),
    [
        ("dataset_dict.json", {"splits": "train"}, "splits is a list, not 'train'"),
        ("dataset_dict.json", {"splits": ["../train"]}, "'../train' is no name of a split"),
        ("dataset_dict.json", [], "cannot be read as datasets writes it"),
        ("train/state.json", {"_data_files": [{"filename": "../../secret.arrow"}]}, "which is not in that folder"),
        ("train/state.json", {"_data_files": [{"filename": "gone.arrow"}]}, "names the table 'gone.arrow'"),
        ("train/state.json", {}, "cannot be read as datasets writes it"),
    ],
)
def test_a_saved_folder_that_names_other_files_than_its_own_is_refused(
    file: str, value: object, told: str, tmp_path: Path
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "rows.arrow").write_bytes(written("stream"))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (tmp_path / "train" / "state.json").write_text('{"_data_files": [{"filename": "rows.arrow"}]}')
    assert saved_tables(tmp_path) == [("train", tmp_path / "train" / "rows.arrow")]
    (tmp_path / file).write_text(json.dumps(value))
    with pytest.raises(DatasetError, match=told):
        saved_tables(tmp_path)
    with pytest.raises(DatasetError, match=told):
        import_dataset(tmp_path, tmp_path / "out")
