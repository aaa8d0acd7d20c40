"""Draws the events of a long job on stderr: bars with rate and time left, or plain lines where no terminal is.

Knows no job. Data belongs on stdout, so a piped command stays clean.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from ..runtime.events import Event, OnEvent
from .printable import printable

LINE_EVERY_S = 10.0
_WIDE = 110  # characters of a terminal that holds a bar beside the words
_BAR_WIDTH, _STAGE_WIDTH = 24, 26  # characters; what follows the name of a stage stands in a column


def rate_text(rate: float, unit: str, named: bool = True) -> str:
    """Return a rate for a person: units per second, or seconds per unit where it is slow.

    named: whether units per second name the unit; needless beside an amount that does.
    """
    if unit == "bytes":
        return f"{rate / 1e6:,.1f} MB/s"
    if rate >= 1 or rate == 0:
        return f"{rate:,.1f} {unit}/s" if named else f"{rate:,.1f}/s"
    return f"{1 / rate:,.1f} s per {unit.removesuffix('s')}"


def time_text(seconds: float) -> str:
    """Return a duration for a person: 42 s, 3 min 20 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def amount_text(event: Event) -> str:
    """Return how far the stage is: 40/120 examples, 1.2/6.2 GB, or 40 examples where the end is not known."""
    if event.unit == "bytes":
        done = f"{event.done / 1e6:,.1f}"
        return f"{done}/{event.total / 1e6:,.1f} MB" if event.total else f"{done} MB"
    return f"{event.done:,}/{event.total:,} {event.unit}" if event.total else f"{event.done:,} {event.unit}"


def remark(event: Event) -> str:
    """Return the figures and the note of an event, in that order; a note may hold a file's name."""
    figures = "  ".join(f"{name} {value:#.3g}" for name, value in event.figures.items())
    return "  ".join(part for part in (figures, printable(event.note)) if part)


class Pace:
    """How fast one stage goes, from its first event on: work found done when the stage began does not count."""

    def __init__(self, first: Event, now_s: float) -> None:
        self.first_done, self.began_s = first.done, now_s

    def rate(self, event: Event, now_s: float) -> float:
        """Return units per second, 0 where nothing can be said yet."""
        elapsed_s = now_s - self.began_s
        return (event.done - self.first_done) / elapsed_s if elapsed_s > 0 else 0.0

    def left(self, event: Event, now_s: float) -> float | None:
        """Return the seconds that are left, None where they are not known."""
        rate = self.rate(event, now_s)
        return (event.total - event.done) / rate if rate > 0 and event.total else None


class PlainLines:
    """One line when a stage begins, one every ten seconds, one when it is done.

    brief: only for stages that last longer than `every_s`: no line at their beginning, none for the short ones.
    """

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = LINE_EVERY_S,
        brief: bool = False,
    ):
        self.stream, self.clock, self.every_s, self.brief = stream, clock, every_s, brief
        self.paces: dict[str, Pace] = {}
        self.written_s: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write the event's line, unless the last one of its stage is too fresh."""
        now_s = self.clock()
        begins = event.stage not in self.paces
        pace = self.paces.setdefault(event.stage, Pace(event, now_s))
        ends = bool(event.total) and event.done >= event.total
        due = now_s - self.written_s.setdefault(event.stage, now_s) >= self.every_s
        lasted = now_s - pace.began_s >= self.every_s
        told = due or (ends and lasted) if self.brief else begins or due or ends
        if told:
            self.written_s[event.stage] = now_s
        if ends:
            del self.paces[event.stage], self.written_s[event.stage]
        if not told:
            return
        parts = [f"{event.stage}: {amount_text(event)}"]
        if ends and not begins:
            parts.append(f"done in {time_text(now_s - pace.began_s)}")
        elif rate := pace.rate(event, now_s):
            left_s = pace.left(event, now_s)
            parts.append(rate_text(rate, event.unit) + (f", {time_text(left_s)} left" if left_s is not None else ""))
        if text := remark(event):
            parts.append(text)
        self.stream.write(", ".join(parts) + "\n")
        self.stream.flush()


@contextmanager
def bars(brief: bool = False) -> Iterator[OnEvent]:
    """Draw one line per stage on stderr, with a bar where the terminal is wide.

    What is under way is drawn again and again below; a stage that is finished is told once above it, so that the
    terminal's last lines are always of what happens now. brief: a finished stage is not told.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn
    from rich.table import Column
    from rich.text import Text

    console = Console(stderr=True)
    bar = console.width >= _WIDE
    tasks: dict[str, TaskID] = {}
    paces: dict[str, Pace] = {}
    last: dict[str, str] = {}
    progress = Progress(
        TextColumn("{task.description}", style="bold", markup=False, table_column=Column(min_width=_STAGE_WIDTH)),
        *([BarColumn(bar_width=_BAR_WIDTH)] if bar else []),
        TextColumn("{task.fields[told]}", markup=False),
        console=console,
        transient=True,
        # What is printed meanwhile goes above the stages, but a file or pipe on stdout keeps what it is given.
        redirect_stdout=sys.stdout.isatty(),
    )

    def draw(event: Event) -> None:
        now_s = time.monotonic()
        pace = paces.setdefault(event.stage, Pace(event, now_s))
        ends = bool(event.total) and event.done >= event.total
        parts = [amount_text(event)]
        if ends:
            parts.append(time_text(now_s - pace.began_s))
            del paces[event.stage]
        elif rate := pace.rate(event, now_s):
            left_s = pace.left(event, now_s)
            parts.append(rate_text(rate, event.unit, named=False))
            parts.extend([f"{time_text(left_s)} left"] if left_s is not None else [])
        parts.append(remark(event))
        words = Text("  ".join(part for part in parts if part))
        names = max(_STAGE_WIDTH, *map(len, (event.stage, *tasks)))
        words.truncate(max(1, console.width - names - 1 - bar * (_BAR_WIDTH + 1)), overflow="ellipsis")
        told = last[event.stage] = words.plain
        if event.stage not in tasks:
            tasks[event.stage] = progress.add_task(event.stage, total=event.total or None, told=told)
        progress.update(tasks[event.stage], completed=event.done, total=event.total or None, told=told)
        if ends:  # a stage of the same name may come again
            finish(event.stage)

    def finish(stage: str) -> None:
        progress.remove_task(tasks.pop(stage))
        if not brief:
            console.print(Text.assemble((f"{stage:{_STAGE_WIDTH}}", "bold"), " ", last[stage]))

    with progress:
        try:
            yield draw
        finally:
            for stage in list(tasks):  # what has no known end, or was broken off
                finish(stage)


@contextmanager
def drawn(brief: bool = False) -> Iterator[OnEvent]:
    """Give the listener that suits this terminal: `with drawn() as on_event: job(..., on_event)`.

    brief: for a command that prints what came of each stage: finished ones go from a terminal, and where none is,
    only those that last are told.
    """
    if sys.stderr.isatty():
        with bars(brief) as draw:
            yield draw
    else:
        yield PlainLines(sys.stderr, brief=brief)
