"""A portable reference: what it holds, that nothing changed or foreign passes, and a device that has it alone."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
from infimed.evaluation.answer_tokens import ENTRIES, FEWEST_DRAWS, RULES, ForcedAnswer, KeptAnswer
from infimed.evaluation.drift import drift
from infimed.evaluation.drift_report import DriftReport
from infimed.evaluation.journal import Journal
from infimed.evaluation.prediction import Identity, Prediction, Subject, complete_runs, read_run
from infimed.evaluation.reference_store import ReferenceStore, StoreError, write_store

from .planted import answered, items, pattern, write_run

ROWS = items({("ct", "finding"): 120, ("mri", "count"): 90}, per_group=2)
TOKENS = "7" * 64
MADE_FROM = "c" * 64


def kept(index: int) -> KeptAnswer:
    """Return an answer of one to three tokens that differs from row to row."""
    count = 1 + index % 3
    tokens = tuple(range(index, index + count))
    each = ((1,) * count, tokens, (-0.125,) * count, (0.1175031,) * count, (2.0,) * count)
    return KeptAnswer(tokens, *each, (1,) * count, tuple(token + 500 for token in tokens), (-5.0,) * count)


def forced(index: int) -> ForcedAnswer:
    """Return how a level lies to it: one nat in all, and another token at the last place of every tenth."""
    count = 1 + index % 3
    same = (True,) * (count - 1) + (index % 10 != 0,)
    return ForcedAnswer(kept(index).digest(), (1.0 / count,) * count, (0.25,) * count, (0.125,) * count, same)


def run_of(folder: Path, run: str, right: np.ndarray, answers: str, extra: Callable[[int], dict[str, object]]) -> None:
    subject = Subject("bundle", run, "e" * 64, 1000)
    identity = Identity(run, subject, "own", "planted", "d" * 64, "test", answers=answers)
    with Journal(folder, identity, [row.example_id for row in ROWS]) as journal:
        for index, row in enumerate(ROWS):
            journal.append(Prediction(**{**vars(answered(row, bool(right[index]))), **extra(index)}), 0.01)
        journal.finish()


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Return the runs of a reference with all that belongs to it."""
    runs = tmp_path / "server"
    run_of(runs, "gguf-f16", pattern(0.9, len(ROWS), 1), RULES, lambda index: {"kept": kept(index)})
    write_run(runs, "prior", ROWS, pattern(0.4, len(ROWS), 2), seconds=0)
    write_run(runs, "gguf-f16.grey", ROWS, pattern(0.4, len(ROWS), 3), weight_bytes=1000)
    return runs


@pytest.fixture
def stored(server: Path, tmp_path: Path) -> ReferenceStore:
    path = tmp_path / "store" / "reference.zip"
    write_store(server, "gguf-f16", path, made_from=MADE_FROM, token_path_sha256=TOKENS)
    return ReferenceStore.open(path)


def test_the_same_runs_give_the_same_bytes_and_come_back_as_they_were(
    server: Path, stored: ReferenceStore, tmp_path: Path
) -> None:
    again = tmp_path / "again.zip"
    write_store(server, "gguf-f16", again, made_from=MADE_FROM, token_path_sha256=TOKENS)
    assert again.read_bytes() == stored.path.read_bytes()
    stored.lay(tmp_path / "device")
    laid = {path.relative_to(tmp_path / "device").as_posix() for path in (tmp_path / "device").rglob("*.*")}
    assert laid == {f"{run}{end}" for run in ("gguf-f16", "gguf-f16.grey", "prior") for end in (".jsonl", ".meta.json")}
    for name in laid:
        assert (tmp_path / "device" / name).read_bytes() == (server / name).read_bytes()
    with zipfile.ZipFile(stored.path) as packed:  # any tool opens it
        assert packed.testzip() is None and json.loads(packed.read("manifest.json"))["reference"] == "gguf-f16"
    stored.lay(tmp_path / "device")  # a second time changes nothing


def untimed(report: DriftReport) -> str:
    """Return a report without how fast its runs were: a store holds no time."""
    return re.sub(r'"items_per_second": [^,]*', "", report.to_bytes().decode())


