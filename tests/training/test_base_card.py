"""The base model's card: figures from predictions, and a model that is too weak is called so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from infimed.evaluation.phantoms import write_phantoms
from infimed.training.base_card import BaseModelTooWeak, Measured, StaleRuns, Tally, card_text, measure, write_card
from infimed.training.base_model import BaseShape, new_model, settings_files, write_base
from infimed.training.checkpoint import Checkpoint
from infimed.training.tokenizer import Vocabulary, train_tokenizer

GOOD = Measured(
    checkpoint_sha256="a" * 64,
    dataset_sha256="b" * 64,
    seed=1,
    images=400,
    modalities=("ct", "mri"),
    cells={("finding", "ct"): Tally(190, 200), ("finding", "mri"): Tally(186, 200)},
    answer_types={("finding", "yesno"): Tally(376, 400)},
    own={task: Tally(380, 400) for task in ("finding", "laterality", "count", "size")},
    majority={task: Tally(200, 400) for task in ("finding", "laterality", "count", "size")},
    grey={task: Tally(210, 400) for task in ("finding", "laterality", "count", "size")},
)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    shape = BaseShape(
        hidden=32, intermediate=48, layers=1, heads=2, kv_heads=1, mrope_sections=(2, 3, 3), vision_layers=2,
        vision_hidden=32, vision_intermediate=48, vision_heads=2, full_attention_layers=(1,),
    )  # fmt: skip
    vocabulary = Vocabulary()
    write_base(folder, new_model(shape, vocabulary, 3), settings_files(shape, vocabulary, train_tokenizer(vocabulary)))
    return folder


def test_a_good_model_has_no_faults() -> None:
    assert GOOD.faults == ()
    assert GOOD.mean == pytest.approx(0.94)


def test_a_low_mean_is_a_fault() -> None:
    weak = dataclasses.replace(GOOD, cells={("finding", "ct"): Tally(170, 200)})
    assert "0.850, below 0.9" in weak.faults[0]


@pytest.mark.parametrize("which", ["majority", "grey"])
def test_a_task_that_either_prior_nearly_reaches_is_a_fault(which: str) -> None:
    near = dataclasses.replace(GOOD, **{which: {**getattr(GOOD, which), "count": Tally(375, 400)}})
    assert [fault.split()[0] for fault in near.faults] == ["count"]


def test_a_random_model_is_measured_and_called_too_weak(random_model: Path, tmp_path: Path) -> None:
    measured = measure(random_model, tmp_path / "runs", ("ct", "mri"), images=16, seed=9)
    assert measured.images == 8 and measured.own.keys() == measured.grey.keys() == measured.majority.keys()
    assert sum(share.items for share in measured.cells.values()) == sum(share.items for share in measured.own.values())
    with pytest.raises(BaseModelTooWeak, match="mean over task x modality"):
        write_card(tmp_path / "CARD.md", random_model, measured)
    card = (tmp_path / "CARD.md").read_text("utf-8")
    assert measured.checkpoint_sha256 in card and measured.dataset_sha256 in card and "ultrasound (mass)" in card
    again = measure(random_model, tmp_path / "runs", ("ct", "mri"), images=16, seed=9)
    assert card_text(again, Checkpoint.open(random_model)) == card


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"seed": 10}, "phantoms of seed 9; images 16; modalities ct, mri; asked for are seed 10; images 16"),
        ({"images": 18}, "asked for are seed 9; images 18"),
        ({"modalities": ("ct",)}, "modalities ct: name other --runs"),
    ],
)
def test_runs_of_other_phantoms_are_refused(
    asked: dict[str, object], says: str, random_model: Path, tmp_path: Path
) -> None:
    write_phantoms(tmp_path / "runs" / "phantoms", 16, 9, ("ct", "mri"), roles={"train": 0.5, "test": 0.5})
    before = sorted(path.name for path in (tmp_path / "runs").iterdir())
    with pytest.raises(StaleRuns, match=says):
        measure(random_model, tmp_path / "runs", **{"modalities": ("ct", "mri"), "images": 16, "seed": 9, **asked})  # type: ignore[arg-type]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == before, "nothing is measured"
