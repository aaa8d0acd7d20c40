"""`infimed train`: from a recipe to a merged checkpoint by the command line, and one clear line for each mistake."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from infimed.cli import app as cli

if importlib.util.find_spec("peft") is None:
    pytest.skip("the extra `train` is not installed", allow_module_level=True)

from ..training.conftest import RECIPE, build_dataset, build_micro


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    build_micro(folder / "base")
    build_dataset(folder / "data", images=4)
    (folder / "recipe.toml").write_text(RECIPE.replace("steps = 8", "steps = 2"), "utf-8")
    return folder


def sft(place: Path, out: str, *more: str, recipe: str = "recipe.toml") -> int:
    where = ("--data", str(place / "data"), "--base", str(place / "base"), "--out", str(place / out))
    return cli.run(["train", "sft", str(place / recipe), *where, "--threads", "1", *more])


def test_a_recipe_becomes_an_adapter_and_the_adapter_a_checkpoint(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft(place, "adapter") == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"adapter: {place / 'adapter'}  rank 4, 2 steps over 12 examples, loss ")
    assert told.out.count("\n") == 1 and "sft: 2/2 steps" in told.err and "loss" in told.err
    merged = ["train", "merge", str(place / "adapter"), "--out", str(place / "merged"), "--dtype", "bfloat16"]
    assert cli.run([*merged, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["merged"]["max_abs_logit"] <= 1e-4 and facts["rounding"]["dtype"] == "BF16"
    assert (place / "merged/config.json").is_file() and len(facts["sha256"]) == 64


def test_each_mistake_is_one_line_with_exit_code_2_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "slip.toml").write_text(RECIPE.replace("rank = 4", "rnak = 4"), "utf-8")
    (place / "taken").mkdir()
    (place / "taken/file").write_text("mine")
    before = sorted(path.name for path in place.iterdir())
    mistakes = (
        (lambda: sft(place, "x", recipe="slip.toml"), "unknown key 'rnak'; did you mean 'rank'?"),
        (lambda: sft(place, "x", recipe="absent.toml"), "no such recipe"),
        (lambda: sft(place, "taken"), "exists already"),
        (lambda: sft(place, "x", "--device", "tpu"), "device 'tpu' is unknown"),
        (lambda: cli.run(["train", "merge", str(place / "data"), "--out", str(place / "x")]), "adapter_config.json"),
        (lambda: cli.run(["train", "rl"]), "No such command 'rl'"),
    )
    for attempt, says in mistakes:
        assert attempt() == 2
        told = capsys.readouterr()
        assert says in told.err and told.err.count("\n") == 1 and told.out == ""
    assert sorted(path.name for path in place.iterdir()) == before
