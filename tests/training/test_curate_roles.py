"""Roles: by group, near the shares, alike over cells, seeded; official splits kept where the recipe says so."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from infimed.evaluation.example import Example
from infimed.training.curate_groups import NearImages, Together, merge_groups
from infimed.training.curate_near import Nearness
from infimed.training.curate_recipe import RoleRules
from infimed.training.curate_roles import divide

from .curation_rows import example

CELLS = [("ct", "finding"), ("ct", "size"), ("mri", "finding"), ("xray", "view")]


def rows(groups: int, seed: int = 0, **changes: Any) -> list[Example]:
    """Groups of 1 to 8 rows in cells of very different sizes."""
    draw = random.Random(seed)
    made = []
    for group in range(groups):
        modality, task = draw.choices(CELLS, weights=(8, 2, 4, 1))[0]
        for number in range(draw.randint(1, 8)):
            made.append(example(f"{group}-{number}", modality=modality, task=task, group=f"g{group:03d}", **changes))
    return made


def test_no_group_is_divided_and_every_cell_comes_near_the_shares() -> None:
    divided = divide(rows(300), RoleRules(), seed=1)
    by_group: dict[str, set[str]] = {}
    for row in divided:
        by_group.setdefault(row.group, set()).add(row.role)
    assert all(len(found) == 1 for found in by_group.values())
    shares = RoleRules().shares
    for cell in [*CELLS, None]:
        held = Counter(row.role for row in divided if cell in (None, row.cell))
        for role, share in shares.items():
            assert abs(held[role] - share * held.total()) <= 4, (cell, role, held)


def test_the_seed_decides_and_the_same_seed_decides_the_same_whatever_the_order() -> None:
    made = rows(80)
    one = {row.id: row.role for row in divide(made, RoleRules(), seed=1)}
    again = {row.id: row.role for row in divide(made[::-1], RoleRules(), seed=1)}
    other = {row.id: row.role for row in divide(made, RoleRules(), seed=2)}
    assert one == again != other


def test_a_role_without_a_share_gets_nothing() -> None:
    divided = divide(rows(40), RoleRules(train=0.5, calibration=0, search=0, test=0.5), seed=1)
    assert {row.role for row in divided} == {"train", "test"}


def test_an_official_split_keeps_its_test_rows_and_shares_the_rest() -> None:
    made = [
        *rows(60, attributes={"split": "train"}),
        *(example(f"t{n}", group=f"g{n:03d}", attributes={"split": "test"}) for n in range(10)),
        *(example(f"v{n}", group=f"x{n}", attributes={"split": "validation"}) for n in range(5)),
    ]
    divided = {row.id: row for row in divide(made, RoleRules(divide="official"), seed=1)}
    assert all(divided[f"t{n}"].role == "test" for n in range(10))
    assert all(divided[f"v{n}"].role == "search" for n in range(5))
    rest = Counter(row.role for row in divided.values() if row.attributes["split"] == "train")
    assert set(rest) == {"train", "calibration"}, "test and search are given by the split"
    assert 0.02 < rest["calibration"] / rest.total() < 0.12


def test_kept_roles_stay_and_rows_without_one_follow_their_group() -> None:
    made = [
        example("a", group="g1", role="test"),
        example("b", group="g1"),
        example("c", group="g2", role="search"),
        *rows(30),
    ]
    divided = {row.id: row.role for row in divide(made, RoleRules(divide="keep"), seed=1)}
    assert (divided["a"], divided["b"], divided["c"]) == ("test", "test", "search")
    assert "" not in divided.values()


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"add up to 1\.1"):
        RoleRules(train=0.8)


def test_joined_sets_are_called_by_their_smallest_name_whatever_the_order() -> None:
    links = [("d", "c"), ("b", "e"), ("c", "b"), ("x", "y")]
    for seed in range(5):
        random.Random(seed).shuffle(links)
        together = Together()
        for left, right in links:
            together.join(left, right)
        assert {name: together.of(name) for name in "abcdexy"} == {
            "a": "a", "b": "b", "c": "b", "d": "b", "e": "b", "x": "x", "y": "x",
        }  # fmt: skip


def test_groups_are_merged_by_text_twins_too() -> None:
    made = [example(name, group=name) for name in "abc"]
    merged = merge_groups(made, {}, NearImages([], Nearness(10, 0.96, 0.78)), [("c", "b")])
    assert merged == {"a": "a", "b": "b", "c": "b"}