def test_a_device_that_holds_the_store_alone_reports_what_the_server_would(
    server: Path, stored: ReferenceStore, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    stored.lay(device)
    rule = stored.rule()
    assert rule.mark == read_run(server, "gguf-f16").meta.predictions_sha256
    for runs in (server, device):
        right = pattern(0.9, len(ROWS), 1)
        right[np.flatnonzero(right)[:4]] = False
        run_of(runs, "gguf-q4_k_m", right, rule.mark, lambda index: {"forced": forced(index)})
    stored.check_runs(device)
    here, there = (drift(runs, "gguf-f16") for runs in (device, server))
    assert untimed(here) == untimed(there)
    assert here.levels[0].overall.verdict != "REFERENCE NOT COMPETENT"
    found = here.levels[0].overall.answers
    assert found is not None and found.tokens is not None
    tokens = [value for index in range(len(ROWS)) for value in forced(index).kl_nats]
    assert (found.tokens.items, found.tokens.kl.items) == (len(ROWS), len(tokens))
    assert found.tokens.kl.mean_nats == pytest.approx(len(ROWS) / len(tokens))
    assert found.tokens.mean_nats == pytest.approx(found.tokens.kl.mean_nats + 0.125)
    assert (found.tokens.kl.max_nats, found.tokens.kl_at_most.max_nats) == (1.0, 1.25)
    assert found.tokens.kl.p99_nats == pytest.approx(np.quantile(tokens, 0.99))
    assert found.tokens.replies.correct == len(ROWS) - len(range(0, len(ROWS), 10))
    assert found.tokens.top1.correct == len(tokens) - len(range(0, len(ROWS), 10))
    cell = here.levels[0].cells[0].answers
    assert cell is not None and cell.tokens is not None and cell.tokens.items == 120
    bootstrap = here.levels[0].overall.bootstrap
    assert bootstrap is not None and bootstrap.lower <= here.levels[0].overall.delta <= bootstrap.upper


def test_answers_of_another_reference_do_not_count_and_are_refused_with_a_store(
    server: Path, stored: ReferenceStore
) -> None:
    other = {"forced": dataclasses.replace(forced(0), of="0" * 16)}
    run_of(server, "gguf-q4_k_m", pattern(0.9, len(ROWS), 1), "b" * 64, lambda index: other)
    found = drift(server, "gguf-f16").levels[0].overall.answers
    assert found is not None and found.tokens is None
    with pytest.raises(StoreError, match=r"gguf-q4_k_m.* of another reference \(bbbb"):
        stored.check_runs(server)


def test_a_run_without_kept_answers_makes_no_store(server: Path, tmp_path: Path) -> None:
    write_run(server, "gguf-q8_0", ROWS, pattern(0.9, len(ROWS), 1))
    with pytest.raises(StoreError, match=r"'gguf-q8_0' .* keeps no answers"):
        write_store(server, "gguf-q8_0", tmp_path / "x.zip", made_from="", token_path_sha256=TOKENS)
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"dataset_sha256": "a" * 64}, "for another dataset"),
        ({"role": "search"}, "for another role"),
        ({"settings": {"max_tokens": 9}}, "for another settings"),
        ({"token_path_sha256": "1" * 64}, "another tokenizer, template or pixel rules"),
        ({"made_from": "2" * 64}, "of another model than gguf-q4_k_m: its checkpoint is cccc"),
    ],
)
def test_a_store_of_something_else_is_refused(stored: ReferenceStore, given: dict[str, object], told: str) -> None:
    fits = {
        "dataset_sha256": "d" * 64, "role": "test", "settings": {}, "made_from": MADE_FROM,
        "token_path_sha256": TOKENS, "level": "gguf-q4_k_m",
    }  # fmt: skip
    stored.check(**fits)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=told):
        stored.check(**{**fits, **given})  # type: ignore[arg-type]


