"""The dataset folder: what is written is read back, and nothing changed or wrong gets in."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from infimed import InfimedError
from infimed.evaluation.dataset import Dataset, RowFault, check_target, image_ref, write_dataset
from infimed.evaluation.example import DatasetError, Example, ImageRef, TextRef
from infimed.runtime.publish import PublishError


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def example(number: int = 0, **changes: Any) -> Example:
    base = Example(
        id=f"q{number}",
        content=(image_ref(png(number)), TextRef("Which side?")),
        answer="left",
        options=("left", "right"),
        answer_type="choice",
        modality="xray",
        task="laterality",
        source="made",
        license="CC0-1.0",
        group=f"patient-{number}",
        attributes={"wording": 1},
    )
    return replace(base, **changes)


def images(*numbers: int) -> dict[str, bytes]:
    return {image_ref(png(number)).path: png(number) for number in numbers}


def test_a_written_dataset_reads_back_equal_with_its_pixels(tmp_path: Path) -> None:
    rows = [example(0, role="train"), example(1, answer="right", aliases=("dexter",))]
    write_dataset(tmp_path / "set", rows, images(0, 1), name="set", notices={"SOURCES.md": b"credit"})
    opened = Dataset.open(tmp_path / "set")
    assert opened.examples == tuple(rows)
    assert opened.manifest.roles == {"patient-0": "train"}
    assert opened.manifest.counts["cell"] == {"xray/laterality": 2}
    assert opened.manifest.licences == {"CC0-1.0": 2}
    decoded = np.asarray(Image.open(io.BytesIO(png(1))))
    assert np.array_equal(opened.images(opened.examples[1])[0], decoded)
    assert (tmp_path / "set" / "SOURCES.md").read_bytes() == b"credit"
    assert opened.in_role("train") == (rows[0],)


def test_the_same_examples_give_the_same_bytes_wherever_they_are_written(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dataset(tmp_path / name, [example(0), example(1)], images(1, 0), name="set", details={"seed": 1})
    files = [sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())]
    for file in files[0]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_rows_are_sorted_keys_and_plain_utf8(tmp_path: Path) -> None:
    written = write_dataset(tmp_path / "set", [example(0, source="Étude")], images(0), name="set")
    line = (written.folder / "examples.jsonl").read_bytes()
    assert "Étude".encode() in line and line.endswith(b"}\n") and b"\r" not in line
    assert list(json.loads(line)) == sorted(json.loads(line))


def test_a_changed_row_file_and_a_changed_image_are_refused(tmp_path: Path) -> None:
    written = write_dataset(tmp_path / "set", [example(0)], images(0), name="set")
    ref = written.examples[0].images[0]
    (written.folder / ref.path).write_bytes(png(5))
    with pytest.raises(DatasetError, match="changed after the dataset was written"):
        Dataset.open(written.folder).image(ref)
    with (written.folder / "examples.jsonl").open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(DatasetError, match=r"examples\.jsonl is missing or changed"):
        Dataset.open(written.folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": "up"}, "not one of the options"),
        ({"options": ("left",)}, "at least 2 options"),
        ({"options": ("left", "Left ", "right")}, "options repeat"),
        ({"answer": " "}, "answer is empty"),
        ({"answer_type": "yesno"}, "yes, no"),
        ({"answer_type": "open"}, "no options"),
        ({"answer_type": "essay"}, "'essay' is unknown"),
        ({"modality": "X-ray"}, "'X-ray' is unknown"),
        ({"role": "dev"}, "'dev' is unknown"),
        ({"group": ""}, "group is empty"),
        ({"content": ()}, "question is missing"),
        ({"content": (image_ref(png(0)),)}, "question is missing"),
        ({"content": (TextRef(" "),)}, "text of the content is empty"),
        ({"content": (ImageRef("../x.png", "0" * 64), TextRef("?"))}, "image path"),
        ({"content": (ImageRef(f"images/{'1' * 16}.png", "0" * 64), TextRef("?"))}, "name of its sha256"),
        ({"attributes": {"x": float("nan")}}, "cannot be written as JSON"),
        ({"source": "\ud800"}, "cannot be written as JSON"),
    ],
)
def test_what_cannot_be_asked_or_scored_is_no_example(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        example(0, **changes)


def plant(folder: Path, rows: list[str]) -> Path:
    """Write rows by hand under a manifest that fits them, as another tool might."""
    write_dataset(folder, [example(0)], images(0), name="set")
    data = "".join(row + "\n" for row in rows).encode()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["examples.jsonl"] = hashlib.sha256(data).hexdigest()
    (folder / "examples.jsonl").write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_bad_row_is_named_by_file_and_line_or_collected(tmp_path: Path) -> None:
    good = json.dumps(example(0).to_json())
    bad = json.dumps({**example(1).to_json(), "answer": "up"})
    short = json.dumps({"id": "q9"})
    folder = plant(tmp_path / "set", [good, bad, "{", short, good])
    with pytest.raises(DatasetError, match=r"examples\.jsonl:2: .*'up' is not one of the options"):
        Dataset.open(folder)
    faults: list[RowFault] = []
    opened = Dataset.open(folder, faults.append)
    assert [row.id for row in opened.examples] == ["q0"]
    assert [(fault.line, fault.id) for fault in faults] == [(2, "q1"), (3, ""), (4, "q9"), (5, "q0")]
    assert "not JSON" in faults[1].reason and "lacks answer" in faults[2].reason and "twice" in faults[3].reason


def test_a_group_in_two_roles_is_refused_unless_an_official_split_says_so(tmp_path: Path) -> None:
    rows = [example(0, role="train", group="p"), example(1, role="test", group="p")]
    with pytest.raises(DatasetError, match="'p' is divided between test and train"):
        write_dataset(tmp_path / "set", rows, images(0, 1), name="set")
    kept = write_dataset(tmp_path / "set", rows, images(0, 1), name="set", official_split=True)
    assert kept.manifest.roles == {"p": "test+train"}


def test_an_existing_folder_is_kept_and_nothing_half_written_stays(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="exists and is no dataset"):
        write_dataset(tmp_path / "other", [example(0)], images(0), name="set", overwrite=True)
    write_dataset(tmp_path / "set", [example(0)], images(0), name="set")
    with pytest.raises(DatasetError, match="already holds a dataset"):
        write_dataset(tmp_path / "set", [example(1)], images(1), name="set")
    with pytest.raises(DatasetError, match="are missing"):
        write_dataset(tmp_path / "set", [example(1)], {}, name="set", overwrite=True)
    assert Dataset.open(tmp_path / "set").examples[0].id == "q0"
    write_dataset(tmp_path / "set", [example(1)], images(1), name="set", overwrite=True)
    assert Dataset.open(tmp_path / "set").examples[0].id == "q1"
    assert sorted(os.listdir(tmp_path)) == ["other", "set"]


def test_two_examples_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'q0' occurs 2 times"):
        write_dataset(tmp_path / "set", [example(0), example(0)], images(0), name="set")


def test_a_folder_without_a_manifest_and_a_foreign_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no manifest\.json; make a dataset with"):
        Dataset.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": "other/3"}')
    with pytest.raises(DatasetError, match="schema 'other/3' is not"):
        Dataset.open(tmp_path)


def test_the_suffix_of_an_image_follows_its_bytes() -> None:
    assert image_ref(png(0)).path.endswith(".png")
    with pytest.raises(DatasetError, match="it is empty"):
        image_ref(b"")
    with pytest.raises(DatasetError, match="not an image file"):
        image_ref(b"hello, world")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InfimedError, match="the disk is full"):
        write_dataset(tmp_path / "set", [example(0)], images(0), name="set")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_no_folder_can_take_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(PublishError, match="is a link"):
        check_target(tmp_path / "link")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "empty")
    with pytest.raises(PublishError, match="is a mount point"):
        check_target(tmp_path / "empty")
