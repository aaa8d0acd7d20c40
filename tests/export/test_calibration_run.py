from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from infimed.evaluation.dataset import Dataset
from infimed.export import calibration_run
from infimed.export.activations import Activations
from infimed.export.calibration import CalibrationError
from infimed.export.calibration_run import ACTIVATIONS, IMATRIX, MANIFEST, calibrate, entry_folder
from infimed.runtime.events import Event

from ..folders import contents
from .calibration_sets import phantom_set, tiny_checkpoint

FILES = {ACTIVATIONS, IMATRIX, MANIFEST}
ASK = """
import sys, time
from pathlib import Path
from infimed.evaluation.dataset import Dataset
from infimed.export.calibration_run import calibrate
checkpoint, dataset, cache, wait = sys.argv[1:]
def tell(event):
    print(event.done, event.note, flush=True)
    time.sleep(float(wait))
calibrate(Path(checkpoint), Dataset.open(Path(dataset)), cache=Path(cache), on_event=tell)
"""


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_set(tmp_path_factory.mktemp("set") / "set", images=20)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def unbroken(checkpoint: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Activations]:
    cache = tmp_path_factory.mktemp("cache")
    made = calibrate(checkpoint, Dataset.open(dataset), cache=cache)
    return entry_folder(cache, made), made


def measuring(*arguments: object, wait: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASK, *map(str, arguments), str(wait)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_was_measured_is_read_from_the_cache_without_another_pass(
    checkpoint: Path, dataset: Path, unbroken: tuple[Path, Activations], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = unbroken
    assert set(contents(folder)) == FILES
    monkeypatch.setattr(calibration_run, "run_pass", None)
    events: list[Event] = []
    again = calibrate(checkpoint, Dataset.open(dataset), cache=folder.parent, on_event=events.append)
    assert events[-1].note == "from the cache" and events[-1].done == events[-1].total
    assert again.counts == made.counts and (again.sha256, again.dataset_sha256) == (made.sha256, made.dataset_sha256)
    for kind in ("mean_square", "largest"):
        ours, theirs = getattr(again, kind), getattr(made, kind)
        assert {name: values.tobytes() for name, values in ours.items()} == {
            name: values.tobytes() for name, values in theirs.items()
        }


@pytest.mark.parametrize("damaged", sorted(FILES))
def test_a_damaged_entry_is_measured_again_to_the_same_bytes(
    checkpoint: Path, dataset: Path, unbroken: tuple[Path, Activations], damaged: str
) -> None:
    folder, _ = unbroken
    before = contents(folder)
    data = bytearray(before[damaged])
    data[len(data) // 2] ^= 1
    (folder / damaged).write_bytes(data)
    events: list[Event] = []
    calibrate(checkpoint, Dataset.open(dataset), cache=folder.parent, on_event=events.append)
    assert events[0].done == 1, "it was measured, not read"
    assert contents(folder) == before


def test_another_checkpoint_other_rows_and_other_settings_are_other_entries(
    checkpoint: Path, dataset: Path, unbroken: tuple[Path, Activations], tmp_path: Path
) -> None:
    cache = unbroken[0].parent
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    fewer = phantom_set(tmp_path / "fewer", images=6)
    made = [
        calibrate(checkpoint, Dataset.open(dataset), cache=cache, images=False),
        calibrate(other, Dataset.open(fewer), cache=cache),
        calibrate(checkpoint, Dataset.open(fewer), cache=cache),
    ]
    assert len({unbroken[1].sha256, *(one.sha256 for one in made)}) == 4
    assert made[0].dataset_sha256 == unbroken[1].dataset_sha256 != made[1].dataset_sha256


@pytest.mark.parametrize("stop_after", [5, 9, 19])
def test_a_pass_broken_off_goes_on_and_ends_with_the_bytes_of_an_unbroken_one(
    checkpoint: Path, dataset: Path, unbroken: tuple[Path, Activations], tmp_path: Path, stop_after: int
) -> None:
    def stop(event: Event) -> None:
        if event.done == stop_after:
            raise Stop

    with pytest.raises(Stop):
        calibrate(checkpoint, Dataset.open(dataset), cache=tmp_path, on_event=stop)
    folder = tmp_path / unbroken[0].name
    assert not set(contents(folder)) & FILES
    events: list[Event] = []
    calibrate(checkpoint, Dataset.open(dataset), cache=tmp_path, on_event=events.append)
    kept = stop_after // calibration_run.FLUSH_ROWS * calibration_run.FLUSH_ROWS
    assert [event.done for event in events if event.note == "gone on with"] == ([kept] if kept else [])
    assert [event.done for event in events if not event.note] == list(range(kept + 1, events[-1].total + 1))
    assert contents(folder) == contents(unbroken[0])


def test_kept_totals_that_are_damaged_are_not_gone_on_with(
    checkpoint: Path, dataset: Path, unbroken: tuple[Path, Activations], tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if event.done == 16:
            raise Stop

    with pytest.raises(Stop):
        calibrate(checkpoint, Dataset.open(dataset), cache=tmp_path, on_event=stop)
    (state,) = (tmp_path / unbroken[0].name).iterdir()
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    events: list[Event] = []
    calibrate(checkpoint, Dataset.open(dataset), cache=tmp_path, on_event=events.append)
    assert events[0].done == 1
    assert contents(state.parent) == contents(unbroken[0])


def test_no_path_and_no_text_of_the_dataset_enters_an_entry(
    checkpoint: Path, dataset: Path, unbroken: tuple[Path, Activations]
) -> None:
    whole = b"".join(contents(unbroken[0]).values())
    for secret in (str(dataset), str(checkpoint), str(unbroken[0].parent), dataset.name + "-drawn", "lower lobe"):
        assert secret.encode() not in whole
    assert unbroken[1].dataset_sha256.encode() in whole


def test_a_cache_that_cannot_be_written_is_refused_with_its_name(
    checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match=r"file/[0-9a-f]{64} cannot be used as a cache"):
        calibrate(checkpoint, Dataset.open(dataset), cache=tmp_path / "file")


def test_the_cache_lies_where_the_desktop_standard_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibration_run.calibration_cache() == tmp_path / "infimed" / "calibration"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert calibration_run.calibration_cache() == tmp_path / "home" / ".cache" / "infimed" / "calibration"


@pytest.mark.full
def test_a_killed_process_is_gone_on_with_by_the_next(
    checkpoint: Path, dataset: Path, unbroken: tuple[Path, Activations], tmp_path: Path
) -> None:
    process = measuring(checkpoint, dataset, tmp_path, wait=0.05)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("13 "):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    events: list[Event] = []
    calibrate(checkpoint, Dataset.open(dataset), cache=tmp_path, on_event=events.append)
    assert (events[0].done, events[0].note) == (8, "gone on with")
    assert contents(tmp_path / unbroken[0].name) == contents(unbroken[0])


@pytest.mark.full
def test_of_two_processes_one_measures_and_the_other_waits(
    checkpoint: Path, dataset: Path, unbroken: tuple[Path, Activations], tmp_path: Path
) -> None:
    first = measuring(checkpoint, dataset, tmp_path, wait=0.2)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*/totals.part")) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = measuring(checkpoint, dataset, tmp_path)
    told = [process.communicate(timeout=120)[0].splitlines() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(told[0]) > 2 and told[1] == [f"{len(told[0])} from the cache"]
    assert contents(tmp_path / unbroken[0].name) == contents(unbroken[0])
