"""What the tests showed of each family, level and engine, as the page docs/support.md.

A test states what it did through the fixture `shown`; only what a passed test stated is on the page, and a level of
which none did is said to be so. Knows no test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["executed", "built only", "refused", "not shown"]
PROPERTY = "support"
FIXTURE = "shown"
HEAD = """# What was run, what was only built, what is refused

Written by the tests that state something, from what they did: `./dev test --full --support docs/support.md` runs those
alone. A whole `./dev test --full` fails where this page says something else.

- *executed*: a tiny model of random weights was exported at that level, its distance to torch measured, and it answered
  a question and scored two options in that engine, on an x86-64 processor without a GPU.
- *built only*: the engine's own builder took the level; what it made was never run.
- *refused*: asked for, it is refused by name before any work.
- *not shown*: no test ran it.

The other sentences that a test holds, such as what an exported file equals, are in the document of each format. What
needs hardware that was not at hand is in [unverified.md](unverified.md).
"""


@dataclass(frozen=True, order=True)
class Shown:
    """One thing that a test did. engine: the library, or the builder. note: what a person should know of it."""

    family: str
    level: str
    engine: str
    state: State
    note: str = ""

    def to_text(self) -> str:
        """Return it as the text that test reports carry."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_text(text: str) -> Shown:
        """Read what `to_text` gave."""
        return Shown(**json.loads(text))


def page(found: Iterable[Shown], levels: Sequence[str]) -> str:
    """Return the page: a table for each family, the levels in their order, each followed by what is made of it.

    Last comes what was shown of something else than a level of that list.
    """
    order = {name: place for place, name in enumerate(levels)}
    lines = [HEAD]
    shown = set(found)
    for family in sorted({one.family for one in shown}):
        mine = {one for one in shown if one.family == family}
        missing = set(levels) - {one.level for one in mine}
        mine |= {Shown(family, name, "", "not shown") for name in missing}
        rows = sorted(mine, key=lambda one: (order.get(_base(one.level, order), len(order)), one))
        lines += [f"## {family}", "", "| level | engine | state | |", "|---|---|---|---|"]
        lines += [f"| {one.level} | {one.engine} | {one.state} | {one.note} |" for one in rows]
        lines.append("")
    return "\n".join(lines)


def _base(name: str, order: Mapping[str, int]) -> str:
    """Return the listed level that a name begins with: gguf-q4_k_m of gguf-q4_k_m+imatrix."""
    parts = name.split("+")
    starts = ("+".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((start for start in starts if start in order), name)
