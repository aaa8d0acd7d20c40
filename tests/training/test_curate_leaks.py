"""Leaks: a patient of the test set is kept out whole, whatever image is shown, and every test set is on record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.example import DatasetError
from infimed.training.curate import curate, curate_dataset
from infimed.training.curate_recipe import CurateRecipe, LeakRules, RoleRules

from .curation_rows import Set, jpeg, pictures, png

ASKED = "Is there a mass in the image?"
ALL = RoleRules(train=1, calibration=0, search=0, test=0)
ALL_TRAIN = "[roles]\ntrain = 1\ncalibration = 0\nsearch = 0\ntest = 0\n"


def patients(folder: Path, rgbs: Sequence[np.ndarray[Any, Any]], groups: Sequence[str], **changes: Any) -> Dataset:
    """Write one row for each picture, of the given groups; ids carry the folder's name."""
    made = Set()
    for number, (rgb, group) in enumerate(zip(rgbs, groups, strict=True)):
        made.add(f"{folder.name}{number}", png(rgb), ASKED, group=group, **changes)
    return made.write(folder)


def leaked(dataset: Dataset, *tests: Dataset, recipe: CurateRecipe | None = None) -> dict[str, Any]:
    found = curate(dataset, recipe or CurateRecipe(roles=ALL), tests=tests).ledger.rows
    assert {row.stage for row in found} <= {"leak"}
    return {row.id: (row.reason, row.evidence.get("group"), row.evidence["twin"]) for row in found}


def test_other_images_of_a_patient_of_the_test_set_are_left_out(tmp_path: Path) -> None:
    rgbs = pictures(12, seed=3)
    train = patients(tmp_path / "train", rgbs[:6], ["p0", "p0", "p1", "p2", "p3", "p3"])
    test = patients(tmp_path / "test", rgbs[6:9], ["p0", "p3", "p9"])
    reason = "patient or group of test data"
    assert leaked(train, test) == {
        "train0": (reason, ["made", "p0"], "test0"),
        "train1": (reason, ["made", "p0"], "test0"),
        "train4": (reason, ["made", "p3"], "test1"),
        "train5": (reason, ["made", "p3"], "test1"),
    }
    elsewhere = patients(tmp_path / "other", rgbs[6:9], ["p0", "p3", "p9"], source="another clinic")
    assert leaked(train, elsewhere) == {}, "the same number of another source is another patient"


def test_only_the_test_role_of_a_set_with_roles_is_held_against(tmp_path: Path) -> None:
    rgbs = pictures(6, seed=3)
    train = patients(tmp_path / "train", rgbs[:2], ["p0", "p1"])
    made = Set()
    for number, (group, role) in enumerate((("p0", "train"), ("p1", "test"))):
        made.add(f"t{number}", png(rgbs[4 + number]), ASKED, group=group, role=role)
    assert set(leaked(train, made.write(tmp_path / "test"))) == {"train1"}


def test_a_patient_whose_group_was_merged_on_either_side_is_still_known(tmp_path: Path) -> None:
    rgbs = pictures(8, seed=5)
    merging = [rgbs[0], np.asarray(rgbs[0]), rgbs[1], rgbs[2]]
    made = Set()
    for number, (rgb, group) in enumerate(zip(merging, ("visit 1", "visit 2", "visit 2", "p5"), strict=True)):
        data = jpeg(rgb, 60) if number == 1 else png(rgb)
        made.add(f"a{number}", data, f"{ASKED[:-1]}, view {number}?", group=group)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(ALL_TRAIN)
    once = curate_dataset(made.write(tmp_path / "set").folder, tmp_path / "once", recipe)
    assert once.manifest.details["merged_groups"] == {"visit 1": ["visit 1", "visit 2"]}
    twice = curate_dataset(once.folder, tmp_path / "twice", recipe)
    assert twice.manifest.details["merged_groups"] == {"visit 1": ["visit 1", "visit 2"]}, "kept a second time"
    visits = patients(tmp_path / "v", [rgbs[6]], ["visit 2"])
    for dataset in (Dataset.open(tmp_path / "set"), once, twice):
        assert set(leaked(dataset, visits)) == {"a0", "a1", "a2"}
    assert set(leaked(visits, twice)) == {"v0"}


