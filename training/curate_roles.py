"""Roles by group: seeded, near the shares of the recipe, alike over modality x task; no group is ever divided.

Knows groups and shares. A split that the source states may be kept instead; then only the rest is divided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..evaluation.example import ROLES, Example, Role
from .curate_draw import drawn
from .curate_recipe import RoleRules

_DRAW = "/"
Cell = tuple[str, str]
_OFFICIAL: Mapping[str, Role] = {"test": "test", "validation": "search"}


def divide(examples: Sequence[Example], rules: RoleRules, seed: int) -> tuple[Example, ...]:
    """Return the examples with their roles; groups must be merged already."""
    fixed = {example.id: role for example in examples if (role := stated_role(example, rules))}
    free = [example for example in examples if example.id not in fixed]
    shares = dict(rules.shares)
    if rules.divide == "official":
        for role in set(fixed.values()):
            shares[role] = 0.0
    settled: dict[str, Role] = {}
    if rules.divide == "keep":
        for example in examples:
            if example.id in fixed:
                settled.setdefault(example.group, fixed[example.id])
    open_groups = [example for example in free if example.group not in settled]
    settled.update(share_out(open_groups, shares, seed))
    return tuple(example.with_role(fixed.get(example.id) or settled[example.group]) for example in examples)


def stated_role(example: Example, rules: RoleRules) -> Role:
    """Return the role that the source states and the recipe keeps, or "" where the row is free."""
    if rules.divide == "official":
        return _OFFICIAL.get(str(example.attributes.get("split", "")), "")
    return example.role if rules.divide == "keep" else ""


def share_out(examples: Sequence[Example], shares: Mapping[Role, float], seed: int) -> dict[str, Role]:
    """Return the role of every group: largest groups first, each to the role whose targets it fits best.

    The fit is the rise of sum (assigned - target)^2 / target over the group's cells and over the whole, so small roles
    and rare cells weigh as much as large ones.
    """
    total = sum(share for share in shares.values() if share > 0)
    roles = [role for role in ROLES if shares.get(role, 0) > 0]  # type: ignore[call-overload]
    if not examples or not roles:
        return {example.group: "train" for example in examples}
    groups: dict[str, Counter[Cell]] = {}
    for example in examples:
        groups.setdefault(example.group, Counter())[example.cell] += 1
    cells = Counter(example.cell for example in examples)
    everything: Cell = ("", "")
    cells[everything] = len(examples)
    assigned: dict[tuple[str, Cell], int] = {}
    result: dict[str, Role] = {}
    for group in sorted(groups, key=lambda name: (-groups[name].total(), drawn(seed, _DRAW, name))):
        counts = {**groups[group], everything: groups[group].total()}

        def rise(role: Role, counts: Mapping[Cell, int] = counts) -> float:
            cost = 0.0
            for cell, count in counts.items():
                target = cells[cell] * shares[role] / total
                cost += count * (count + 2 * (assigned.get((role, cell), 0) - target)) / target
            return cost

        best: Role = min(roles, key=rise)  # type: ignore[arg-type]
        for cell, count in counts.items():
            assigned[best, cell] = assigned.get((best, cell), 0) + count
        result[group] = best
    return result
