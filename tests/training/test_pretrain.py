"""Training the base model: packed rows are single prompts, a killed run ends the same, the product opens elsewhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from infimed.evaluation.phantom_images import KINDS, phantom
from infimed.evaluation.phantom_questions import CAPTION, SIDE_LEFT
from infimed.runtime.events import Event
from infimed.runtime.messages import ImagePart, TextPart, user
from infimed.runtime.prompt import Prompter
from infimed.training.base_batches import IGNORED, Batch, Packer, make_batch
from infimed.training.base_model import BaseShape
from infimed.training.base_publish import short_log, train_base
from infimed.training.base_recipe import BaseRecipe, StageRecipe
from infimed.training.dense import PATCH_CLASSES, dense_targets
from infimed.training.pretrain import STATE, BaseTrainer, PretrainError, pretrain
from infimed.training.recipe import RecipeError, parse_recipe

MICRO = BaseShape(
    hidden=32, intermediate=48, layers=2, heads=2, kv_heads=1, mrope_sections=(2, 3, 3), vision_layers=2,
    vision_hidden=32, vision_intermediate=48, vision_heads=2, full_attention_layers=(1,),
)  # fmt: skip
RECIPE = BaseRecipe(
    seed=4,
    kinds=("ct", "fundus"),
    stage=(
        StageRecipe("dense", 1, 3, 4, 1e-3, 1, 1),
        StageRecipe("questions", 2, 4, 4, 1e-3, 0, 2, {"count": 1.0, "laterality": 0.5, "caption": 0.5}),
    ),
    save_every=2,
    model=MICRO,
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseTrainer, Path]:
    work = tmp_path_factory.mktemp("run")
    return pretrain(RECIPE, work), work


@pytest.mark.parametrize("kill_at", [("dense", 1), ("dense", 3), ("questions", 1), ("questions", 3)])
def test_a_run_killed_anywhere_ends_with_the_same_weights_and_log(
    unbroken: tuple[BaseTrainer, Path], tmp_path: Path, kill_at: tuple[str, int]
) -> None:
    stage, step = kill_at

    def kill(event: Event) -> None:
        if event.stage == f"base {stage}" and event.done == step:
            raise Killed

    with pytest.raises(Killed):
        pretrain(RECIPE, tmp_path, kill)
    pretrain(RECIPE, tmp_path)
    for name in (STATE, "log.jsonl"):
        assert (tmp_path / name).read_bytes() == (unbroken[1] / name).read_bytes()


def test_a_run_of_another_recipe_is_refused(unbroken: tuple[BaseTrainer, Path]) -> None:
    with pytest.raises(PretrainError, match="another recipe"):
        pretrain(dataclasses.replace(RECIPE, seed=5), unbroken[1])


def test_questions_packed_in_rows_give_the_loss_of_single_prompts(unbroken: tuple[BaseTrainer, Path]) -> None:
    import torch

    trainer, work = unbroken
    prompter = Prompter.open(work)
    batch = make_batch(dataclasses.replace(trainer.plan(RECIPE.stage[1]), images=6), Packer(prompter), 9)
    assert batch.rows is not None
    with torch.no_grad():
        _, features = trainer.features(batch.rgb)
        packed = float(trainer.answer_loss(features, batch.rows))
        losses = []
        for image, (rgb, number) in enumerate(zip(batch.rgb, range(6), strict=True)):
            for text, answer in _asked(batch, image, prompter):
                prompt = prompter.prompt((user(ImagePart(rgb), TextPart(text)),))
                reply = [*prompter.encode(answer), *prompter.encode("<|im_end|>")]
                ids = torch.tensor([[*prompt.token_ids, *reply]])
                grid = torch.tensor([[1, trainer.grid, trainer.grid]])
                pixels = torch.from_numpy(_patches(trainer, rgb))
                types = (ids == prompter.image_token_id).int()
                logits = trainer.model(
                    input_ids=ids, pixel_values=pixels, image_grid_thw=grid, mm_token_type_ids=types
                ).logits[0]
                said = logits[len(prompt.token_ids) - 1 : -1]
                losses += torch.nn.functional.cross_entropy(said, torch.tensor(reply), reduction="none").tolist()
            assert number == image
    assert packed == pytest.approx(np.mean(losses), abs=2e-5)


def _patches(trainer: BaseTrainer, rgb: np.ndarray) -> np.ndarray:
    from infimed.runtime.preprocessing import patches

    return patches(rgb, trainer.rules)[0]


def _asked(batch: Batch, image: int, prompter: Prompter) -> list[tuple[str, str]]:
    """Read question and answer of each block of an image back from the packed rows."""
    rows = batch.rows
    assert rows is not None
    here = rows.images == image
    found = []
    for block in range(1, rows.blocks[here].max() + 1):
        ids, targets = rows.token_ids[here & (rows.blocks == block)], rows.targets[here & (rows.blocks == block)]
        answer = prompter.decode([t for t in targets if t != IGNORED])
        text = prompter.token_text  # control tokens are kept by it, so that the turn can be cut where it ends
        whole = "".join(text(int(i)) for i in ids)
        found.append((whole.split("<|im_end|>")[0], answer))
    return found


def test_rows_hold_every_image_once_and_little_padding(unbroken: tuple[BaseTrainer, Path]) -> None:
    trainer, work = unbroken
    plan = dataclasses.replace(trainer.plan(RECIPE.stage[1]), images=24)
    rows = make_batch(plan, Packer(Prompter.open(work)), 0).rows
    assert rows is not None
    assert sorted(rows.order) == list(range(24))
    assert (rows.images >= 0).mean() > 0.8
    image_id = trainer.model.config.image_token_id
    assert (rows.token_ids == image_id).sum() == 24 * trainer.tokens
    first = [int(rows.images[row, column]) for row, column in np.argwhere(rows.token_ids == image_id)][
        :: trainer.tokens
    ]
    assert first == list(rows.order), "features would be given to the wrong image"


def test_a_share_of_a_wording_goes_before_that_of_its_task(unbroken: tuple[BaseTrainer, Path]) -> None:
    trainer, work = unbroken
    prompter = Prompter.open(work)
    asked = {"caption": 1.0, "laterality": 0.0, SIDE_LEFT[0]: 1.0}
    plan = dataclasses.replace(trainer.plan(RECIPE.stage[1]), images=20, asked=asked)
    batch = make_batch(plan, Packer(prompter), 0)
    put = {text for image in range(20) for text, _ in _asked(batch, image, prompter)}
    assert len(put) > 1 and all(text == CAPTION or "on the left side" in text for text in put)


@pytest.mark.parametrize("name", list(KINDS))
def test_dense_targets_agree_with_the_lesions(name: str) -> None:
    made = [phantom(KINDS[name], 8, index) for index in range(30)]
    targets = dense_targets(made, [name], 14, 2)
    assert targets.patches.shape == (30, 64) and targets.shows.shape == (30, 16)
    for number, one in enumerate(made):
        assert targets.centres[number].sum() == targets.count[number] == len(one.lesions)
        for lesion in one.lesions:
            token = int(lesion.y_px) // 28 * 4 + int(lesion.x_px) // 28
            assert targets.shows[number, token] == 1 and targets.centres[number, token] >= 1
            patch = token * 4 + int(lesion.y_px) // 14 % 2 * 2 + int(lesion.x_px) // 14 % 2
            if all(3 < place % 14 < 11 for place in (lesion.x_px, lesion.y_px)):  # not cut by a patch's border
                assert PATCH_CLASSES[targets.patches[number, patch]] == f"{one.size} lesion"
        if not one.lesions:
            assert not targets.shows[number].any() and not np.isin(targets.patches[number], (1, 2)).any()


def test_the_product_is_a_checkpoint_that_transformers_opens(tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TOML, "utf-8")
    made = train_base(recipe, tmp_path / "made")
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        made.folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.tie_word_embeddings and len(AutoTokenizer.from_pretrained(made.folder)) == 1024
    assert made.provenance is not None and made.provenance.seed == 4
    assert (made.folder / "log.csv").read_text().startswith("stage,step,dense_loss,answers_loss\n")
    assert not (made.folder / "state").exists()
    again = train_base(recipe, tmp_path / "again")
    assert again.sha256 == made.sha256


def test_the_published_log_holds_means() -> None:
    rows = [json.dumps({"stage": "dense", "step": step, "dense": float(step)}) for step in range(1, 13)]
    rows.append(json.dumps({"stage": "questions", "step": 1, "dense": 2.0, "answers": 1.5}))
    assert short_log(rows).splitlines()[1:] == ["dense,10,5.5000,", "dense,20,11.5000,", "questions,10,2.0000,1.5000"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('kinds = ["pet"]', "choose among"),
        ('kinds = ["ct"]\nsteps = 3', "unknown key 'steps'"),
        ('kinds = ["ct"]\nsave_every = 0', "save_every"),
        ('kinds = ["ct"]\nmodel = { window_px = 56 }', "window_px 56"),
        ('kinds = ["ct"]\nmodel = { heads = 3 }', "divide evenly"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(change: str, said: str) -> None:
    stage = "name = 'a'\nphantoms = 1\nsteps = 2\nimages = 2\nlearning_rate = 0.1\nwarmup = 0\ndecay = 0\n"
    text = f"seed = 1\n{change}\n[[stage]]\n{stage}"
    with pytest.raises(RecipeError, match=said):
        parse_recipe(text, BaseRecipe)


TOML = """
seed = 4
kinds = ["ct", "fundus"]

[model]
hidden = 32
intermediate = 48
layers = 2
heads = 2
kv_heads = 1
mrope_sections = [2, 3, 3]
vision_layers = 2
vision_hidden = 32
vision_intermediate = 48
vision_heads = 2
full_attention_layers = [1]

[[stage]]
name = "dense"
phantoms = 1
steps = 2
images = 4
learning_rate = 1e-3
warmup = 1
decay = 0

[[stage]]
name = "questions"
phantoms = 2
steps = 2
images = 4
learning_rate = 1e-3
warmup = 0
decay = 1
asked = { count = 1.0, finding = 1.0 }
"""
