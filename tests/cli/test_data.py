"""`infimed data` from the outside: data on stdout, the rest on stderr, one clear line for bad input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infimed.cli.app import run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "clinic"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 80, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        (folder / "images" / f"{number}.png").write_bytes(stream.getvalue())
        rows.append(
            {
                "id": f"r{number}",
                "image": f"images/{number}.png",
                "modality": "CT",
                "task": "finding",
                "question": "Is there a mass here?",
                "options": None,
                "answer": "yes",
                "source": "clinic",
                "license": "MIT" if number else "secret",
                "patient": f"p{number}",
            }
        )
    rows.append({**rows[0], "id": "bad", "modality": "PET"})
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_data_goes_from_import_over_curate_to_a_page(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imagehash")  # of the train extra; an edge device has none
    assert run(["data", "import", str(source), "--out", str(tmp_path / "set"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["examples"] == 12 and told["layout"] == "jsonl" and told["licences"] == {"MIT": 11, "secret": 1}
    assert told["refused"][0]["line"] == 13 and "'PET' is unknown" in told["refused"][0]["reason"]
    assert run(["data", "curate", str(tmp_path / "set"), "--out", str(tmp_path / "clean"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["examples"] == 11 and told["left_out"] == {"licence": 1}
    assert set(told["counts"]["role"]) <= {"train", "calibration", "search", "test"}
    page = tmp_path / "page.html"
    assert run(["data", "show", str(tmp_path / "clean"), "--out", str(page), "--limit", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shown"] == 5
    assert page.read_text().count("<img") == 5


def test_a_person_reads_counts_on_stdout_and_refused_rows_on_stderr(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "import", str(source), "--out", str(tmp_path / "set")]) == 0
    told = capsys.readouterr()
    assert "12 questions, 12 images, 12 groups; layout jsonl, rows refused: 1" in told.out
    assert "refused: records.jsonl:13: modality 'PET' is unknown" in told.err
    pytest.importorskip("imagehash")
    assert run(["data", "curate", str(tmp_path / "set"), "--out", str(tmp_path / "clean")]) == 0
    assert "left out  licence            1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "{source}", "--out", "{tmp}/set", "--strict"], "records.jsonl:13: modality 'PET'"),
        (["import", "{source}", "--out", "{source}"], "exists and is no dataset"),
        (["import", "{tmp}/nothing", "--out", "{tmp}/set"], "does not exist"),
        (["import", "{source}", "--out", "{tmp}/set", "--layout", "dicom"], "layout 'dicom' is unknown"),
        (["curate", "{source}", "--out", "{tmp}/set"], "has no manifest.json; make a dataset with"),
        (["curate", "{source}", "--out", "{tmp}/set", "--recipe", "nonesuch"], "no such recipe"),
        (["show", "{source}", "--out", "{tmp}/page.html"], "has no manifest.json"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_left(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    filled = [word.format(source=source, tmp=tmp_path) for word in arguments]
    assert run(["data", *filled]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.strip().splitlines()[-1].startswith("error:") and told.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["clinic"]


def test_a_page_that_cannot_be_written_is_named_as_it_was_asked_for(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "import", str(source), "--out", str(tmp_path / "set")]) == 0
    capsys.readouterr()
    assert run(["data", "show", str(tmp_path / "set"), "--out", str(tmp_path / "nodir" / "x.html")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/nodir/x.html: No such file or directory\n"


def test_a_curated_set_inside_its_own_input_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imagehash")
    assert run(["data", "import", str(source), "--out", str(tmp_path / "set")]) == 0
    capsys.readouterr()
    assert run(["data", "curate", str(tmp_path / "set"), "--out", str(tmp_path / "set" / "clean")]) == 2
    assert "lies inside" in capsys.readouterr().err


def test_the_benchmarks_are_listed_for_a_person_and_for_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "benchmarks"]) == 0
    text = capsys.readouterr().out
    assert run(["data", "benchmarks", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"mmmu", "vqa-rad", "slake", "path-vqa", "omnimedvqa", "pubmedqa"} <= {row["name"] for row in told}
    assert all(row["name"] in text and row["license"] in text and row["home"] in text for row in told)


def test_a_named_split_is_told_with_what_it_sets_aside_and_kept_by_curation(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imagehash")
    rows = [json.loads(line) for line in (source / "records.jsonl").read_text().splitlines()][:12]
    for number, row in enumerate(rows):
        row.update(split="test" if number < 4 else "train", license="MIT")
    rows.append({**rows[0], "id": "again", "split": "train"})  # a training question on a test image
    (source / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, kept in (("official", "train 9  1 of 4"), ("image-disjoint", "train 8  0 of 4")):
        assert run(["data", "import", str(source), "--out", str(tmp_path / split), "--split", split]) == 0
        out = capsys.readouterr().out
        assert f"split: {split}" in out and kept in out
    recipe = tmp_path / "keep.toml"
    recipe.write_text('[roles]\ndivide = "keep"\n')
    clean = tmp_path / "clean"
    arguments = [str(tmp_path / "image-disjoint"), "--out", str(clean), "--recipe", str(recipe)]
    assert run(["data", "curate", *arguments]) == 0, capsys.readouterr().err
    assert json.loads((clean / "manifest.json").read_text())["details"]["split"]["name"] == "image-disjoint"
    capsys.readouterr()
    assert run(["data", "import", str(source), "--out", str(tmp_path / "x"), "--split", "random"]) == 2
    assert "split 'random' is unknown; use one of official, image-disjoint" in capsys.readouterr().err
    assert run(["data", "import", str(source), "--out", str(tmp_path / "x"), "--subset", "en"]) == 2
    assert "layout jsonl has no subsets" in capsys.readouterr().err
