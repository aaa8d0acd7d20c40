"""Rows at the door: a licence is never invented, patient 0 is a patient, and one bad row ends no import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infimed.cli.app import run
from infimed.evaluation.dataset import Dataset, RowFault
from infimed.evaluation.example import DatasetError
from infimed.evaluation.import_rows import Defaults
from infimed.evaluation.importers import import_dataset

from .test_importers import jsonl, picture, plain, vqa_rad

MCQ = {"question": "Which is right?\nAnswer Choices: (A) one (B) two", "label": ["A"]}
PUBMED = {"pmid": "7", "QUESTION": "Does it help?", "CONTEXTS": ["We tried."], "final_decision": "yes"}
VQA = vqa_rad(1, "a.jpg", "CHEST", "yes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "images").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "in" / "images" / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "in" / "images" / "a.jpg").write_bytes(picture(9))
    return tmp_path / "in"


def reasons(made: Dataset) -> dict[int, str]:
    refused = made.manifest.details["refused"]
    assert isinstance(refused, list)
    return {row["line"]: row["reason"] for row in refused}


@pytest.mark.parametrize(
    ("file", "row", "known"),
    [
        ("medqa.jsonl", MCQ, "MIT"),
        ("pqal_test.jsonl", PUBMED, "MIT"),
        ("test.jsonl", VQA, "CC0-1.0"),
    ],
)
def test_the_licence_of_a_published_file_is_the_last_that_is_asked(
    file: str, row: dict[str, Any], known: str, folder: Path, tmp_path: Path
) -> None:
    licences = {}
    for name, changes, flag in (
        ("built in", {}, ""),
        ("blank", {"license": " "}, ""),
        ("by flag", {}, "CC-BY-4.0"),
        ("by row", {"license": "CC-BY-NC-ND-4.0"}, ""),
        ("by both", {"licence": "CC-BY-NC-ND-4.0"}, "CC-BY-4.0"),
    ):
        jsonl(folder / file, [{**row, **changes}])
        made = import_dataset(folder, tmp_path / name, defaults=Defaults(license=flag))
        licences[name] = made.examples[0].license
    assert licences == {
        "built in": known, "blank": known, "by flag": "CC-BY-4.0", "by row": "CC-BY-NC-ND-4.0",
        "by both": "CC-BY-NC-ND-4.0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "row"),
    [
        ("medqa_private.jsonl", MCQ),
        ("medmcqa2.jsonl", MCQ),
        ("ours.jsonl", PUBMED),
        ("train_new.jsonl", VQA),
    ],
)
def test_a_file_of_another_name_has_no_licence_but_a_stated_one(
    file: str, row: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    jsonl(folder / file, [row])
    with pytest.raises(DatasetError, match=r"license \(or --license\) is a text"):
        import_dataset(folder, tmp_path / "out")
    made = import_dataset(folder, tmp_path / "out", defaults=Defaults(license="ours"))
    assert made.examples[0].license == "ours"


def test_a_source_that_a_row_states_goes_before_the_flag(folder: Path, tmp_path: Path) -> None:
    jsonl(folder / "medqa.jsonl", [{**MCQ, "source": "ward"}, MCQ])
    made = import_dataset(folder, tmp_path / "out", defaults=Defaults(source="flag"))
    assert [row.source for row in made.examples] == ["ward", "flag"]


def test_patient_0_is_a_patient_and_what_names_no_one_is_refused(folder: Path, tmp_path: Path) -> None:
    stated: list[Any] = [0, 0.0, "0", 7.0, "", None, 0.5, float("nan"), True, ["p"], {"id": 1}]
    rows = [plain(n, id=n, image=f"images/{n % 4}.jpg", patient=patient) for n, patient in enumerate(stated)]
    jsonl(folder / "records.jsonl", rows)
    made = import_dataset(folder, tmp_path / "out")
    groups = [row.group for row in made.examples]
    assert groups[:4] == ["0", "0", "0", "7"]
    assert len(groups) == 6 and all(group.startswith("image:") for group in groups[4:])
    found = reasons(made)
    assert sorted(found) == [7, 8, 9, 10, 11]
    assert "NaN is no number" in found[8], "JSON has no NaN"
    assert all("patient (or group) is a text or a whole number" in found[line] for line in (7, 9, 10, 11))


def test_parquet_keeps_patient_0_and_refuses_nan(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [plain(n, image={"bytes": picture(n), "path": None}, patient=p) for n, p in enumerate((0.0, 0.0, 1.0))]
    table = datasets.Dataset.from_list([*rows, {**rows[0], "id": "r3", "patient": float("nan")}])
    table.to_parquet(str(tmp_path / "pq" / "rows.parquet"))
    made = import_dataset(tmp_path / "pq", tmp_path / "out")
    assert [row.group for row in made.examples] == ["0", "0", "1"]
    assert "patient (or group) is a text or a whole number, not nan" in reasons(made)[4]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optoins": ["a", "b"], "options": None}, "unknown field 'optoins'; is options meant?"),
        ({"answer_typ": "yesno"}, "unknown field 'answer_typ'; is answer_type meant?"),
        ({"patients": "p", "patient": None}, "unknown field 'patients'; is patient meant?"),
        ({"aliasses": ["x"]}, "unknown field 'aliasses'; is aliases meant?"),
    ],
)
def test_a_misspelt_field_is_refused_where_it_would_silently_do_nothing(
    changes: dict[str, Any], told: str, folder: Path, tmp_path: Path
) -> None:
    jsonl(folder / "records.jsonl", [plain(0, dose="5 mg", answer_letter="B"), plain(1, **changes)])
    made = import_dataset(folder, tmp_path / "out")
    assert [row.id for row in made.examples] == ["r0"] and told in reasons(made)[2]
    assert made.examples[0].attributes["answer_letter"] == "B", "a field of another name is kept"


@pytest.mark.parametrize("empty", ["", " ", None, []])
@pytest.mark.parametrize("name", ["id", "question", "answer", "modality"])
def test_an_empty_cell_is_told_by_its_field(name: str, empty: object, folder: Path, tmp_path: Path) -> None:
    jsonl(folder / "records.jsonl", [plain(0, **{name: empty}), plain(1)])
    made = import_dataset(folder, tmp_path / "out")
    assert [row.id for row in made.examples] == ["r1"]
    assert reasons(made)[1].startswith(f"{name} is a text")


def test_an_empty_cell_among_options_or_aliases_is_told(folder: Path, tmp_path: Path) -> None:
    rows = [plain(0, options=["CT", None, "X-ray"]), plain(1, aliases=["", "x"]), plain(2, options=["CT", " "])]
    jsonl(folder / "records.jsonl", [*rows, plain(3)])
    made = import_dataset(folder, tmp_path / "out")
    assert [row.id for row in made.examples] == ["r3"]
    assert [reasons(made)[line] for line in (1, 2, 3)] == [
        "an entry of options is a text, not None", "an entry of aliases is a text, not ''",
        "an entry of options is a text, not ' '",
    ]  # fmt: skip


def test_a_line_cut_off_by_a_kill_is_named_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    jsonl(folder / "records.jsonl", [plain(0), plain(1)])
    data = (folder / "records.jsonl").read_bytes()
    for cut in (len(data) - 2, len(data) - 40):
        (folder / "records.jsonl").write_bytes(data[:cut])
        with pytest.raises(DatasetError, match=r"records\.jsonl:2: the row is not JSON .* the file is malformed"):
            import_dataset(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists() and (folder / "records.jsonl").read_bytes() == data[:cut], "nothing is lost"


BAD = {
    "text for bytes": plain(1, image={"bytes": "abc"}),
    "numbers for bytes": plain(2, image={"bytes": [1, 2, 300]}),
    "nul": plain(3, image="images/\0.png"),
    "half a pair": plain(4, id="a\ud800", image="images/0.jpg"),
    "half a pair in a path": plain(5, image="images/\ud800.jpg"),
    "long name": plain(6, image="images/" + "x" * 5000 + ".png"),
    "folder": plain(7, image="images"),
    "not a number": plain(8, image="images/0.jpg", dose=float("nan")),
    "digits": '{"id": "r9", "dose": ' + "9" * 5000 + "}",
    "deep": "[" * 20_000 + "]" * 20_000,
    "a list for an id": plain(11, id=["a"], image="images/0.jpg"),
}


def test_one_bad_row_of_any_kind_is_refused_and_the_others_stay(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in BAD.values()]
    (folder / "records.jsonl").write_text("\n".join([*lines, json.dumps(plain(0))]) + "\n")
    assert run(["data", "import", str(folder), "--out", str(tmp_path / "out"), "--json"]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    assert told["examples"] == 1
    assert [row["line"] for row in told["refused"]] == list(range(1, len(BAD) + 1))
    by_name = dict(zip(BAD, told["refused"], strict=True))
    for name, value in (("text for bytes", "abc"), ("numbers for bytes", "300")):
        reason = by_name[name]["reason"]
        assert "the bytes of an image are bytes" in reason and value in reason
    assert by_name["half a pair"]["id"] == "a\\ud800", "an id that UTF-8 cannot hold is written with its digits"
    assert Dataset.open(tmp_path / "out").manifest.details["refused"] == told["refused"]


def test_a_deep_first_row_hides_no_layout(folder: Path, tmp_path: Path) -> None:
    (folder / "records.jsonl").write_text("[" * 20_000 + "]" * 20_000 + "\n" + json.dumps(plain(0)) + "\n")
    assert len(import_dataset(folder, tmp_path / "out").examples) == 1


def test_an_image_that_changed_in_a_dataset_of_ours_is_not_given_a_new_hash(folder: Path, tmp_path: Path) -> None:
    jsonl(folder / "records.jsonl", [plain(0), plain(1)])
    made = import_dataset(folder, tmp_path / "one")
    (made.folder / made.examples[0].images[0].path).write_bytes(picture(8))
    again = import_dataset(made.folder, tmp_path / "two")
    assert [row.id for row in again.examples] == ["r1"]
    assert "changed after its dataset was written" in reasons(again)[1]


def test_a_fault_with_half_a_pair_in_its_id_can_be_written(folder: Path, tmp_path: Path) -> None:
    from ..training.curation_rows import add_lines

    jsonl(folder / "records.jsonl", [plain(0)])
    made = import_dataset(folder, tmp_path / "one")
    add_lines(made, [{**made.examples[0].to_json(), "id": "a\ud800"}, "[" * 20_000])
    faults: list[RowFault] = []
    Dataset.open(made.folder, faults.append)
    assert faults[0].id == "a\\ud800" and "UTF-8" in faults[0].reason and "not JSON" in faults[1].reason
    for fault in faults:
        (fault.id + fault.reason).encode()


def test_a_broken_parquet_file_is_one_line(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datasets")
    (folder / "rows.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    assert run(["data", "import", str(folder), "--out", str(tmp_path / "out"), "--layout", "parquet"]) == 2
    told = capfd.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("error: ") and "cannot be read as Parquet" in told[0]
