"""The budget: water-filling over cells, nested prefixes, pairs of yes and no, groups in turn."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from infimed.evaluation.example import Example
from infimed.training.curate_budget import rank

from .curation_rows import example

SIZES = {("ct", "finding"): 400, ("ct", "view"): 100, ("mri", "finding"): 25, ("xray", "count"): 4}


def rows(**changes: Any) -> list[Example]:
    return [
        example(f"{modality}-{task}-{number}", modality=modality, task=task, **changes)
        for (modality, task), size in SIZES.items()
        for number in range(size)
    ]


def water_filled(budget: int) -> dict[tuple[str, str], float]:
    """The closed form: n = min(N, level * sqrt(N)) with the level that uses the budget up, found by bisection."""
    low, high = 0.0, 1e3
    for _ in range(200):
        level = (low + high) / 2
        used = sum(min(size, level * math.sqrt(size)) for size in SIZES.values())
        low, high = (level, high) if used < budget else (low, level)
    return {cell: min(size, low * math.sqrt(size)) for cell, size in SIZES.items()}


def test_every_prefix_is_water_filled_as_the_square_root_of_the_cells() -> None:
    order = rank(rows(), seed=0, balance_yes_no=False).order
    assert len(order) == sum(SIZES.values())
    for budget in (10, 37, 100, 200, 400):
        taken = Counter(row.cell for row in order[:budget])
        for cell, expected in water_filled(budget).items():
            assert abs(taken[cell] - expected) <= 1.01, (budget, cell, taken[cell], expected)


def test_the_order_is_seeded_and_does_not_depend_on_the_order_of_the_rows() -> None:
    one, again = rank(rows(), 0, False).order, rank(rows()[::-1], 0, False).order
    assert [row.id for row in one] == [row.id for row in again]
    assert [row.id for row in one] != [row.id for row in rank(rows(), 1, False).order]


def test_each_finding_keeps_as_many_yes_as_no_in_every_prefix() -> None:
    made = [
        example(f"{finding}-{number}", answer="yes" if number < yes else "no", attributes={"slot": finding})
        for finding, yes, total in (("mass", 30, 40), ("fluid", 5, 25), ("gas", 3, 3))
        for number in range(total)
    ] + [example(f"c{n}", answer="a", options=("a", "b"), answer_type="choice") for n in range(5)]
    ranked = rank(made, seed=0, balance_yes_no=True)
    kept = Counter((row.attributes.get("slot"), row.answer) for row in ranked.order)
    assert kept == {("mass", "yes"): 10, ("mass", "no"): 10, ("fluid", "yes"): 5, ("fluid", "no"): 5, (None, "a"): 5}
    assert Counter(row.reason for row in ranked.left_out) == {
        "more yes than its opposite": 23,
        "more no than its opposite": 15,
    }
    assert ranked.left_out[0].evidence == {"finding": "fluid", "yes": 5, "no": 20}
    for end in range(1, len(ranked.order)):
        for slot in ("mass", "fluid"):
            answers = Counter(row.answer for row in ranked.order[:end] if row.attributes.get("slot") == slot)
            assert abs(answers["yes"] - answers["no"]) <= 1


def test_a_finding_without_a_slot_is_told_by_its_wording() -> None:
    made = [
        example("1", question="Is there a mass?"),
        example("2", question="is there a mass", answer="no"),
        example("3", question="Is there fluid?"),
    ]
    assert {row.id for row in rank(made, 0, True).order} == {"1", "2"}


def test_every_group_is_served_once_before_any_is_served_twice() -> None:
    made = [example(f"{group}-{number}", group=f"g{group}") for group in range(6) for number in range(group + 1)]
    order = rank(made, seed=0, balance_yes_no=False).order
    assert {row.group for row in order[:6]} == {f"g{group}" for group in range(6)}
    assert {row.group for row in order[6:11]} == {f"g{group}" for group in range(1, 6)}
