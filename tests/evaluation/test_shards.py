"""Shards: how questions are divided, what a kill leaves, and that they merge to the bytes of one run or not at all."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.example import TextRef
from infimed.evaluation.merge_shards import Merged, merge_shards
from infimed.evaluation.phantoms import write_phantoms
from infimed.evaluation.predict import Asking, by_image
from infimed.evaluation.predict_probes import predict_probes
from infimed.evaluation.prediction import PredictionError, Subject
from infimed.evaluation.probes import parse_probes
from infimed.evaluation.shards import Shard, ShardError, divided, shards_in

from ..folders import contents
from .hashed import HashedEngine
from .probing import image, question

SUBJECT = Subject("checkpoint", "hashed", "0" * 64, 1)
SPECS = parse_probes(["shuffle", "swap", "mirror", "noise:2"])
ASKING = Asking(max_tokens=3)
COUNT = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data") / "set"
    return write_phantoms(folder, 9, 3, ("ct", "fundus"), per_image=3, roles={"test": 1.0})


def ask(dataset: Dataset, out: Path, shard: Shard | None = None, **more) -> HashedEngine:  # type: ignore[no-untyped-def]
    engine = more.pop("engine", None) or HashedEngine()
    given = {"subject": SUBJECT, "asking": ASKING, "grey": True, "computed_by": {"version": "1"}, **more}
    predict_probes(lambda: engine, dataset, out, "hashed", SPECS, shard=shard, **given)
    return engine


def merge(dataset: Dataset, out: Path, **more) -> Merged:  # type: ignore[no-untyped-def]
    given = {"asking": ASKING, "grey": True, **more}
    return merge_shards(dataset, out, {"hashed": SUBJECT}, SPECS, **given)


def runs(folder: Path) -> dict[str, bytes]:
    return {
        name: data
        for name, data in contents(folder).items()
        if not name.startswith("shards/") and not name.endswith(".speed.jsonl")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    out = tmp_path_factory.mktemp("whole")
    ask(dataset, out)
    return out


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """Return a folder with all shards, the last asked first."""
    out = tmp_path_factory.mktemp("parts")
    for number in range(COUNT, 0, -1):
        ask(dataset, out, Shard(number, COUNT))
    return out


@pytest.fixture
def out(tmp_path: Path, parts: Path) -> Path:
    shutil.copytree(parts, tmp_path / "runs")
    return tmp_path / "runs"


def test_shards_merge_to_the_bytes_of_one_run_with_its_probes_and_grey_run(
    dataset: Dataset, whole: Path, out: Path
) -> None:
    assert runs(out) == {}
    merged = merge(dataset, out)
    assert runs(out) == runs(whole) and len(runs(out)) == 2 * 6 + 4  # rows and meta of each run, a record a probe
    assert merged.left_over == () and set(merged.made.files) == {
        "hashed", "hashed.grey", *(f"hashed.{spec.label}" for spec in SPECS)
    }  # fmt: skip
    before = contents(out)
    merge(dataset, out)
    assert contents(out) == before


def test_no_image_is_shown_in_two_shards_but_what_a_probe_swaps_in(tmp_path: Path, dataset: Dataset) -> None:
    seen = []
    for number in range(1, COUNT + 1):
        engine = HashedEngine()
        predict_probes(
            lambda engine=engine: engine, dataset, tmp_path, "hashed", parse_probes(["shuffle", "noise:2"]),
            subject=SUBJECT, asking=ASKING, shard=Shard(number, COUNT),
        )  # fmt: skip
        seen.append(engine.seen)
    assert all(seen) and sum(map(len, seen)) == len(set().union(*seen)) == 2 * 9


def test_shards_are_even_and_keep_together_what_shares_an_image_even_over_others() -> None:
    pair = question(
        "Which is older?", "first", ("first", "second"), id="pair", content=(image("a"), image("b"), TextRef("?"))
    )
    rows = [
        question("1?", "x", id="on-a", content=(image("a"), TextRef("1?"))),
        question("2?", "x", id="on-c", content=(image("c"), TextRef("2?"))),
        question("3?", "x", id="on-b", content=(image("b"), TextRef("3?"))),
        question("4?", "x", id="text-1", content=(TextRef("report"), TextRef("4?"))),
        question("5?", "x", id="text-2", content=(TextRef("report"), TextRef("5?"))),
        question("6?", "x", id="alone-1", content=(TextRef("6?"),)),
        question("7?", "x", id="alone-2", content=(TextRef("7?"),)),
        pair,
    ]  # fmt: skip
    numbers = divided(rows, 3)
    assert numbers["on-a"] == numbers["on-b"] == numbers["pair"]
    assert numbers["text-1"] == numbers["text-2"]
    assert sorted(list(numbers.values()).count(number) for number in (1, 2, 3)) == [2, 3, 3]
    assert set(divided(rows, 5).values()) == {1, 2, 3, 4, 5}
    with pytest.raises(ShardError, match="make 5 parts that share no image; 6 shards are more than that"):
        divided(rows, 6)


@pytest.mark.parametrize("text", ["", "1", "0/8", "9/8", "1/0", "-1/8", "1/8/2", "one/8", "1/99999"])
def test_a_shard_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ShardError, match=r"is no shard; write|does not exist; they count"):
        Shard.parse(text)


def test_a_shard_killed_by_the_system_goes_on_to_the_same_bytes(tmp_path: Path, dataset: Dataset, parts: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from infimed.evaluation.dataset import Dataset\n"
        "from infimed.evaluation.shards import Shard\n"
        "from infimed.tests.evaluation.hashed import HashedEngine\n"
        "from infimed.tests.evaluation.test_shards import ask\n"
        "ask(Dataset.open(sys.argv[1]), Path(sys.argv[2]), Shard(2, 3), engine=HashedEngine(wait_s=0.005))\n"
    )
    shard = Shard(2, COUNT)
    part = shard.folder(tmp_path) / "hashed.jsonl.part"
    process = subprocess.Popen([sys.executable, "-c", script, str(dataset.folder), str(tmp_path)])
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None and not (part.is_file() and part.stat().st_size):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(ShardError, match=r"lacks the shard 1/3 and 1 more; evaluate with --shard 1/3"):
        shards_in(tmp_path)
    rest = ask(dataset, tmp_path, shard)
    asked = sum(data.count(b"\n") for name, data in contents(shard.folder(tmp_path)).items() if name.endswith(".jsonl"))
    assert 0 < rest.asked < asked
    assert runs(shard.folder(tmp_path)) == runs(shard.folder(parts))


def edit_meta(path: Path, **changed: object) -> None:
    meta = json.loads(path.read_text())
    for name, value in changed.items():
        meta["identity"][name] = value
    path.write_text(json.dumps(meta))


def test_shards_that_do_not_make_one_run_are_refused_and_nothing_is_written(dataset: Dataset, out: Path) -> None:
    shards, kept = out / "shards", out.parent / "kept"
    shutil.copytree(shards, kept)
    second = shards / "2-of-3"

    def another_one() -> None:
        shutil.rmtree(second)
        shutil.copytree(shards / "1-of-3", second)

    def unfinished() -> None:
        (second / "hashed.grey.meta.json").unlink()

    def a_changed_row() -> None:
        rows = second / "hashed.jsonl"
        rows.write_bytes(rows.read_bytes().replace(b'"correct": true', b'"correct": false', 1))

    def of(name: str, value: object) -> None:
        edit_meta(second / "probes" / "hashed.swap.meta.json", **{name: value})

    cases = [
        (lambda: shutil.rmtree(second), ShardError, "lacks the shard 2/3; evaluate with --shard 2/3"),
        (lambda: shutil.rmtree(shards), ShardError, "does not exist; evaluate with --shard 1/N to N/N"),
        (lambda: shutil.copytree(second, shards / "2-of-4"), ShardError, "holds shards of 3 and 4 divisions"),
        (lambda: shutil.copytree(second, shards / "2-of-3 (copy)"), ShardError, "is no shard's folder"),
        (unfinished, ShardError, "shard 2/3 has no complete run 'hashed.grey'"),
        (another_one, ShardError, "settings.shard is '1/3', not '2/3'"),
        (lambda: of("dataset_sha256", "1" * 64), ShardError, "dataset_sha256 is '1111"),
        (lambda: of("plan", "1" * 64), ShardError, "plan is '1111"),
        (lambda: of("engine", {"version": "2"}), ShardError, "engine.version is '2', not '1'"),
        (a_changed_row, PredictionError, "is missing or changed after it was written"),
    ]
    for spoil, kind, told in cases:
        shutil.rmtree(shards, ignore_errors=True)
        shutil.copytree(kept, shards)
        spoil()
        with pytest.raises(kind, match=told.replace("(", r"\(")):
            merge(dataset, out)
        assert runs(out) == {}, told
    shutil.rmtree(shards)
    shutil.copytree(kept, shards)
    with pytest.raises(ShardError, match=r"settings\.max_tokens is 3, not 48"):
        merge(dataset, out, asking=Asking())
    assert runs(out) == {}


def test_another_run_that_lies_there_is_refused_before_anything_is_written(dataset: Dataset, out: Path) -> None:
    engine = HashedEngine()
    predict_probes(
        lambda: engine, dataset, out, "hashed", (), subject=SUBJECT, asking=ASKING, computed_by={"version": "2"}
    )
    before = runs(out)
    with pytest.raises(PredictionError, match=r"holds a run 'hashed' whose engine.version is '2', not '1'"):
        merge(dataset, out)
    assert runs(out) == before


def test_what_the_shards_hold_beyond_what_is_asked_for_is_told(dataset: Dataset, out: Path) -> None:
    merged = merge_shards(dataset, out, {"hashed": SUBJECT}, (), asking=ASKING)
    assert merged.left_over == ("hashed.grey", "hashed.mirror", "hashed.noise-2", "hashed.shuffle", "hashed.swap")
    assert set(runs(out)) == {"hashed.jsonl", "hashed.meta.json"}


def test_rows_of_one_picture_are_asked_together_whatever_run_they_are_of(tmp_path: Path, dataset: Dataset) -> None:
    order: list[str] = []

    class Told(HashedEngine):
        def score(self, messages, options, prefix=None):  # type: ignore[no-untyped-def]
            order.append(messages[0].parts[0].key)
            return super().score(messages, options)

    predict_probes(
        Told, dataset, tmp_path, "hashed", parse_probes(["shuffle", "paraphrase"]), subject=SUBJECT, asking=ASKING,
        grey=True,
    )  # fmt: skip
    changes = sum(one != other for one, other in pairwise(order))
    pictures = len({row.images for row in by_image(dataset.in_role("test"))})
    assert changes == 2 * pictures - 1  # each picture as it is, then grey: never back