def test_a_group_that_a_kept_role_divides_leaks_into_our_own_test_role(tmp_path: Path) -> None:
    made = Set()
    for number, (rgb, role) in enumerate(zip(pictures(3, seed=6), ("train", "test", "train"), strict=True)):
        made.add(f"r{number}", png(rgb), ASKED, group=f"p{number // 2}", role=role)
    dataset = made.write(tmp_path / "set", official_split=True)
    keep = RoleRules(divide="keep")
    assert set(leaked(dataset, recipe=CurateRecipe(roles=keep))) == {"r0"}
    assert leaked(dataset, recipe=CurateRecipe(roles=keep, leaks=LeakRules(own_test=False))) == {}


def test_two_test_sets_of_one_name_are_both_on_record(tmp_path: Path) -> None:
    rgbs = pictures(6, seed=7)
    train = patients(tmp_path / "train", rgbs[:4], ["p0", "p1", "p2", "p3"])
    first = patients(tmp_path / "a" / "test", rgbs[4:5], ["p0"])
    second = patients(tmp_path / "b" / "test", rgbs[5:6], ["p1"])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(ALL_TRAIN)
    against = [first.folder, second.folder, first.folder]
    made = curate_dataset(train.folder, tmp_path / "out", recipe, against=against)
    labels = {f"test@{one.sha256[:16]}": one.sha256 for one in (first, second)}
    held = {name: sha for name, sha in made.manifest.inputs.items() if name.startswith("against/")}
    assert held == {f"against/{label}": sha for label, sha in labels.items()}
    rows = [json.loads(line) for line in (made.folder / "left_out.jsonl").read_text().splitlines()]
    assert {row["id"]: row["evidence"]["test"] for row in rows} == dict(zip(("train0", "train1"), labels, strict=True))


def test_a_curated_set_is_not_put_inside_what_it_is_made_from(tmp_path: Path) -> None:
    rgbs = pictures(2, seed=8)
    dataset = patients(tmp_path / "set", rgbs[:1], ["p0"])
    test = patients(tmp_path / "test", rgbs[1:], ["p1"])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(ALL_TRAIN)
    for folder in (dataset.folder, test.folder):
        before = sorted(folder.rglob("*"))
        with pytest.raises(DatasetError, match="lies inside"):
            curate_dataset(dataset.folder, folder / "deep" / "out", recipe, against=[test.folder])
        assert sorted(folder.rglob("*")) == before


def test_answers_that_differ_by_a_sign_alone_contradict_each_other(tmp_path: Path) -> None:
    sizes = ("< 3 cm", "> 3 cm")
    made = Set()
    for number, rgb in enumerate(pictures(3, seed=9)):
        for kind, answer in enumerate(sizes if number < 2 else sizes[:1] * 2):
            made.add(f"q{number}{kind}", png(rgb), "How large is the lesion?", answer=answer, options=sizes,
                     answer_type="choice", task="size", group=f"p{number}")  # fmt: skip
    found = curate(made.write(tmp_path / "set"), CurateRecipe(roles=ALL)).ledger.rows
    assert {row.id: row.reason for row in found} == {
        "q00": "answers contradict", "q01": "answers contradict", "q10": "answers contradict",
        "q11": "answers contradict", "q21": "exact duplicate",
    }  # fmt: skip
    assert found[0].evidence["answers"] == ["< 3 cm", "> 3 cm"]


def test_questions_that_differ_by_a_sign_alone_are_two_questions(tmp_path: Path) -> None:
    made = Set()
    rgb = png(pictures(1, seed=9)[0])
    made.add("less", rgb, "Is the lesion that is shown here < 3 cm?", answer="yes", group="p")
    made.add("more", rgb, "Is the lesion that is shown here > 3 cm?", answer="no", group="p")
    assert not curate(made.write(tmp_path / "set"), CurateRecipe(roles=ALL)).ledger.rows
