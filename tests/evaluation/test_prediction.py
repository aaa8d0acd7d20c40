"""Runs on disk: rows as they come, a kill at any byte, and nothing half written or mixed."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from infimed.evaluation.journal import Journal
from infimed.evaluation.prediction import (
    Identity,
    Prediction,
    PredictionError,
    Subject,
    complete_runs,
    items_digest,
    read_meta,
    read_rows,
    read_run,
    unfinished_runs,
)

from .planted import answered, items, write_run

ROWS = [answered(row, index % 3 > 0) for index, row in enumerate(items({("ct", "finding"): 7, ("mri", "count"): 5}))]
IDS = [row.example_id for row in ROWS]
IDENTITY = Identity("gguf-q8_0", Subject("bundle", "gguf-q8_0", "a" * 64, 12_345), "own", "set", "b" * 64, "test",
                    {"max_tokens": 48}, {"library": "llama-cpp-python", "gpu_layers": 0})  # fmt: skip


def write(folder: Path, count: int = len(ROWS), identity: Identity = IDENTITY) -> None:
    with Journal(folder, identity, IDS) as journal:
        for row in ROWS[journal.done : count]:
            journal.append(row, 0.5)
        if count == len(ROWS):
            journal.finish()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.endswith("speed.jsonl")}


def test_a_finished_run_reads_back_and_leaves_nothing_else(tmp_path: Path) -> None:
    write(tmp_path)
    assert sorted(files(tmp_path)) == ["gguf-q8_0.jsonl", "gguf-q8_0.meta.json"]
    run = read_run(tmp_path, "gguf-q8_0")
    assert run.meta.identity == IDENTITY and run.meta.items == len(ROWS)
    assert [row.example_id for row in run.predictions] == IDS
    assert run.predictions[0].option_logprobs_nats == pytest.approx(ROWS[0].option_logprobs_nats, abs=1e-9)
    assert run.items_per_second == pytest.approx(2.0)
    assert complete_runs(tmp_path) == ("gguf-q8_0",)


def test_a_kill_after_any_byte_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "whole")
    expected, part = files(tmp_path / "whole"), (tmp_path / "whole" / "gguf-q8_0.jsonl").read_bytes()
    write(tmp_path / "begun", 1)
    started = (tmp_path / "begun" / "gguf-q8_0.started.json").read_bytes()
    ends = [index + 1 for index, byte in enumerate(part) if byte == 10]
    for cut in sorted({0, 1, 5, len(part) - 1, *range(0, len(part), 97), *ends}):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "gguf-q8_0.started.json").write_bytes(started)
        (folder / "gguf-q8_0.jsonl.part").write_bytes(part[:cut])
        asked = []
        with Journal(folder, IDENTITY, IDS) as journal:
            assert journal.done == sum(end <= cut for end in ends)  # whole rows are never asked again
            for row in ROWS[journal.done :]:
                asked.append(row.example_id)
                journal.append(row, 0.1)
            journal.finish()
        assert files(folder) == expected


def test_a_kill_between_the_last_rename_and_the_meta_file_resumes(tmp_path: Path) -> None:
    write(tmp_path / "whole")
    expected = files(tmp_path / "whole")
    for part in (None, b""):
        folder = tmp_path / f"cut-{part!r:.4}"
        write(folder, 3)
        (folder / "gguf-q8_0.jsonl.part").unlink()
        (folder / "gguf-q8_0.jsonl").write_bytes(expected["gguf-q8_0.jsonl"])
        if part is not None:
            (folder / "gguf-q8_0.jsonl.part").write_bytes(part)
        with Journal(folder, IDENTITY, IDS) as journal:
            assert journal.done == len(ROWS)
            journal.finish()
        assert files(folder) == expected


def test_a_kill_just_before_the_first_row_resumes(tmp_path: Path) -> None:
    tmp_path.joinpath("gguf-q8_0.jsonl.part").touch()
    write(tmp_path)
    assert read_run(tmp_path, "gguf-q8_0").meta.items == len(ROWS)


def test_an_unfinished_run_bears_no_final_name_and_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, 4)
    assert not (tmp_path / "gguf-q8_0.jsonl").exists()
    assert read_meta(tmp_path, "gguf-q8_0") is None and complete_runs(tmp_path) == ()
    with pytest.raises(PredictionError, match="is not complete"):
        read_run(tmp_path, "gguf-q8_0")
    with pytest.raises(PredictionError, match="does not exist"):
        read_run(tmp_path, "gguf-q4_0")


@pytest.mark.parametrize("count", [4, len(ROWS)])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dataset_sha256": "c" * 64}, "dataset_sha256"),
        ({"role": "search"}, "role is 'test', not 'search'"),
        ({"settings": {"max_tokens": 8}}, "settings.max_tokens is 48, not 8"),
        ({"subject": Subject("bundle", "gguf-q8_0", "f" * 64, 12_345)}, "subject.digest"),
        ({"engine": {"library": "llama-cpp-python", "gpu_layers": 9}}, "engine.gpu_layers is 0, not 9"),
        ({"engine": {"library": "onnxruntime"}}, "engine.gpu_layers is 0, not None"),
    ],
)
def test_another_model_dataset_or_setting_never_goes_on_with_a_run(tmp_path: Path, count, change, told) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, count)
    before = files(tmp_path)
    with (
        pytest.raises(PredictionError, match=told),
        Journal(tmp_path, dataclasses.replace(IDENTITY, **change), IDS),
    ):
        pass
    assert files(tmp_path) == before


def test_rows_of_no_known_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gguf-q8_0.jsonl.part").write_bytes(ROWS[0].to_line())
    with pytest.raises(PredictionError, match="no known run"), Journal(tmp_path, IDENTITY, IDS):
        pass


def test_two_writers_of_one_run_cannot_both_write(tmp_path: Path) -> None:
    with (
        Journal(tmp_path, IDENTITY, IDS) as journal,
        pytest.raises(PredictionError, match="another process"),
        Journal(tmp_path, IDENTITY, IDS),
    ):
        pass
    assert journal.done == 0
    write(tmp_path)


def test_a_changed_row_a_missing_row_and_a_broken_meta_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    rows = tmp_path / "gguf-q8_0.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole.replace(b'"correct": false', b'"correct": true', 1))
    with pytest.raises(PredictionError, match="changed after it was written"):
        read_run(tmp_path, "gguf-q8_0")
    with pytest.raises(PredictionError, match="changed after it was written"), Journal(tmp_path, IDENTITY, IDS):
        pass
    rows.unlink()
    with pytest.raises(PredictionError, match="missing or changed"):
        read_run(tmp_path, "gguf-q8_0")
    (tmp_path / "gguf-q8_0.meta.json").write_text("{")
    with pytest.raises(PredictionError, match="cannot be read"):
        read_meta(tmp_path, "gguf-q8_0")


def test_a_run_copied_under_another_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    for suffix in (".jsonl", ".meta.json"):
        (tmp_path / f"gguf-q4_k_m{suffix}").write_bytes((tmp_path / f"gguf-q8_0{suffix}").read_bytes())
    with pytest.raises(PredictionError, match=r"gguf-q4_k_m\.meta\.json is of the run 'gguf-q8_0'"):
        read_run(tmp_path, "gguf-q4_k_m")


def test_a_stray_meta_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "notes.meta.json").write_text("{}")
    with pytest.raises(PredictionError, match=r"notes\.meta\.json cannot be read .* move it out of the folder"):
        read_run(tmp_path, "notes")
    (tmp_path / "my notes.meta.json").write_text("{}")
    with pytest.raises(PredictionError, match=r"my notes\.meta\.json is no run's.*move it out of the folder"):
        complete_runs(tmp_path)


@pytest.mark.parametrize("digest", ["", "<img src=x onerror=alert(1)>", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_digest_that_is_none_is_refused_at_the_door(tmp_path: Path, digest: str) -> None:
    write(tmp_path)
    path = tmp_path / "gguf-q8_0.meta.json"
    for field in ("digest", "dataset_sha256", "predictions_sha256"):
        meta = json.loads(path.read_bytes())
        owner = {"digest": meta["identity"]["subject"], "dataset_sha256": meta["identity"]}.get(field, meta)
        owner[field] = digest
        other = tmp_path / field
        other.mkdir()
        (other / path.name).write_text(json.dumps(meta))
        with pytest.raises(PredictionError, match=f"{field} is .*64 hexadecimal digits"):
            read_meta(other, "gguf-q8_0")


def test_a_run_that_was_begun_is_found_with_its_rows_until_it_is_complete(tmp_path: Path) -> None:
    write(tmp_path, 4)
    assert unfinished_runs(tmp_path) == {"gguf-q8_0": 4}
    part, started = tmp_path / "gguf-q8_0.jsonl.part", tmp_path / "gguf-q8_0.started.json"
    part.rename(tmp_path / "gguf-q8_0.jsonl")  # killed before the meta file
    assert unfinished_runs(tmp_path) == {"gguf-q8_0": 4}
    (tmp_path / "gguf-q8_0.jsonl").unlink()
    assert unfinished_runs(tmp_path) == {"gguf-q8_0": 0}
    started.unlink()
    write(tmp_path)
    assert unfinished_runs(tmp_path) == {}


def test_a_row_that_is_none_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = json.loads(ROWS[0].to_line())
    for change, told in (
        ({"correct": 1}, "row.correct is 1; it must be bool"),
        ({"surprise": 1}, "row has the unknown field 'surprise'"),
        ({"options": "left"}, "row.options is 'left'; it must be a list"),
        ({"answer": "up"}, "example .*: the answer 'up' is not one of the options"),
        ({"choice": "up"}, "example .*: the choice 'up' is not one of the options"),
        ({"probabilities": [1.0]}, "example .*: probabilities has 1 values for 4 options"),
        ({"option_tokens": []}, "example .*: option_logprobs_nats without option_tokens"),
        ({"example_id": ""}, "example '': example_id or group is empty"),
    ):
        path.write_bytes(ROWS[0].to_line() + json.dumps({**row, **change}).encode() + b"\n")
        with pytest.raises(PredictionError, match=rf"x\.jsonl:2: {told}"):
            read_rows(path)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 200, "a\nb"])
def test_a_run_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(PredictionError, match="is no name for a run"):
        Journal(tmp_path, dataclasses.replace(IDENTITY, run=name), IDS)


def test_rows_out_of_their_order_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, IDENTITY, IDS) as journal:
        with pytest.raises(ValueError, match="row 0"):
            journal.append(ROWS[1], 0.1)
        with pytest.raises(ValueError, match="0 of 12 rows"):
            journal.finish()


def test_the_items_digest_sees_questions_and_keys_but_no_answers(tmp_path: Path) -> None:
    one = items_digest(ROWS)
    assert one == items_digest([answered(row, True) for row in reversed(ROWS)])
    assert one != items_digest(ROWS[1:])
    assert one != items_digest([dataclasses.replace(ROWS[0], answer="none"), *ROWS[1:]])


def test_a_row_keeps_its_text_as_utf8_and_its_numbers_finite() -> None:
    row = dataclasses.replace(ROWS[0], wording="Où ?", probabilities=(float("nan"),) * 4)
    with pytest.raises(Exception, match="nan has no JSON form"):
        row.to_line()
    line = dataclasses.replace(ROWS[0], wording="Où ?").to_line()
    assert "Où".encode() in line and list(json.loads(line)) == sorted({*vars(ROWS[0])} - {"kept", "forced", "aliases"})
    assert isinstance(ROWS[0], Prediction)


def test_the_written_files_are_flushed_before_they_get_their_names(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    flushed = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(handle), real(handle))[1])
    write_run(tmp_path, "gguf-f16", ROWS, [True] * len(ROWS))
    assert len(flushed) >= 3  # the identity, the rows, the meta file
