"""Named splits: the official one and the one without an image on both sides, told in every result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.example import DatasetError
from infimed.evaluation.importers import import_dataset
from infimed.evaluation.predict import identity_of
from infimed.evaluation.prediction import Subject

from . import official


def told(made: Dataset) -> dict[str, Any]:
    split = made.manifest.details["split"]
    assert isinstance(split, dict)
    return split


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """VQA-RAD in small: a train and a test question on image 1, a train question on image 2."""
    official.vqa_rad(tmp_path / "vqa_rad")
    return tmp_path / "vqa_rad"


def test_the_official_split_keeps_images_on_both_sides_and_says_how_many(source: Path, tmp_path: Path) -> None:
    made = import_dataset(source, tmp_path / "out", split="official")
    assert {row.id: row.role for row in made.examples} == {
        "vqa-rad-1": "train", "vqa-rad-2": "test", "vqa-rad-3": "train",
    }  # fmt: skip
    assert (told(made)["test_images"], told(made)["test_images_in_other_roles"], told(made)["set_aside"]) == (1, 1, 0)
    assert made.manifest.roles == {"synpic1.jpg": "test+train", "synpic2.jpg": "train"}


def test_the_image_disjoint_split_keeps_the_test_questions_and_sets_the_others_on_their_images_aside(
    source: Path, tmp_path: Path
) -> None:
    made = import_dataset(source, tmp_path / "out", split="image-disjoint")
    assert {row.id: row.role for row in made.examples} == {
        "vqa-rad-1": "", "vqa-rad-2": "test", "vqa-rad-3": "train",
    }  # fmt: skip
    assert (told(made)["test_images_in_other_roles"], told(made)["set_aside"]) == (0, 1)
    test = {ref.path for row in made.in_role("test") for ref in row.images}
    assert not test & {ref.path for row in made.in_role("train") for ref in row.images}


def test_copies_of_an_image_under_another_name_are_kept_apart_too(source: Path, tmp_path: Path) -> None:
    images = source / "VQA_RAD Image Folder"
    (images / "synpic2.jpg").write_bytes((images / "synpic1.jpg").read_bytes())
    made = import_dataset(source, tmp_path / "out", split="image-disjoint")
    assert [row.id for row in made.examples if row.role] == ["vqa-rad-2"]


def test_every_run_over_a_split_bears_its_name(source: Path, tmp_path: Path) -> None:
    names = set()
    for split in ("official", "image-disjoint", ""):
        made = import_dataset(source, tmp_path / f"out-{split}", split=split)
        identity = identity_of(made, "gguf-f16", Subject("bundle", "gguf-f16", "a" * 64, 1), "test")
        assert identity.dataset == made.label == Dataset.open(made.folder).label
        names.add(made.label)
    assert names == {"vqa_rad", "vqa_rad, official split", "vqa_rad, image-disjoint split"}


def test_an_unknown_split_and_rows_that_state_none_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="split 'random' is unknown; use one of official, image-disjoint"):
        import_dataset(source, tmp_path / "out", split="random")
    pytest.importorskip("pyarrow")
    official.pubmedqa_hub(tmp_path / "hub")
    with pytest.raises(DatasetError, match=r"1 rows say 'nothing'; known: train, validation, test"):
        import_dataset(tmp_path / "hub", tmp_path / "out", split="official")
    official.array(tmp_path / "hub" / "test_ground_truth.json", {"7": "no"})
    made = import_dataset(tmp_path / "hub", tmp_path / "out", split="official")
    assert [row.role for row in made.examples] == ["test"]


def test_the_split_that_is_reported_on_is_the_test_role(tmp_path: Path) -> None:
    official.medmcqa(tmp_path / "in")  # published on its validation split; the test split's answers are withheld
    made = import_dataset(tmp_path / "in", tmp_path / "out", split="official")
    assert {row.attributes["split"] for row in made.examples} == {"validation"} and len(made.in_role("test")) == 2


def test_our_own_rows_take_the_usual_splits(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": ["a", "b"], "answer": "a", "source": "s", "license": "MIT"}
    for split in ("train", "validation", "test"):
        official.lines(tmp_path / "in" / f"{split}.jsonl", [{**row, "id": split}])
    made = import_dataset(tmp_path / "in", tmp_path / "out", split="official")
    assert {row.id: row.role for row in made.examples} == {"train": "train", "validation": "search", "test": "test"}
