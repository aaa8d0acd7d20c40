"""What the tests showed of each family, level and engine, as the page docs/support.md.

A test states what it did through the fixture `shown`; only what a passed test stated is on the page. Knows no test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["executed", "built only", "refused"]
PROPERTY = "support"
HEAD = """# What was run, what was only built, what is refused

Written by the tests, by what they did: `./dev test --full --support docs/support.md`. A full run fails where this page
says something else. *executed*: a tiny model of random weights was exported at that level, held against torch, and
answered a question in that engine on an x86-64 processor without a GPU. *built only*: the engine's own builder took it;
it was never run. *refused*: asked for, it is refused by name. What needs hardware that was not at hand is in
docs/unverified.md.
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


def page(found: Iterable[Shown], levels: Iterable[str]) -> str:
    """Return the page: a table for each family, the levels in their order; what no test showed is said to be so."""
    order = {name: place for place, name in enumerate(levels)}
    rows = sorted(set(found), key=lambda shown: (shown.family, order.get(shown.level, len(order)), shown))
    lines = [HEAD]
    for family in dict.fromkeys(shown.family for shown in rows):
        lines += [f"## {family}", "", "| level | engine | state | |", "|---|---|---|---|"]
        mine = [shown for shown in rows if shown.family == family]
        lines += [f"| {s.level} | {s.engine} | {s.state} | {s.note} |" for s in mine]
        lines.append("")
    return "\n".join(lines)