def test_no_store_that_was_cut_or_changed_anywhere_is_taken_for_whole(stored: ReferenceStore, tmp_path: Path) -> None:
    data, bad = stored.path.read_bytes(), tmp_path / "bad.zip"
    for size in (0, 1, 30, len(data) // 2, len(data) - 30, len(data) - 1):
        bad.write_bytes(data[:size])
        with pytest.raises(StoreError, match="cut or damaged"):
            ReferenceStore.open(bad)
    rng = np.random.default_rng(1)
    refused = 0
    for place in rng.integers(0, len(data), 150).tolist():
        bad.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        try:
            assert ReferenceStore.open(bad).data == stored.data  # a byte that means nothing to the content
        except StoreError:
            refused += 1
    assert refused > 100


def packed(stored: ReferenceStore, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write the store with its files changed and a manifest that agrees with them."""
    files = dict(stored.data)
    change(files)
    with zipfile.ZipFile(path, "w") as made:
        for name, value in {"manifest.json": manifest_of(stored, files), **files}.items():
            made.writestr(name, value)
    return path


def manifest_of(stored: ReferenceStore, files: dict[str, bytes]) -> bytes:
    import hashlib

    value = dataclasses.asdict(stored.manifest)
    value["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return json.dumps(value).encode()


def test_a_manifest_that_agrees_with_changed_rows_does_not_help(stored: ReferenceStore, tmp_path: Path) -> None:
    def swap(files: dict[str, bytes]) -> None:
        files["gguf-f16.jsonl"] = files["gguf-f16.jsonl"].replace(b'"correct": true', b'"correct": false', 1)

    def climb(files: dict[str, bytes]) -> None:
        files["../gguf-f16.jsonl"] = b""

    def lose(files: dict[str, bytes]) -> None:
        del files["gguf-f16.jsonl"]

    for change, told in ((swap, "is not the one of"), (climb, "none of a run's"), (lose, "is not the one of")):
        with pytest.raises(StoreError, match=told):
            ReferenceStore.open(packed(stored, tmp_path / "bad.zip", change))
    assert ReferenceStore.open(packed(stored, tmp_path / "good.zip", lambda files: None)).data == stored.data


def test_other_zip_files_and_other_rules_are_named(stored: ReferenceStore, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("readme.txt", "hello")
    (tmp_path / "other.zip").write_bytes(stream.getvalue())
    with pytest.raises(StoreError, match="is no reference store"):
        ReferenceStore.open(tmp_path / "other.zip")
    with pytest.raises(StoreError, match="does not exist"):
        ReferenceStore.open(tmp_path / "none.zip")

    def older(files: dict[str, bytes]) -> None:
        files["gguf-f16.meta.json"] = files["gguf-f16.meta.json"].replace(RULES.encode(), b"kept: tail 0.5")

    with pytest.raises(StoreError, match="keeps answers by other rules"):
        ReferenceStore.open(packed(stored, tmp_path / "older.zip", older))


def test_laying_a_store_replaces_nothing_and_leaves_nothing_half(stored: ReferenceStore, tmp_path: Path) -> None:
    device = tmp_path / "device"
    write_run(device, "prior", ROWS, pattern(0.5, len(ROWS), 9), seconds=0)
    before = sorted(device.iterdir())
    with pytest.raises(StoreError, match=r"prior\.jsonl is not the one of"):
        stored.lay(device)
    assert sorted(device.iterdir()) == before and complete_runs(device) == ("prior",)
    other = tmp_path / "other"
    other.mkdir()
    (other / "gguf-f16.started.json").write_text("{}")
    with pytest.raises(StoreError, match="was begun there"):
        stored.lay(other)


def test_a_store_of_2808_questions_takes_at_most_10_mb_whatever_is_answered(tmp_path: Path) -> None:
    rows = items({("ct", "finding"): 140})  # one twentieth of them
    rng = np.random.default_rng(1)

    def longest(index: int) -> dict[str, object]:
        """Return an answer of 48 tokens that keeps all it may: numbers without any pattern, of a large vocabulary."""
        kept = [ENTRIES // 48 + (place < ENTRIES % 48) for place in range(48)]
        named = np.concatenate([rng.choice(152_000, count + FEWEST_DRAWS, replace=False) for count in kept])
        numbers = [float(str(np.float32(value))) for value in rng.uniform(-12, -1, ENTRIES + 48 * FEWEST_DRAWS)]
        rest = [
            [float(str(np.float32(value))) for value in rng.uniform(low, high, 48)] for low, high in ((0, 1), (3, 9))
        ]
        parts = np.split(named, np.cumsum([count + FEWEST_DRAWS for count in kept])[:-1])
        top = [int(token) for part in parts for token in part[:-FEWEST_DRAWS]]
        others = [int(token) for part in parts for token in part[-FEWEST_DRAWS:]]
        return {
            "kept": KeptAnswer(
                tuple(rng.integers(0, 152_000, 48).tolist()),
                tuple(kept), tuple(top), tuple(numbers[:ENTRIES]), tuple(rest[0]), tuple(rest[1]),
                (FEWEST_DRAWS,) * 48, tuple(others), tuple(numbers[ENTRIES:]),
            ),
            "option_logprobs_nats": tuple(rng.uniform(-9, -1, 4)),
            "probabilities": tuple(rng.dirichlet(np.ones(4))),
            "example_id": f"{index:04d}-{rng.bytes(6).hex()}",
        }  # fmt: skip

    full = [Prediction(**{**vars(answered(row, True)), **longest(index)}) for index, row in enumerate(rows)]
    subject = Subject("bundle", "gguf-f16", "e" * 64, 1000)
    identity = Identity("gguf-f16", subject, "own", "planted", "d" * 64, "test", answers=RULES)
    with Journal(tmp_path / "runs", identity, [row.example_id for row in full]) as journal:
        for row in full:
            journal.append(row, 0.01)
        journal.finish()
    other = [dataclasses.replace(row, kept=None) for row in full]
    write_run(tmp_path / "runs", "prior", other, [True] * 140, seconds=0)
    write_run(tmp_path / "runs", "gguf-f16.grey", other, [True] * 140, weight_bytes=1000)
    path = tmp_path / "reference.zip"
    write_store(tmp_path / "runs", "gguf-f16", path, made_from=MADE_FROM, token_path_sha256=TOKENS)
    assert path.stat().st_size * 2808 / 140 < 10e6
    assert ReferenceStore.open(path).rule().answers[""][full[3].example_id] == full[3].kept
    assert len(ReferenceStore.open(path).metas) == 3
