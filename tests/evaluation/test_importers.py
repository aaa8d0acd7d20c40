"""Foreign layouts become datasets: every field kept, bad rows named, malformed files refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from infimed.evaluation.benchmark_texts import parse_choices
from infimed.evaluation.dataset import Dataset
from infimed.evaluation.example import DatasetError, TextRef
from infimed.evaluation.import_layouts import LAYOUTS, layout_of
from infimed.evaluation.import_rows import Defaults
from infimed.evaluation.importers import import_dataset


def picture(seed: int, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def plain(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"r{number}", "image": f"images/{number}.jpg", "modality": "X-ray", "task": "modality",
        "question": "What is shown?", "options": ["CT", "X-ray"], "answer": "X-ray", "source": "clinic",
        "license": "CC-BY-4.0", "patient": f"p{number}", "phrasing": 2, "slot": None, "derived": "crop",
    }  # fmt: skip
    return {**row, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "images").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "in" / "images" / f"{number}.jpg").write_bytes(picture(number))
    return tmp_path / "in"


def test_plain_rows_keep_source_licence_patient_and_everything_else(folder: Path, tmp_path: Path) -> None:
    rows = [
        plain(0),
        plain(1, options=None, answer="No", task="finding", modality="fundus photography", split="test"),
        plain(2, options=None, answer="radiograph", aliases=["x-ray"], patient=None, modality="MRI"),
    ]
    (folder / "SOURCES.md").write_text("credit")
    jsonl(folder / "records.jsonl", rows)
    made = import_dataset(folder, tmp_path / "out")
    first, second, third = made.examples
    assert (first.modality, first.answer_type, first.options) == ("xray", "choice", ("CT", "X-ray"))
    assert (first.source, first.license, first.group) == ("clinic", "CC-BY-4.0", "p0")
    assert first.attributes == {"wording": 2, "derived": "crop"}
    assert (second.modality, second.answer_type, second.answer) == ("fundus", "yesno", "no")
    assert second.attributes["split"] == "test"
    assert (third.answer_type, third.aliases, third.group) == (
        "open",
        ("x-ray",),
        f"image:{third.images[0].sha256[:16]}",
    )
    assert made.image_bytes(first.images[0]) == picture(0), "bytes are copied unchanged"
    assert (made.folder / "SOURCES.md").read_text() == "credit"
    assert list(made.manifest.inputs) == ["records.jsonl"]


def test_several_images_and_texts_keep_their_order(folder: Path, tmp_path: Path) -> None:
    content = [{"text": "Before."}, {"image": "images/0.jpg"}, {"image": "images/1.jpg"}, {"text": "Has it grown?"}]
    jsonl(
        folder / "records.jsonl",
        [
            plain(0, content=content, options=None, answer="yes"),
            plain(1, image=None, images=["images/2.jpg", "images/3.jpg"], context=["Age 60."]),
        ],
    )
    first, second = import_dataset(folder, tmp_path / "out").examples
    assert [type(part).__name__ for part in first.content] == ["TextRef", "ImageRef", "ImageRef", "TextRef"]
    assert [type(part).__name__ for part in second.content] == ["ImageRef", "ImageRef", "TextRef", "TextRef"]
    assert second.texts == ("Age 60.\n", "What is shown?")


def test_bad_rows_are_refused_with_file_line_and_reason_and_the_rest_goes_on(folder: Path, tmp_path: Path) -> None:
    (folder / "images" / "broken.jpg").write_bytes(picture(5)[:200])
    (folder / "images" / "empty.jpg").write_bytes(b"")
    (tmp_path / "outside.jpg").write_bytes(picture(6))
    bad = {
        "image images/broken.jpg: the image cannot be read": plain(10, image="images/broken.jpg"),
        "image images/empty.jpg: not an image file of a known kind .* it is empty": plain(11, image="images/empty.jpg"),
        "image images/none.jpg: it is missing": plain(12, image="images/none.jpg"),
        "lies outside the folder": plain(13, image="../outside.jpg"),
        "modality 'pet' is unknown": plain(14, modality="pet"),
        "options repeat": plain(15, image="images/0.jpg", options=["a", "A", "b"], answer="b"),
        "not one of the options": plain(16, image="images/0.jpg", answer="MRI"),
        "answer is a text, not 3": plain(17, image="images/0.jpg", answer=3),
        "license .* is a text": plain(18, image="images/0.jpg", license=""),
        "id 'r0' occurs twice": plain(0),
    }
    jsonl(folder / "records.jsonl", [plain(0), *bad.values(), plain(1)])
    made = import_dataset(folder, tmp_path / "out")
    assert [example.id for example in made.examples] == ["r0", "r1"]
    refused = made.manifest.details["refused"]
    assert isinstance(refused, list) and [row["line"] for row in refused] == list(range(2, 12))
    for reason, row in zip(bad, refused, strict=True):
        assert row["file"] == "records.jsonl" and re.search(reason, row["reason"]), row
    with pytest.raises(DatasetError, match=r"in/records\.jsonl:2: image images/broken\.jpg"):
        import_dataset(folder, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_a_malformed_file_is_refused_with_its_line(folder: Path, tmp_path: Path) -> None:
    jsonl(folder / "records.jsonl", [plain(0)])
    with (folder / "records.jsonl").open("a") as stream:
        stream.write('{"id": "r1", \n')
    with pytest.raises(DatasetError, match=r"records\.jsonl:2: the row is not JSON"):
        import_dataset(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_without_source_or_licence_take_what_the_user_states(folder: Path, tmp_path: Path) -> None:
    row = plain(0)
    del row["source"], row["license"]
    path = jsonl(folder / "records.jsonl", [row])
    with pytest.raises(DatasetError, match=r"no usable row in layout jsonl \(1 refused; the first: .*--source"):
        import_dataset(path, tmp_path / "out")
    made = import_dataset(path, tmp_path / "out", defaults=Defaults("ward", "CC0-1.0"))
    assert (made.examples[0].source, made.examples[0].license) == ("ward", "CC0-1.0")


def vqa_rad(number: int, image: str, organ: str, answer: Any, **changes: Any) -> dict[str, Any]:
    row = {
        "qid": number, "image_name": image, "image_organ": organ, "answer": answer, "answer_type": "CLOSED",
        "question_type": "PRES", "question": "Is there a mass?", "phrase_type": "freeform",
    }  # fmt: skip
    return {**row, **changes}


def test_vqa_rad_keeps_the_official_split_and_groups_by_image(tmp_path: Path) -> None:
    source = tmp_path / "vqa_rad"
    train = [
        vqa_rad(1, "synpic1.jpg", "CHEST", "Yes"),
        vqa_rad(2, "synpic16520.jpg", "HEAD", "right lobe", answer_type="OPEN", question_type="POS, PRES"),
        vqa_rad(3, "synpic2.jpg", "HEAD", 4, question_type="COUNT"),
    ]
    jsonl(source / "train.jsonl", train)
    jsonl(source / "test.jsonl", [vqa_rad(4, "synpic1.jpg", "CHEST", "no"), vqa_rad(5, "synpic3.jpg", "FOOT", "no")])
    (source / "images").mkdir()
    for number, name in enumerate(("synpic1", "synpic2", "synpic3", "synpic16520")):
        (source / "images" / f"{name}.jpg").write_bytes(picture(number))
    made = import_dataset(source, tmp_path / "out")
    rows = {example.id: example for example in made.examples}
    assert [rows[f"vqa-rad-{n}"].attributes["split"] for n in (1, 2, 4)] == ["train", "train", "test"]
    assert rows["vqa-rad-1"].group == rows["vqa-rad-4"].group == "synpic1.jpg"
    assert [rows[f"vqa-rad-{n}"].modality for n in (1, 2, 3)] == ["xray", "ct", "mri"]
    assert [rows[f"vqa-rad-{n}"].task for n in (1, 2, 3)] == ["finding", "location", "count"]
    assert [rows[f"vqa-rad-{n}"].answer_type for n in (1, 2, 3)] == ["yesno", "open", "open"]
    assert rows["vqa-rad-3"].answer == "4" and rows["vqa-rad-1"].license == "CC0-1.0"
    assert "'FOOT'" in str(made.manifest.details["refused"])


def test_pubmedqa_is_a_choice_of_three_with_the_abstract_before_the_question(tmp_path: Path) -> None:
    row = {
        "pmid": "123", "QUESTION": "Does it help?", "CONTEXTS": ["We tried.", "It did."], "LABELS": ["A", "B"],
        "YEAR": None, "final_decision": "maybe", "LONG_ANSWER": "Perhaps.",
    }  # fmt: skip
    jsonl(tmp_path / "pubmedqa" / "pqal_test.jsonl", [row])
    (made,) = import_dataset(tmp_path / "pubmedqa", tmp_path / "out").examples
    assert made.options == ("yes", "no", "maybe") and made.answer == "maybe" and made.modality == "text"
    assert made.texts == ("We tried.\nIt did.\n", "Does it help?")
    assert (made.attributes["split"], made.group, made.license) == ("test", "pubmed:123", "MIT")


def test_text_choices_are_parsed_in_the_order_of_their_letters(tmp_path: Path) -> None:
    question = "Vitamin (C) is?\nAnswer Choices: (A) an acid (see (A) above) (B) a base (C) a salt of (B)"
    jsonl(tmp_path / "mcq" / "medqa.jsonl", [{"id": "t1", "question": question, "label": ["B"]}])
    jsonl(
        tmp_path / "mcq" / "mmlu_medical.jsonl",
        [
            {"question": "Which?\nAnswer Choices: (A) one (B) two", "label": ["A"], "subject": "anatomy"},
            {"question": "Which?\nAnswer Choices: (A) one (B) two", "label": ["C"], "subject": "anatomy"},
            {"question": "No choices", "label": ["A"]},
        ],
    )
    made = import_dataset(tmp_path / "mcq", tmp_path / "out")
    first, second = made.examples
    assert first.question == "Vitamin (C) is?" and first.answer == "a base"
    assert first.options == ("an acid (see (A) above)", "a base", "a salt of (B)")
    assert (second.source, second.task, second.id) == ("mmlu_medical", "anatomy", "mmlu_medical-000001")
    assert len(made.manifest.details["refused"]) == 2  # type: ignore[arg-type]


def test_choices_that_do_not_start_at_a_are_no_choices() -> None:
    with pytest.raises(DatasetError, match="does not end with"):
        parse_choices("What?\nAnswer Choices: (B) two")


def test_a_dataset_of_ours_comes_back_equal(folder: Path, tmp_path: Path) -> None:
    jsonl(folder / "records.jsonl", [plain(0, role="train"), plain(1, role="test")])
    made = import_dataset(folder, tmp_path / "out", name="x")
    again = import_dataset(made.folder, tmp_path / "again", name="x")
    assert again.examples == made.examples and again.sha256 == made.sha256


def test_parquet_and_saved_datasets_give_the_rows_of_the_jsonl(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [plain(number) for number in range(3)]
    jsonl(folder / "records.jsonl", rows)
    expected = import_dataset(folder, tmp_path / "jsonl")
    columns = [{**row, "image": {"bytes": picture(n), "path": None}} for n, row in enumerate(rows)]
    table = datasets.Dataset.from_list(columns).cast_column("image", datasets.Image())
    table.to_parquet(str(tmp_path / "parquet" / "test.parquet"))
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "saved"))
    for name in ("parquet", "saved"):
        made = import_dataset(tmp_path / name, tmp_path / f"out-{name}")
        assert made.manifest.details["layout"] == {"parquet": "parquet", "saved": "datasets"}[name]
        assert [example.attributes["split"] for example in made.examples] == ["test"] * 3
        for left, right in zip(made.examples, expected.examples, strict=True):
            assert (left.content, left.answer, left.group) == (right.content, right.answer, right.group)


def test_every_layout_is_named_once_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
    with pytest.raises(DatasetError, match="layout 'csv' is unknown; use one of dataset, mmmu, vqa-rad"):
        layout_of(tmp_path, "csv")
    with pytest.raises(DatasetError, match="in no known layout"):
        layout_of(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        layout_of(tmp_path / "nothing")


def test_two_imports_of_one_folder_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    jsonl(folder / "records.jsonl", [plain(0), plain(1)])
    one = import_dataset(folder, tmp_path / "one")
    two = import_dataset(folder, tmp_path / "two")
    for name in ("examples.jsonl", "manifest.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    assert isinstance(Dataset.open(one.folder).examples[0].content[-1], TextRef)
