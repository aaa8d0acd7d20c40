"""The Event: what a long job tells while it runs. Knows no terminal; only the cli draws events.

A job yields events or takes an `on_event: Callable[[Event], None]`. Within a stage `done` never falls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One step forward of a named stage.

    done, total: in `unit` (examples, steps, bytes); total 0 means that the end is not known.
    note: a short remark for a person. figures: numbers worth watching by name, such as {"loss": 0.41}.
    """

    stage: str
    done: int
    total: int
    unit: str
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Take an event and do nothing: the default listener of a job."""
