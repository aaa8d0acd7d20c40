"""Why a row was left out: one line per row, with the stage, the reason and the evidence. Knows no rule."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from ..evaluation.example import JSON

# In the order in which they run.
STAGES = ("schema", "licence", "image", "text", "duplicate", "leak", "balance", "budget")
LEFT_OUT = "left_out.jsonl"


@dataclass(frozen=True)
class LeftOut:
    """A row that the curated set does not have. evidence: numbers and ids that let a person check the reason."""

    id: str
    stage: str
    reason: str
    evidence: Mapping[str, JSON] = field(default_factory=dict)


class Ledger:
    """Collects what is left out; a row is left out once, by the first stage that says no."""

    def __init__(self) -> None:
        self.rows: list[LeftOut] = []
        self.ids: set[str] = set()

    def add(self, row: LeftOut) -> None:
        """Enter a row."""
        self.rows.append(row)
        self.ids.add(row.id)

    def counts(self) -> dict[str, int]:
        """Return the number of rows left out by stage, in the order of the stages."""
        found = Counter(row.stage for row in self.rows)
        return {stage: found[stage] for stage in STAGES if found[stage]}

    def to_bytes(self) -> bytes:
        """Return left_out.jsonl, sorted by stage, then id: the order of work does not show."""
        ordered = sorted(self.rows, key=lambda row: (STAGES.index(row.stage), row.id, row.reason))
        lines = (json.dumps(asdict(row), sort_keys=True, ensure_ascii=False) + "\n" for row in ordered)
        return "".join(lines).encode()
