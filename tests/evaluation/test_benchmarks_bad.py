"""Official files with a fault: the row is refused with its reason and the others stay, or the file is refused whole."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.example import DatasetError
from infimed.evaluation.import_files import rows_of, split_of
from infimed.evaluation.importers import import_dataset

from . import official

pytest.importorskip("pyarrow")  # before what is imported of test_benchmarks, which skips itself without it

from .test_benchmarks import SETS, reasons

GONE = object()  # a field that the row does not have
Entry = dict[str, Any]


def edit(path: Path, change: Callable[[list[Entry]], None]) -> None:
    """Change the rows of a file of any kind and write it again."""
    rows: list[Entry] = [dict(row) for _, row in rows_of(path)]
    keyed = path.suffix == ".json" and "#" in rows[0]
    change(rows)
    for row in rows:
        for name in [name for name, value in row.items() if value is GONE]:
            del row[name]
    if path.suffix == ".parquet":
        official.parquet(path, rows)
    elif path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(rows)
    elif keyed:
        official.array(path, {row["#"]: {k: v for k, v in row.items() if k != "#"} for row in rows})
    elif path.suffix == ".jsonl":
        official.lines(path, rows)
    else:
        official.array(path, rows)


def with_fault(
    make: official.Maker, file: str, changes: Entry, tmp_path: Path, index: int = 0, layout: str | None = None
) -> Dataset:
    """Import a set whose row `index` has these fields, and return it."""
    make(tmp_path / "in")
    edit(tmp_path / "in" / file, lambda rows: rows[index].update(changes))
    return import_dataset(tmp_path / "in", tmp_path / "out", layout=layout)


MMMU = "Clinical_Medicine/validation-00000-of-00001.parquet"
OSF = "VQA_RAD Dataset Public.json"
OMNI = "QA_information/Open-access/ACRIMA.json"
FAULTS: list[tuple[official.Maker, str, Entry, str]] = [
    # a field missing
    (official.mmmu, MMMU, {"question": None}, "question is a text, not None"),
    (official.vqa_rad, OSF, {"question_type": GONE}, "the field question_type is missing"),
    (official.slake, "test.json", {"answer": GONE}, "the field answer is missing"),
    (official.slake, "test.json", {"answer": ""}, "answer is a text, not ''"),
    (official.pmc_vqa, "test_2.csv", {"Choice C": ""}, "Choice C is a text, not ''"),
    (official.omnimedvqa, OMNI, {"gt_answer": GONE}, "the field gt_answer is missing"),
    (official.omnimedvqa, OMNI, {"modality_type": GONE}, "modality_type is a text, not None"),
    (official.omnimedvqa, OMNI, {"option_B": ""}, "option_B is empty before an option that is not"),
    (official.pubmedqa, "ori_pqal.json", {"CONTEXTS": []}, "CONTEXTS is empty"),
    (official.pubmedqa, "ori_pqal.json", {"final_decision": GONE}, "the field final_decision is missing"),
    (official.medqa, "phrases_no_exclude_test.jsonl", {"question": GONE}, "the field question is missing"),
    (official.medmcqa_hub, "data/validation-00000-of-00001.parquet", {"opc": None}, "opc is a text, not None"),
    # a wrong key
    (official.mmmu, MMMU, {"answer": "C"}, "answer 'C' is the key of no option; the options are A, B"),
    (official.mmmu, MMMU, {"options": "['a bone', 'a lung'"}, "options is no list of texts"),
    (official.mmmu, MMMU, {"question": "<image 3> What?"}, "names <image 3> and image_3 is empty"),
    (official.mmmu, MMMU, {"question_type": "essay"}, "question_type 'essay' is unknown"),
    (official.pmc_vqa_1, "train.csv", {"Answer_label": "E"}, "Answer_label 'E' is the key of no option"),
    (official.pmc_vqa_1, "train.csv", {"Answer_label": "C"}, "names the option 'None', Answer says 'Focal'"),
    (official.pmc_vqa, "test_2.csv", {"Answer": "a heart"}, "Answer 'a heart' is not one of the options"),
    (official.omnimedvqa, OMNI, {"gt_answer": "PET"}, "gt_answer 'PET' is not one of the options"),
    (official.pubmedqa, "ori_pqal.json", {"final_decision": "perhaps"}, "'perhaps' is not one of the options"),
    (official.medqa, "phrases_no_exclude_test.jsonl", {"answer_idx": "E"}, "answer_idx 'E' is the key of no option"),
    (official.medqa, "phrases_no_exclude_test.jsonl", {"answer_idx": "A"}, "'Aspirin', answer says 'Ibuprofen'"),
    (official.medqa, "phrases_no_exclude_test.jsonl", {"options": {"A": "x", "C": "Ibuprofen"}}, "by their letters"),
    (official.medmcqa, "dev.json", {"cop": 7}, "cop 7 is the number of no option; they run from 1 to 4"),
    (official.mmlu_hub, "anatomy/test-00000-of-00001.parquet", {"answer": 4}, "they run from 0 to 3"),
    # options that repeat: nobody could say which one is right
    (official.medmcqa, "dev.json", {"opb": "A"}, "options repeat"),
    # a missing image, and one outside the source
    (official.vqa_rad, OSF, {"image_name": "synpic9.jpg"}, "image images/synpic9.jpg: it is missing"),
    (official.vqa_rad, OSF, {"image_name": "../synpic1.jpg"}, "is not a plain file name"),
    (official.slake, "test.json", {"img_name": "xmlab9/source.jpg"}, "image imgs/xmlab9/source.jpg: it is missing"),
    (official.slake, "test.json", {"img_name": "../../secret.jpg"}, "lies outside the source"),
    (official.slake, "test.json", {"img_name": "/etc/hostname"}, "lies outside the source"),
    (official.pmc_vqa, "test_2.csv", {"Figure_path": "PMC0.jpg"}, "image images/PMC0.jpg: it is missing"),
    (official.omnimedvqa, OMNI, {"image_path": "Images/ACRIMA/9.png"}, "ACRIMA/9.png: it is missing"),
    (official.medxpertqa, "MM/test.jsonl", {"images": ["none.jpeg"]}, "images/none.jpeg: it is missing"),
    (official.medxpertqa, "MM/test.jsonl", {"images": []}, "those of MM have some, those of Text none"),
    # an unknown modality, task or organ
    (official.vqa_rad, OSF, {"image_organ": "FOOT"}, "image_organ 'FOOT' is unknown"),
    (official.vqa_rad, OSF, {"question_type": "DOSE"}, "question_type 'DOSE' is unknown"),
    (official.slake, "test.json", {"modality": "PET"}, "modality 'PET' is unknown; known are ct, mri, xray"),
    (official.slake, "test.json", {"content_type": "Mood"}, "content_type 'Mood' is unknown"),
    (official.omnimedvqa, OMNI, {"modality_type": "PET"}, "modality_type 'PET' is unknown"),
    (official.omnimedvqa, OMNI, {"question_type": "Staging"}, "question_type 'Staging' is unknown"),
    (official.medxpertqa, "MM/test.jsonl", {"medical_task": "Billing"}, "medical_task 'Billing' is unknown"),
]


@pytest.mark.parametrize(("make", "file", "changes", "reason"), FAULTS)
def test_a_row_with_a_fault_is_refused_and_the_others_stay(
    make: official.Maker, file: str, changes: Entry, reason: str, tmp_path: Path
) -> None:
    make(tmp_path / "good")
    layout = next(layout for layout, maker, *_ in SETS if maker is make)
    good = import_dataset(tmp_path / "good", tmp_path / "all", layout=layout)
    if len(good.examples) == 1:
        with pytest.raises(DatasetError, match=rf"no usable row in layout {layout} \(1 refused.*{re.escape(reason)}"):
            with_fault(make, file, changes, tmp_path, layout=layout)
        return
    made = with_fault(make, file, changes, tmp_path, layout=layout)
    assert len(made.examples) == len(good.examples) - 1
    line = 2 if file.endswith(".csv") else 1  # of a CSV file the header is line 1
    assert any(f"{Path(file).name}:{line}: " in told and reason in told for told in reasons(made)), reasons(made)


@pytest.mark.parametrize(
    ("make", "file", "field"),
    [
        (official.mmmu, MMMU, "id"),
        (official.vqa_rad, OSF, "qid"),
        (official.slake, "test.json", "qid"),
        (official.omnimedvqa, OMNI, "question_id"),
        (official.medmcqa, "dev.json", "id"),
    ],
)
def test_a_second_use_of_an_id_is_refused(make: official.Maker, file: str, field: str, tmp_path: Path) -> None:
    make(tmp_path / "in")
    edit(tmp_path / "in" / file, lambda rows: rows[1].update({field: rows[0][field]}))
    made = import_dataset(tmp_path / "in", tmp_path / "out")
    assert any(f"{Path(file).name}:2: id " in told and "occurs twice" in told for told in reasons(made))


def test_files_that_lack_a_field_in_all_rows_are_named_with_the_field(tmp_path: Path) -> None:
    official.slake(tmp_path / "in")
    for name in ("test.json", "train.json"):
        edit(tmp_path / "in" / name, lambda rows: [row.update(q_lang=GONE) for row in rows] and None)
    with pytest.raises(DatasetError, match=r"no file has the fields of SLAKE.*test\.json lacks q_lang"):
        import_dataset(tmp_path / "in", tmp_path / "out", layout="slake")
    with pytest.raises(DatasetError, match="in no known layout"):
        import_dataset(tmp_path / "in", tmp_path / "out")


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    official.put(tmp_path / "in" / "qas" / "train_qa.pkl", b"cos\nsystem\n")
    with pytest.raises(DatasetError, match=r"has no \.jsonl.* file; pickle files are never opened"):
        import_dataset(tmp_path / "in", tmp_path / "out", layout="path-vqa")


@pytest.mark.parametrize(
    ("file", "data", "told"),
    [
        ("test.json", b'[{"img_name": "a", ', r"test\.json: the file is not JSON .*malformed"),
        ("test.json", b'"a text"', r"the file holds str, not a list of rows"),
        ("test.csv", b'a,b\n1,"2\n', r"test\.csv:\d: not CSV in UTF-8"),
        ("test.csv", b"a,b\n\xff\xfe,1\n", r"test\.csv:\d: not CSV in UTF-8"),
        ("test.csv", b"a,a\n1,2\n", r"test\.csv:1: two columns bear one name"),
        ("test.parquet", b"PAR1 and then nothing of the kind", r"cannot be read as Parquet"),
        ("test.arrow", b"no arrow at all, but long enough to be read", r"cannot be read as Arrow"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_stops_the_import(
    file: str, data: bytes, told: str, tmp_path: Path
) -> None:
    official.slake(tmp_path / "in")
    (tmp_path / "in" / file).write_bytes(data)
    with pytest.raises(DatasetError, match=told):
        import_dataset(tmp_path / "in", tmp_path / "out", layout="slake")
    assert not (tmp_path / "out").exists()


def test_a_row_of_nan_in_a_json_list_and_a_short_csv_row_cost_only_themselves(tmp_path: Path) -> None:
    official.slake(tmp_path / "in")
    path = tmp_path / "in" / "test.json"
    path.write_text(path.read_text().replace('"qid": 11', '"qid": NaN'))
    made = import_dataset(tmp_path / "in", tmp_path / "out")
    assert len(made.examples) == 2 and "test.json:1: the row is not JSON" in reasons(made)[0]
    official.pmc_vqa(tmp_path / "csv")
    with (tmp_path / "csv" / "test_2.csv").open("a") as stream:
        stream.write("2,PMC123_Fig1_2.jpg\r\n")
    made = import_dataset(tmp_path / "csv", tmp_path / "out2")
    assert len(made.examples) == 2 and "the row has 2 cells, the header 10" in reasons(made)[0]


def test_a_medmcqa_file_whose_keys_run_from_0_to_4_is_refused(tmp_path: Path) -> None:
    official.medmcqa(tmp_path / "in")
    row = json.loads((tmp_path / "in" / "dev.json").read_text().split("\n")[0])
    official.lines(tmp_path / "in" / "dev.json", [{**row, "id": f"u-{cop}", "cop": cop} for cop in range(5)])
    with pytest.raises(DatasetError, match="cop runs from 0 and up to 4"):
        import_dataset(tmp_path / "in", tmp_path / "out", layout="medmcqa")


def test_a_private_file_in_an_official_layout_has_no_licence_of_its_own(tmp_path: Path) -> None:
    official.slake(tmp_path / "in")
    for name in ("test", "train"):
        (tmp_path / "in" / f"{name}.json").rename(tmp_path / "in" / f"ours_{name}.json")
    with pytest.raises(DatasetError, match=r"license \(or --license\) is a text"):
        import_dataset(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/test-00000-of-00003.parquet", "test"), ("test/data-00000-of-00001.arrow", "test"),
        ("validate.json", "validation"), ("medqa-dev.jsonl", "validation"), ("Chest CT Scan.json", ""),
        ("val/anatomy_val.csv", "validation"), ("records.jsonl", ""),
    ],
)  # fmt: skip
def test_the_split_is_read_from_a_files_name_and_its_folders(path: str, split: str, tmp_path: Path) -> None:
    tmp_path.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
    assert split_of(tmp_path / path, tmp_path) == split
    if split == "validation" and "dev" in path:
        assert split_of(tmp_path / path, tmp_path, keep_dev=True) == "dev"
