"""Curation end to end, on a set in which everything that can be wrong was planted and is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from infimed.evaluation.dataset import Dataset, image_ref
from infimed.training.curate import curate, curate_dataset
from infimed.training.curate_recipe import BudgetRules, CurateRecipe, LeakRules, RoleRules
from infimed.training.recipe import RecipeError

from .curation_rows import Set, add_lines, example, jpeg, pictures, png

ASKED = ("Is there a mass in the image?", "Is there any fluid to be seen?")
RECIPE = "seed = 5\n"


def brighter(rgb: NDArray[np.uint8], by: int = 14) -> NDArray[np.uint8]:
    clipped: NDArray[np.uint8] = np.clip(rgb.astype(int) + by, 0, 255).astype(np.uint8)
    return clipped


@dataclass(frozen=True)
class Planted:
    """The set, the outside test set, and what must be left out: id -> (stage, reason, twin or None)."""

    dataset: Dataset
    test: Dataset
    expected: Mapping[str, tuple[str, str, str | None]]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """60 patients of one picture and two questions each, and every fault planted a known number of times."""
    folder = tmp_path_factory.mktemp("planted")
    rgbs = pictures(66, seed=11)
    made, expected = Set(), dict[str, tuple[str, str, str | None]]()
    for number, rgb in enumerate(rgbs[:60]):
        for kind, question in enumerate(ASKED):
            answer = "yes" if (number + kind) % 2 else "no"
            made.add(f"p{number}-{kind}", png(rgb), question, answer=answer, group=f"patient {number:02d}")

    def plant(name: str, data: bytes | None, found: tuple[str, str, str | None], question: str, **changes: Any) -> None:
        made.add(name, data, question, **changes)
        expected[name] = found

    for number in range(6):
        answer = "yes" if number % 2 else "no"
        twin = f"p{number}-0"
        again = png(rgbs[number], level=1)
        assert again != png(rgbs[number])
        plant(
            f"same{number}",
            again,
            ("duplicate", "exact duplicate", twin),
            "is there a MASS in the image",
            answer=answer,
        )
    changes = [lambda rgb: jpeg(rgb, 60), lambda rgb: png(brighter(rgb)), lambda rgb: png(rgb[1:-1, 1:-1])]
    for number in range(10, 22):
        answer = "yes" if number % 2 else "no"
        data = changes[number % 3](rgbs[number])
        plant(f"near{number}", data, ("duplicate", "near duplicate", f"p{number}-0"), ASKED[0], answer=answer)
    for number in range(22, 26):
        made.add(f"other{number}", jpeg(rgbs[number], 50), "Which organ is the brightest one?", answer="bone",
                 options=("bone", "liver"), answer_type="choice", task="anatomy", group=f"visit {number}")  # fmt: skip
    plant("contra1", png(rgbs[30], level=2), ("duplicate", "answers contradict", "p30-0"), ASKED[0], answer="yes")
    expected["p30-0"] = ("duplicate", "answers contradict", "contra1")
    sound = png(rgbs[60])
    plant("broken", png(rgbs[61])[:900], ("image", "image cannot be opened", None), ASKED[0])
    plant("constant", png(np.full((96, 96, 3), 77, np.uint8)), ("image", "image is nearly constant", None), ASKED[0])
    plant("tiny", png(rgbs[62][:40, :40]), ("image", "image is too small", None), ASKED[0])
    plant("long", png(np.tile(rgbs[63][:64], (1, 3, 1))), ("image", "image is too long for its width", None), ASKED[0])
    for number, licence in enumerate(("CC-BY-NC-4.0", "unknown", "CC0-1.0 (unverified)")):
        plant(f"licence{number}", sound, ("licence", "licence is not on the list", None), ASKED[0], license=licence)
    plant("short", sound, ("text", "question is too short", None), "Mass?")
    plant("mojibake", sound, ("text", "text has unreadable characters", None), "Is it\ufffds a mass?")
    plant("told", sound, ("text", "question gives its answer away", None), "Is the mass in the liver?", answer="Liver",
          options=(), answer_type="open")  # fmt: skip
    dataset = made.write(folder / "set", notices={"SOURCES.md": b"credit where it is due"})
    bad = example("bad", image_ref(sound), answer="yes").to_json()
    add_lines(dataset, [{**bad, "answer": "perhaps"}, "{not json"])
    expected["bad"] = ("schema", "", None)
    expected[f"line {len(made.rows) + 2}"] = ("schema", "", None)
    outside = Set()
    for number in range(40, 45):
        outside.add(f"test{number}", jpeg(rgbs[number], 70), ASKED[0])
        for kind in range(2):
            expected[f"p{number}-{kind}"] = ("leak", "image of test data", f"test{number}")
    return Planted(dataset, outside.write(folder / "outside"), expected)


def left_out(folder: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows), "a row is left out once"
    return {row["id"]: row for row in rows}


def recipe_file(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_everything_planted_is_left_out_with_its_reason_and_nothing_else(planted: Planted, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, RECIPE + "[roles]\ntrain = 1\ncalibration = 0\nsearch = 0\ntest = 0\n")
    made = curate_dataset(planted.dataset.folder, tmp_path / "out", recipe, against=[planted.test.folder])
    found = left_out(made.folder)
    assert len(planted.dataset.examples) + 2 - len(found) == len(made.examples)
    assert set(found) == set(planted.expected), set(found) ^ set(planted.expected)
    for name, (stage, reason, twin) in planted.expected.items():
        row = found[name]
        assert row["stage"] == stage and row["reason"].startswith(reason), (name, row)
        if twin is not None:
            assert row["evidence"]["twin"] == twin, (name, row)
    assert found["bad"]["reason"] == "example 'bad': the answer 'perhaps' is not one of the options yes, no"
    assert found[f"line {len(planted.dataset.examples) + 2}"]["reason"].startswith("the row is not JSON (Expecting")
    assert (made.folder / "SOURCES.md").read_bytes() == b"credit where it is due"
    assert made.manifest.details["left_out"] == {
        "schema": 2, "licence": 3, "image": 4, "text": 3, "duplicate": 20, "leak": 10,
    }  # fmt: skip
    assert set(made.manifest.inputs) == {"dataset", "recipe", "against/outside"}


def test_groups_that_share_a_near_image_are_one_and_no_group_is_divided(planted: Planted, tmp_path: Path) -> None:
    made = curate_dataset(planted.dataset.folder, tmp_path / "out", recipe_file(tmp_path))
    for number in range(22, 26):
        rows = {row.id: row for row in made.examples}
        assert rows[f"other{number}"].group == rows[f"p{number}-0"].group
        assert rows[f"other{number}"].role == rows[f"p{number}-0"].role
        assert made.manifest.details["merged_groups"][f"patient {number}"] == [  # type: ignore[index,call-overload]
            f"patient {number}", f"visit {number}",
        ]  # fmt: skip
    assert all("+" not in role for role in made.manifest.roles.values())
    assert {row.role for row in made.examples} == {"train", "calibration", "search", "test"}
    assert Dataset.open(made.folder).examples == made.examples


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_roles(planted: Planted, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path)
    for name in ("a", "b"):
        curate_dataset(planted.dataset.folder, tmp_path / name, recipe, against=[planted.test.folder])
    for file in ("examples.jsonl", "manifest.json", "left_out.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    other = curate_dataset(planted.dataset.folder, tmp_path / "c", recipe_file(tmp_path, "seed = 6\n"))
    one = Dataset.open(tmp_path / "a")
    assert {row.id: row.role for row in other.examples} != {row.id: row.role for row in one.examples}


def test_a_smaller_budget_is_a_prefix_of_a_larger_one(planted: Planted, tmp_path: Path) -> None:
    orders = []
    for budget in (20, 50, 0):
        recipe = recipe_file(tmp_path, f'{RECIPE}[budget]\ntrain = {budget}\nbalance_yes_no = ["train"]\n')
        made = curate_dataset(planted.dataset.folder, tmp_path / f"b{budget}", recipe)
        orders.append([row.id for row in made.in_role("train")])
        if budget:
            beyond = [row for row in left_out(made.folder).values() if row["stage"] == "budget"]
            assert [
                row["evidence"]["place"] for row in sorted(beyond, key=lambda row: row["evidence"]["place"])
            ] == list(range(budget + 1, budget + 1 + len(beyond)))
    assert orders[0] == orders[1][:20] and orders[1] == orders[2][:50] and len(orders[2]) > 50


def test_our_own_test_role_is_kept_out_of_training_by_the_looser_rule(tmp_path: Path) -> None:
    rgbs = pictures(24, seed=2, modality="mri")
    made = Set()
    for number, rgb in enumerate(rgbs):
        made.add(f"a{number}", png(rgb), group=f"a{number}")
        far = Image.fromarray(rgb[:-4, :-4]).resize((112, 112), Image.Resampling.BICUBIC)
        made.add(f"b{number}", png(np.asarray(far)), "Which side is it?", answer="left", options=("left", "right"),
                 answer_type="choice", group=f"b{number}")  # fmt: skip
    dataset = made.write(tmp_path / "set")
    halves = RoleRules(train=0.5, calibration=0, search=0, test=0.5)
    kept = curate(dataset, CurateRecipe(roles=halves, leaks=LeakRules(own_test=False)))
    role = {row.id: row.role for row in kept.examples}
    clean = curate(dataset, CurateRecipe(roles=halves))
    gone = {row.id: row.evidence["twin"] for row in clean.ledger.rows if row.stage == "leak"}
    assert gone, "some pairs lie between the two rules and on both sides"
    for name, twin in gone.items():
        assert role[name] == "train" and role[str(twin)] == "test"
        assert str(twin)[1:] == name[1:], "only the changed copy is near"


def official(tmp_path: Path) -> Dataset:
    made = Set()
    for number, rgb in enumerate(pictures(12, seed=4)):
        for split in ("train", "test"):
            if split == "test" and number >= 4:
                continue
            made.add(f"{split}{number}", png(rgb), ASKED[split == "test"], group=f"image {number}",
                     attributes={"split": split})  # fmt: skip
    made.add("again", png(pictures(1, seed=4)[0]), ASKED[1], group="image 0", attributes={"split": "test"})
    made.add("odd", png(pictures(1, seed=4)[0]), "What?", group="image 0", attributes={"split": "test"})
    return made.write(tmp_path / "official")


def test_an_official_split_keeps_all_its_test_rows_and_by_default_loses_the_train_rows_on_their_images(
    tmp_path: Path,
) -> None:
    dataset = official(tmp_path)
    made = curate(dataset, CurateRecipe(roles=RoleRules(divide="official")))
    assert {row.id for row in made.examples if row.role == "test"} == {*(f"test{n}" for n in range(4)), "again", "odd"}
    assert {row.id for row in made.examples if row.role != "test"} == {f"train{n}" for n in range(4, 12)}
    as_it_is = curate(dataset, CurateRecipe(roles=RoleRules(divide="official"), leaks=LeakRules(own_test=False)))
    assert len(as_it_is.examples) == len(dataset.examples)
    recipe = recipe_file(tmp_path, '[roles]\ndivide = "official"\n[leaks]\nown_test = false\n')
    written = curate_dataset(dataset.folder, tmp_path / "out", recipe)
    assert "test+train" in written.manifest.roles.values() or "calibration+test" in written.manifest.roles.values()


def test_text_only_rows_are_compared_by_their_words(tmp_path: Path) -> None:
    vignette = " ".join(f"word{number}" for number in range(60)) + " what is the diagnosis?"
    nearly = vignette.replace("word30", "other")
    part = " ".join(f"word{number}" for number in range(20)) + " and then nothing more was heard of it at all, why?"
    fields: dict[str, Any] = {
        "answer": "gout",
        "options": ("gout", "flu"),
        "answer_type": "choice",
        "task": "diagnosis",
    }
    made = Set()
    made.add("first", None, vignette, **fields)
    made.add("twin", None, nearly, **fields)
    made.add("differs", None, vignette.replace("word31", "other"), **{**fields, "answer": "flu"})
    made.add("part", None, part, **fields)
    made.add("alone", None, "Which of these two is not the one that it should be?", **fields)
    dataset = made.write(tmp_path / "set")
    everything = RoleRules(train=1, calibration=0, search=0, test=0)
    kept = curate(dataset, CurateRecipe(roles=everything))
    assert {row.id for row in kept.examples} == {"first", "differs", "part", "alone"}
    groups = {row.id: row.group for row in kept.examples}
    assert groups["first"] == groups["differs"] != groups["part"], "near texts stay on one side"
    test = Set()
    test.add("exam", None, vignette, **fields)
    against = test.write(tmp_path / "test")
    clean = curate(dataset, CurateRecipe(roles=everything), tests=[against])
    assert {row.id for row in clean.examples} == {"part", "alone"}
    assert {row.reason for row in clean.ledger.rows if row.stage == "leak"} == {"text of test data"}


def test_the_same_question_about_another_image_is_no_leak_and_no_duplicate(tmp_path: Path) -> None:
    rgbs = pictures(4, seed=9)
    long = "Is there in this image of the upper abdomen any mass that was not there before?"
    made, test = Set(), Set()
    for number in range(3):
        made.add(f"q{number}", png(rgbs[number]), long)
    test.add("exam", png(rgbs[3]), long)
    everything = RoleRules(train=1, calibration=0, search=0, test=0)
    kept = curate(made.write(tmp_path / "set"), CurateRecipe(roles=everything), tests=[test.write(tmp_path / "test")])
    assert len(kept.examples) == 3 and not kept.ledger.rows


def test_the_rows_are_read_by_the_datasets_library(planted: Planted, tmp_path: Path) -> None:
    import datasets

    made = curate_dataset(planted.dataset.folder, tmp_path / "out", recipe_file(tmp_path))
    loaded = datasets.load_dataset(
        "json", data_files=str(made.folder / "examples.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["id"][:] == [row.id for row in made.examples]
    assert loaded["answer"][:] == [row.answer for row in made.examples]
    assert loaded[0]["content"][0]["sha256"] == made.examples[0].images[0].sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[licences]\nalow = []\n", "unknown key 'alow'; did you mean 'allow'"),
        ("[licences]\nallow = []\n", "allow is empty"),
        ("[roles]\ntrain = 0.9\n", "add up to"),
        ('[budget]\nbalance_yes_no = ["dev"]\n', "'dev'; roles are"),
        ("[images]\nmax_aspect = 0\n", "max_aspect = 0 is outside 1 to 200"),
        ('[licences]\nallow = ["none"]\n', r"no row of .* is left \(schema 2, licence 153\)"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_one_clear_line(
    planted: Planted, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        curate_dataset(planted.dataset.folder, tmp_path / "out", recipe_file(tmp_path, text))
    assert not (tmp_path / "out").exists()


def test_the_shipped_recipe_says_the_defaults() -> None:
    from infimed.training.recipe import find_recipe, read_recipe

    assert read_recipe(find_recipe("curate"), CurateRecipe) == CurateRecipe()
    assert BudgetRules().of("train") == 0
