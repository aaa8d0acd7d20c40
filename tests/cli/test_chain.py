"""The whole chain by its verbs, on a random model: what each prints, what it leaves, and what bad input meets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
from infimed.cli.app import run

from ..models import build_random_checkpoint
from .conftest import Infimed

RECIPE = """
seed = 1
[lora]
rank = 4
alpha = 8
parts = ["language"]
[train]
learning_rate = 1e-3
steps = 2
batch_rows = 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    build_random_checkpoint(folder / "base", max_pixels=28 * 28 * 64)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def bundle(place: Path) -> Path:
    assert run(["data", "phantoms", "--out", str(place / "data"), "--images", "16", "--seed", "1"]) == 0
    where = ["--data", str(place / "data"), "--base", str(place / "base"), "--out", str(place / "adapter")]
    assert run(["train", "sft", str(place / "recipe.toml"), *where, "--threads", "1"]) == 0
    assert run(["train", "merge", str(place / "adapter"), "--out", str(place / "checkpoint"), "--threads", "1"]) == 0
    words = ["export", str(place / "checkpoint"), "--out", str(place / "bundle"), "--level", "gguf-q8_0"]
    assert run([*words, "--level", "gguf-q4_k_m", "--probes", "6", "--threads", "1"]) == 0
    return place / "bundle"


def test_the_chain_ends_in_a_report(bundle: Path, place: Path, infimed: Infimed) -> None:
    runs = place / "runs"
    for target in (place / "adapter", place / "checkpoint", bundle):
        grey = ["--grey", "--prior", place / "data"] if target.name == "adapter" else []
        code, told, _ = infimed("evaluate", target, "--data", place / "data", "--out", runs, "--threads", "1", *grey)
        assert code == 0 and "right" in told
    code, told, _ = infimed("drift", runs, "--reference", "adapter", "--out", place / "report")
    report = json.loads((place / "report/drift.json").read_text())
    assert [row["facts"]["run"] for row in report["levels"]] == ["gguf-q4_k_m", "gguf-q8_0"]
    assert report["stored"]["facts"]["run"] == "checkpoint"
    assert (code == 1) == ("FAIL" in told) and code in (0, 1, 4, 5)
    assert (place / "report/drift.html").stat().st_size > 1000


def test_verify_and_run_tell_people_and_machines(bundle: Path, place: Path, infimed: Infimed) -> None:
    code, told, _ = infimed("verify", bundle)
    assert code == 0 and "gguf-q8_0" in told
    image = next((place / "data/images").iterdir())
    words = ["run", bundle, "Which modality is this?", "--level", "gguf-q8_0", "--image", image]
    code, told, _ = infimed(*words, "--choice", "CT", "--choice", "MR", "--json")
    answer = json.loads(told)
    assert code == 0 and answer["answer"] in ("CT", "MR")
    assert sum(option["probability"] for option in answer["options"]) == pytest.approx(1.0)
    code, told, _ = infimed(*words, "--choice", "CT", "--choice", "MR")
    assert told.startswith(answer["answer"]) and "confidence" in told
    code, told, _ = infimed(*words, "--max-tokens", "4", "--json")
    assert code == 0 and len(json.loads(told)["token_ids"]) <= 4


def test_levels_that_are_held_already_are_said_to_be(bundle: Path, place: Path, infimed: Infimed) -> None:
    asked = ["export", place / "checkpoint", "--out", bundle, "--level", "gguf-q8_0"]
    code, told, _ = infimed(*asked)
    assert code == 0 and told.startswith("the bundle holds every level that was asked for; nothing was written\n")
    code, told, _ = infimed(*asked, "--json")
    assert code == 0 and json.loads(told)["written"] == []


def one_line(told: str, *words: str) -> None:
    lines = [line for line in told.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, told
    for word in words:
        assert word in lines[0], lines[0]


def test_bad_input_to_run_meets_one_clear_line(bundle: Path, tmp_path: Path, infimed: Infimed) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    for image, words in {
        "absent.png": ("absent.png", "not a file"),
        "empty.png": ("empty.png", "empty"),
        "text.png": ("text.png", "PNG"),
    }.items():
        code, _, told = infimed("run", bundle, "Why?", "--level", "gguf-q8_0", "--image", tmp_path / image)
        assert code == 2
        one_line(told, *words)
    code, _, told = infimed("run", bundle, "Why?", "--level", "gguf-q9")
    assert code == 2
    one_line(told, "gguf-q9", "gguf-q4_k_m, gguf-q8_0")
    code, _, told = infimed("run", bundle, "Why?", "--level", "gguf-q8_0", "--choice", "one")
    assert code == 2
    one_line(told, "at least two")
    code, _, told = infimed("run", tmp_path, "Why?", "--level", "gguf-q8_0")
    assert code == 2
    one_line(told, "no bundle")


def test_a_changed_bundle_is_refused_by_every_verb_with_exit_code_1(
    bundle: Path, place: Path, tmp_path: Path, infimed: Infimed
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    model = copy / "gguf-q4_k_m/model.gguf"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    for words in (
        ["verify", copy],
        ["run", copy, "Why?", "--level", "gguf-q8_0"],
        ["evaluate", copy, "--data", place / "data", "--out", tmp_path / "runs"],
    ):
        code, _, told = infimed(*words)
        assert code == 1, words
        one_line(told, "gguf-q4_k_m/model.gguf", "changed")
    assert not (tmp_path / "runs").exists()


def test_bad_input_to_export_and_train_leaves_nothing(
    bundle: Path, place: Path, tmp_path: Path, infimed: Infimed
) -> None:
    out = tmp_path / "out"
    code, _, told = infimed("export", place / "checkpoint", "--out", out, "--level", "gguf-q3")
    assert code == 2
    one_line(told, "gguf-q3", "gguf-q8_0")
    code, _, told = infimed("export", place / "checkpoint", "--out", place / "data", "--level", "gguf-q8_0")
    assert code == 2
    one_line(told, "exists already")
    code, _, told = infimed("export", place / "base", "--out", bundle, "--level", "gguf-q8_0")
    assert code == 2
    one_line(told, "another checkpoint", "checkpoint_sha256")
    code, _, told = infimed("export", tmp_path, "--out", out, "--level", "gguf-q8_0")
    assert code == 2
    one_line(told, "config.json")
    (tmp_path / "typo.toml").write_text(RECIPE.replace("learning_rate", "learning_rat"))
    code, _, told = infimed(
        "train", "sft", tmp_path / "typo.toml", "--data", place / "data", "--base", place / "base", "--out", out
    )
    assert code == 2
    one_line(told, "learning_rat", "learning_rate")
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["typo.toml"]
