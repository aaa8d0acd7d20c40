"""Which rows come first: spread over modality x task as sqrt(N), groups in turn, yes and no in pairs.

The order does not depend on the budget, so a smaller budget is a prefix of a larger one. Knows rows of one role.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.example import JSON, Example
from .curate_draw import drawn
from .curate_ledger import LeftOut
from .curate_texts import words

Unit = tuple[Example, ...]
_DRAW = ":"


@dataclass(frozen=True)
class Ranked:
    """The rows of a role in the order in which a budget takes them, and those that balance left out."""

    order: tuple[Example, ...]
    left_out: tuple[LeftOut, ...]


def rank(examples: Sequence[Example], seed: int, balance_yes_no: bool) -> Ranked:
    """Return the order of the rows of one role.

    Cells are served by the divisor method of Sainte-Lague with weight sqrt(N): whatever is cut off behind, every cell
    has its share of the prefix, and full cells pass theirs on (water-filling).
    """
    cells: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        cells.setdefault(example.cell, []).append(example)
    left_out: list[LeftOut] = []
    queues: dict[tuple[str, str], list[Example]] = {}
    for cell in sorted(cells):
        units, surplus = _pairs(cells[cell], seed) if balance_yes_no else ([(row,) for row in cells[cell]], [])
        left_out.extend(surplus)
        queues[cell] = [row for unit in _in_turn(units, seed) for row in unit]
    return Ranked(tuple(_apportion(queues)), tuple(left_out))


def _apportion(queues: dict[tuple[str, str], list[Example]]) -> list[Example]:
    weight = {cell: math.sqrt(len(queue)) for cell, queue in queues.items() if queue}
    heap = [(1 / weight[cell], cell, 0) for cell in sorted(weight)]
    heapq.heapify(heap)
    order: list[Example] = []
    while heap:
        _, cell, taken = heapq.heappop(heap)
        order.append(queues[cell][taken])
        if taken + 1 < len(queues[cell]):
            heapq.heappush(heap, ((2 * taken + 3) / weight[cell], cell, taken + 1))
    return order


def finding_of(example: Example) -> str:
    """Return what a yes/no question asks about: its slot where the source names one, else its wording."""
    named = example.attributes.get("slot") or example.attributes.get("finding")
    return str(named) if named else " ".join(words(example.question))


def _pairs(examples: Sequence[Example], seed: int) -> tuple[list[Unit], list[LeftOut]]:
    """Return units of one yes and one no of the same finding; what finds no partner is left out."""
    units: list[Unit] = []
    findings: dict[str, list[Example]] = {}
    for example in examples:
        if example.answer_type == "yesno":
            findings.setdefault(finding_of(example), []).append(example)
        else:
            units.append((example,))
    left_out: list[LeftOut] = []
    for finding in sorted(findings):
        rows = _shuffled(findings[finding], seed)
        yes = [row for row in rows if row.answer == "yes"]
        no = [row for row in rows if row.answer == "no"]
        units.extend(zip(yes, no, strict=False))
        paired = min(len(yes), len(no))
        for row in (*yes[paired:], *no[paired:]):
            evidence: dict[str, JSON] = {"finding": finding, "yes": len(yes), "no": len(no)}
            left_out.append(LeftOut(row.id, "balance", f"more {row.answer} than its opposite", evidence))
    return units, left_out


def _in_turn(units: Sequence[Unit], seed: int) -> list[Unit]:
    """Order units by a seeded draw, the first of every group before the second of any."""
    shuffled = sorted(units, key=lambda unit: drawn(seed, _DRAW, unit[0].id))
    seen: dict[str, int] = {}
    turns = []
    for unit in shuffled:
        turn = max(seen.get(row.group, 0) for row in unit)
        for row in unit:
            seen[row.group] = seen.get(row.group, 0) + 1
        turns.append(turn)
    return [unit for _, unit in sorted(zip(turns, shuffled, strict=True), key=lambda pair: pair[0])]


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    return sorted(examples, key=lambda row: drawn(seed, _DRAW, row.id))
