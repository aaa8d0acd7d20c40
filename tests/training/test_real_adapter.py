"""The committed adapter is the one that its card, its recipe and the licence gate speak of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")

from infimed.runtime.files import sha256_file
from infimed.training.adapter import CONFIG_FILE, PIXELS_FILE, WEIGHTS_FILE, Adapter, embedded_base
from infimed.training.checkpoint import Checkpoint
from infimed.training.curate_recipe import CurateRecipe
from infimed.training.merge import merge_adapter
from infimed.training.recipe import find_recipe, read_recipe

FOLDER = Path(__file__).parents[2] / "training" / "adapters" / "real_images"
LIMIT_BYTES = 4 * 1000 * 1000


def test_the_card_and_the_provenance_name_these_very_files() -> None:
    adapter, card = Adapter.open(FOLDER), (FOLDER / "CARD.md").read_text("utf-8")
    made_from = adapter.provenance
    assert made_from is not None
    assert made_from.recipe_sha256 == sha256_file(find_recipe("real_images"))
    assert made_from.inputs["base"] == Checkpoint.open(embedded_base()).sha256
    named = (made_from.recipe_sha256, made_from.inputs["base"], sha256_file(FOLDER / WEIGHTS_FILE))
    assert all(digest in card for digest in named)


def test_it_is_small_and_holds_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        CONFIG_FILE, WEIGHTS_FILE, PIXELS_FILE, "infimed.json", "CARD.md"
    }  # fmt: skip
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= LIMIT_BYTES


def test_every_row_it_was_trained_on_has_a_licence_of_the_gate() -> None:
    made_from = Adapter.open(FOLDER).provenance
    assert made_from is not None
    gate = read_recipe(find_recipe("curate_real_licensed"), CurateRecipe).licences.allow
    assert made_from.licences and set(made_from.licences) <= set(gate)
    told = Counter[str]()
    for line in (FOLDER / "CARD.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[3].isdigit():
            told["images"] += int(cells[3])
            told["questions"] += int(cells[4])
    assert told["questions"] == sum(made_from.licences.values()) == made_from.attest["examples"]
    assert told["images"] == made_from.attest["images"]


def test_it_merges_to_the_checkpoint_that_was_measured(tmp_path: Path) -> None:
    merged = merge_adapter(FOLDER, tmp_path / "merged")
    assert merged.sha256 in (FOLDER / "CARD.md").read_text("utf-8")
