"""Measures levels of a draft against the reference's answers, in a process of its own that lives as long as the export.

An engine that ends its process ends that one; the export says which level it was and with what words.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import InfimedError
from ..runtime.events import Event, OnEvent
from ..runtime.files import strict_json
from ..runtime.manifest import LevelEntry
from ..runtime.open_engine import open_level
from ..runtime.scratch import scratch
from .draft import read_references
from .own_process import OwnProcess, telling
from .parity import Parity, ParityError, measure


class Gauge:
    """The process, started when something is to be measured. draft, notes: as Draft has them."""

    def __init__(self, draft: Path, notes: Path, threads: int, on_event: OnEvent) -> None:
        self._given = {"draft": str(draft), "notes": str(notes), "threads": threads}
        self._on_event = on_event
        self._process: OwnProcess | None = None
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Gauge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.end()
        self._held.close()

    def measure(self, entry: LevelEntry) -> Parity:
        """Return a finished level's distance to the reference. Raises ParityError where its engine cannot be run."""
        if self._process is None:
            words = self._held.enter_context(scratch("gauge"))
            self._process = OwnProcess(__name__, self._given, words / "stderr")
        self._process.ask(asdict(entry))
        for told in self._process.lines():
            if "event" in told:
                self._on_event(Event(**told["event"]))
            elif "parity" in told:
                return Parity(**told["parity"])
            elif "error" in told:
                raise ParityError(f"{entry.name}: {told['error']}; nothing was published")
        raise ParityError(f"{entry.name}: its engine failed: {self._process.ending}; nothing was published")


def main(given: dict[str, Any]) -> None:
    """Answer each line of standard input, a level's entry, with its distance."""
    tell = telling()

    def on_event(event: Event) -> None:
        tell({"event": {"stage": event.stage, "done": event.done, "total": event.total, "unit": event.unit}})

    draft = Path(given["draft"])
    references = read_references(draft, Path(given["notes"]))
    for line in sys.stdin.buffer:
        entry = LevelEntry(**strict_json(line))
        try:
            if references is None:
                raise ParityError("there are no answers of the reference to measure against")
            engine = open_level(draft, entry, threads=given["threads"])
            try:
                tell({"parity": measure(engine, references, on_event).to_json()})
            finally:
                engine.close()
        except InfimedError as error:
            tell({"error": str(error)})
