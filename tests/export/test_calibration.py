from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from infimed.evaluation.dataset import Dataset
from infimed.export.calibration import (
    CalibrationError,
    answered,
    calibration_probes,
    calibration_rows,
    rows_sha256,
)
from infimed.runtime.messages import ImagePart, TextPart

from .calibration_sets import phantom_set, rewritten


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(phantom_set(tmp_path_factory.mktemp("set") / "set"))


def test_every_cell_counts_alike_however_many_rows_it_has(dataset: Dataset) -> None:
    weights = defaultdict(list)
    for row in calibration_rows(dataset):
        weights[row.example.cell].append(row.weight)
    assert len({len(found) for found in weights.values()}) > 1, "the cells must differ in size to show anything"
    for found in weights.values():
        assert sum(found) == pytest.approx(1 / len(weights))
        assert len(set(found)) == 1


def test_rows_of_another_role_are_never_taken_and_change_nothing(dataset: Dataset, tmp_path: Path) -> None:
    rows = calibration_rows(dataset)
    assert {row.example.role for row in rows} == {"calibration"}
    others = [replace(e, answer="other", aliases=()) if e.role == "test" and not e.options else e
              for e in dataset.examples if e.role == "calibration" or e.id.endswith("0")]  # fmt: skip
    changed = Dataset.open(rewritten(dataset, tmp_path / "changed", others))
    assert changed.sha256 != dataset.sha256
    assert rows_sha256(calibration_rows(changed)) == rows_sha256(rows)


@pytest.mark.parametrize("role", ["test", "search", "train", ""])
def test_a_dataset_without_calibration_rows_is_refused(dataset: Dataset, tmp_path: Path, role: str) -> None:
    moved = [replace(example, role=role) for example in dataset.examples]
    folder = rewritten(dataset, tmp_path / "moved", moved)
    with pytest.raises(CalibrationError, match="no row calibration"):
        calibration_rows(Dataset.open(folder))
    with pytest.raises(CalibrationError, match="no row calibration"):
        calibration_probes(Dataset.open(folder), 4)


def test_the_rows_are_named_by_the_lines_that_hold_them(dataset: Dataset) -> None:
    lines = (dataset.folder / "examples.jsonl").read_bytes().splitlines(keepends=True)
    kept = b"".join(line for line in lines if json.loads(line)["role"] == "calibration")
    assert rows_sha256(calibration_rows(dataset)) == hashlib.sha256(kept).hexdigest()


def test_the_answer_follows_as_the_assistants_reply_and_only_images_are_left_out(dataset: Dataset) -> None:
    example = dataset.in_role("calibration")[0]
    shown, told = answered(dataset, example), answered(dataset, example, images=False)
    assert [message.role for message in shown] == ["user", "assistant"] == [message.role for message in told]
    assert shown[1].parts == (TextPart(example.answer),) == told[1].parts
    assert [type(part) for part in shown[0].parts] == [ImagePart, TextPart]
    assert told[0].parts == shown[0].parts[1:]
