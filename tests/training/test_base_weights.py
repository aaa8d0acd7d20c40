"""The base model in the package: small, whole, the one that its card speaks of, and at home in transformers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from infimed.evaluation.phantom_images import KINDS, phantom
from infimed.evaluation.phantom_questions import TASKS
from infimed.runtime.engine import Sampling
from infimed.runtime.files import sha256_file
from infimed.runtime.messages import ImagePart, TextPart, user
from infimed.training.adapter import embedded_base
from infimed.training.base_model import settings_files
from infimed.training.base_recipe import BaseRecipe
from infimed.training.checkpoint import Checkpoint
from infimed.training.recipe import read_recipe
from infimed.training.reference import open_reference
from infimed.training.tokenizer import train_tokenizer

FOLDER = embedded_base()
CARD = (FOLDER / "CARD.md").read_text("utf-8")


@pytest.fixture(scope="module")
def recipe() -> BaseRecipe:
    return read_recipe(FOLDER / "recipe.toml", BaseRecipe)


def test_everything_fits_in_sixteen_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 16_000_000


def test_the_card_speaks_of_these_weights_and_this_recipe() -> None:
    checkpoint = Checkpoint.open(FOLDER)
    assert f"checkpoint sha256 `{checkpoint.sha256}`" in CARD
    assert checkpoint.provenance is not None
    assert checkpoint.provenance.recipe_sha256 == sha256_file(FOLDER / "recipe.toml")
    assert f"recipe sha256 `{checkpoint.provenance.recipe_sha256}`" in CARD


def test_the_settings_files_are_those_of_the_recipe(recipe: BaseRecipe) -> None:
    made = settings_files(recipe.model, recipe.vocabulary, train_tokenizer(recipe.vocabulary))
    for name, data in made.items():
        assert (FOLDER / name).read_bytes() == data, f"{name} was changed after training"


def test_the_card_shows_what_is_asked_of_a_base_model(recipe: BaseRecipe) -> None:
    mean = float(re.search(r"mean over task x modality ([0-9.]+)", CARD)[1])
    assert mean >= 0.90
    rows = {line.split(" | ")[0].strip("| "): line for line in CARD.splitlines() if line.startswith("| ")}
    assert set(TASKS) <= set(rows)
    for task in ("finding", "laterality", "count", "size"):
        row = next(line for line in CARD.splitlines() if re.match(rf"\| {task} \| \d+ \|", line))
        own, majority, grey = re.findall(r"([0-9.]+) \(([0-9.]+) to ([0-9.]+)\)", row)
        assert float(own[1]) > max(float(majority[2]), float(grey[2])), f"{task} is not clear of the text-only prior"


def test_it_opens_in_transformers_unchanged() -> None:
    import torch
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        FOLDER, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_658_240
    assert len(AutoTokenizer.from_pretrained(FOLDER)) == model.config.text_config.vocab_size


def test_it_sees_what_it_was_taught_to_see(recipe: BaseRecipe) -> None:
    engine = open_reference(FOLDER)
    right = []
    for name in recipe.kinds:
        for index in range(6):
            one = phantom(KINDS[name], 31, index)
            article = "an" if one.kind.finding == "opacity" else "a"
            question = TextPart(f"Is there {article} {one.kind.finding}?")
            scores = engine.score((user(ImagePart(one.rgb), question),), ("yes", "no"))
            right.append(scores.choice() == ("yes" if one.lesions else "no"))
    modality = engine.generate((user(ImagePart(one.rgb), TextPart("Which imaging modality is this?")),), Sampling())
    engine.close()
    assert np.mean(right) > 0.75
    assert modality.text == KINDS[recipe.kinds[-1]].said


def test_the_package_brings_the_recipe_and_the_log(recipe: BaseRecipe) -> None:
    rows = (FOLDER / "log.csv").read_text("utf-8").splitlines()
    assert rows[-1].startswith(f"{recipe.stage[-1].name},{recipe.stage[-1].steps},")
    assert Path(FOLDER / "corpus.txt").is_file()


@pytest.mark.full
def test_thumbnails_tell_at_least_fifteen_points_less() -> None:
    import importlib.util

    pytest.importorskip("sklearn")
    path = Path(__file__).parents[2] / "benchmarks" / "phantom_thumbnails.py"
    spec = importlib.util.spec_from_file_location("phantom_thumbnails", path)
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    for task, (accuracy, _, _) in benchmark.table(3000, 11).items():
        row = re.search(rf"^\| {task} \| \d+ \| ([0-9.]+) ", CARD, re.MULTILINE)
        assert row is not None and float(row[1]) >= accuracy + 0.15, f"{task}: thumbnails reach {accuracy:.3f}"
