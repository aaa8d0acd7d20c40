"""Asking probes with a real, tiny, random model: the clean run's bytes, one encoding a picture, resuming, identity."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.phantoms import write_phantoms
from infimed.evaluation.predict import Asking, EvaluateError, predict
from infimed.evaluation.predict_probes import coverage_text, predict_probes, read_record
from infimed.evaluation.prediction import PredictionError, Subject, complete_runs, read_run
from infimed.evaluation.probes import ProbeSpec, parse_probes

torch = pytest.importorskip("torch")
from infimed.training.reference import open_reference  # noqa: E402

SUBJECT = Subject("checkpoint", "checkpoint", "0" * 64, 1)
ASKING = Asking(max_tokens=3)
SPECS = parse_probes(["shuffle", "paraphrase", "swap", "mirror", "noise:2", "blur:2"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data") / "set"
    return write_phantoms(folder, 4, 3, ("ct", "fundus"), per_image=3, roles={"test": 1.0})


class Watched:
    """Stands around the real engine and counts what it is asked and what it encodes."""

    def __init__(self, checkpoint: Path, fail_after: int = 10**9) -> None:
        self.engine = open_reference(checkpoint, threads=1)
        self.encoded: Counter[str] = Counter()
        self.asked, self.fail_after, self.closed = 0, fail_after, False
        self.level = self.engine.level
        encode = self.engine.backend.encode_image

        def counted(image):  # type: ignore[no-untyped-def]
            self.encoded[image.key] += 1
            return encode(image)

        self.engine.backend.encode_image = counted

    def _count(self) -> None:
        self.asked += 1
        if self.asked > self.fail_after:
            raise RuntimeError("the power went")

    def score(self, messages, options):  # type: ignore[no-untyped-def]
        self._count()
        return self.engine.score(messages, options)

    def generate(self, messages, sampling):  # type: ignore[no-untyped-def]
        self._count()
        return self.engine.generate(messages, sampling)

    def close(self) -> None:
        self.closed = True
        self.engine.close()


def ask(engine, dataset: Dataset, out: Path, specs=SPECS, **more):  # type: ignore[no-untyped-def]
    return predict_probes(engine, dataset, out, "checkpoint", specs, subject=SUBJECT, asking=ASKING, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "speed" not in path.name
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, dataset: Dataset) -> tuple[Path, Watched]:
    out, engine = tmp_path_factory.mktemp("runs"), Watched(checkpoint)
    ask(lambda: engine, dataset, out, grey=True)
    return out, engine


def test_the_clean_and_the_grey_run_are_those_that_predict_writes(
    tmp_path: Path, checkpoint: Path, dataset: Dataset, made: tuple[Path, Watched]
) -> None:
    for grey in (False, True):
        predict(
            lambda: open_reference(checkpoint, threads=1), dataset, tmp_path, "checkpoint", subject=SUBJECT,
            asking=replace(ASKING, grey=grey),
        )  # fmt: skip
    written = files(tmp_path)
    assert set(written) == {f"checkpoint{part}.{end}" for part in ("", ".grey") for end in ("jsonl", "meta.json")}
    assert written == {name: data for name, data in files(made[0]).items() if name in written}


def test_runs_of_probes_lie_in_a_folder_of_their_own_with_what_makes_them_themselves(
    dataset: Dataset, made: tuple[Path, Watched]
) -> None:
    out, engine = made
    assert engine.closed
    assert complete_runs(out) == ("checkpoint", "checkpoint.grey")
    assert set(complete_runs(out / "probes")) == {f"checkpoint.{spec.label}" for spec in SPECS}
    for spec in SPECS:
        run = read_run(out / "probes", f"checkpoint.{spec.label}")
        record = read_record(out / "probes" / f"{spec.label}.json")
        settings = run.meta.identity.settings
        assert (settings["probe"], settings["probe_severity"], settings["probe_seed"]) == (spec.name, spec.severity, 0)
        assert settings["probe_sha256"] == record.sha256 and settings["max_tokens"] == 3
        assert ("pillow" in settings) == spec.row.changes_picture
        assert run.meta.items == record.rows and record.items + sum(record.left_out.values()) == len(dataset.examples)


def test_a_picture_is_encoded_once_for_all_runs_that_show_it(made: tuple[Path, Watched]) -> None:
    _, engine = made
    assert set(engine.encoded.values()) == {1}
    # 4 as they are (the swapped ones are among them), grey, and 4 each mirrored, noisy and blurred
    assert len(engine.encoded) == 4 + 1 + 3 * 4


def test_swapped_and_mirrored_rows_see_other_pixels_than_clean_ones(made: tuple[Path, Watched]) -> None:
    out, _ = made
    clean = {row.example_id: row for row in read_run(out, "checkpoint").predictions}
    for label in ("swap", "mirror", "noise-2", "blur-2"):
        rows = read_run(out / "probes", f"checkpoint.{label}").predictions
        moved = [row for row in rows if row.probabilities != clean[row.example_id.split("~")[0]].probabilities]
        assert len(moved) > len([row for row in rows if row.options]) / 2, label


def test_a_probe_asked_alone_has_the_bytes_it_has_among_others(
    tmp_path: Path, checkpoint: Path, dataset: Dataset, made: tuple[Path, Watched]
) -> None:
    ask(lambda: Watched(checkpoint), dataset, tmp_path, [ProbeSpec("mirror")])
    alone = files(tmp_path)
    assert set(alone) == {
        "checkpoint.jsonl", "checkpoint.meta.json", "probes/mirror.json", "probes/checkpoint.mirror.jsonl",
        "probes/checkpoint.mirror.meta.json",
    }  # fmt: skip
    assert alone == {name: data for name, data in files(made[0]).items() if name in alone}


def test_killed_anywhere_it_goes_on_to_the_same_bytes_and_asks_nothing_twice(
    tmp_path: Path, checkpoint: Path, dataset: Dataset, made: tuple[Path, Watched]
) -> None:
    asked, total = 0, made[1].asked
    for stop in (1, 7, 20, 10**9):
        engine = Watched(checkpoint, stop)
        try:
            ask(lambda engine=engine: engine, dataset, tmp_path, grey=True)
        except RuntimeError:
            assert engine.closed
            asked += engine.asked - 1
        else:
            asked += engine.asked
    assert asked == total
    assert files(tmp_path) == files(made[0])
    ask(lambda: pytest.fail("opened"), dataset, tmp_path, grey=True)


def test_another_seed_in_the_same_folder_is_refused_before_anything_is_asked(
    dataset: Dataset, made: tuple[Path, Watched]
) -> None:
    out, _ = made
    before = files(out)
    with pytest.raises(EvaluateError, match=r"noise-2\.json is of other questions: its \w+ is .*name another folder"):
        ask(lambda: pytest.fail("opened"), dataset, out, parse_probes(["noise:2"], seed=1))
    assert files(out) == before


def test_a_record_that_is_none_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "mirror.json").write_text("{}")
    with pytest.raises(PredictionError, match="cannot be read"):
        ask(lambda: pytest.fail("opened"), dataset, tmp_path, [ProbeSpec("mirror")])


def test_a_probe_that_covers_nothing_makes_no_run_and_says_so(tmp_path: Path, checkpoint: Path) -> None:
    data = write_phantoms(tmp_path / "set", 2, 3, ("ct", "mri"), tasks=("open",), roles={"test": 1.0})
    made = ask(lambda: Watched(checkpoint), data, tmp_path / "runs", [ProbeSpec("shuffle")])
    assert set(made.files) == {"checkpoint"} and not (tmp_path / "runs" / "probes").exists()
    told = [coverage_text(record) for record in made.records]
    assert told == [
        f"shuffle covers 0 of {len(data.examples)} questions "
        f"(left out: {len(data.examples)} is no choice among options)"
    ]


def test_an_empty_role_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(EvaluateError, match="no example in the role 'search'"):
        ask(lambda: pytest.fail("opened"), dataset, tmp_path, role="search")


def test_grey_rows_of_a_probe_list_are_the_grey_run(tmp_path: Path, checkpoint: Path, dataset: Dataset) -> None:
    made = ask(lambda: Watched(checkpoint), dataset, tmp_path, [ProbeSpec("grey")])
    assert set(made.files) == {"checkpoint", "checkpoint.grey"}
    assert np.array([row.images for row in read_run(tmp_path, "checkpoint.grey").predictions]).all()
