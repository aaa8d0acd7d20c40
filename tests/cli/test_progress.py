"""Progress without a terminal is a few lines on stderr that a log can keep; with one it is bars."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys

import pytest

from infimed.cli.progress import PlainLines, amount_text, bars, drawn, rate_text, remark, time_text
from infimed.runtime.events import Event


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_stage_of_a_thousand_events_is_a_handful_of_lines_with_rate_and_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = PlainLines(stream, clock)
    for done in range(1001):
        clock.now_s = done * 0.025
        lines(Event("train", done, 1000, "steps", figures={"loss": 2.0 - done / 1000}))
    said = stream.getvalue().splitlines()
    assert len(said) == 4
    assert said[0] == "train: 0/1,000 steps, loss 2.00"
    assert said[1] == "train: 400/1,000 steps, 40.0 steps/s, 15 s left, loss 1.60"
    assert said[3] == "train: 1,000/1,000 steps, done in 25 s, loss 1.00"


def test_work_found_done_at_the_start_does_not_count_as_fast_work() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = PlainLines(stream, clock)
    lines(Event("evaluate", 900, 1000, "examples", "resumed"))
    clock.now_s = 20.0
    lines(Event("evaluate", 920, 1000, "examples"))
    assert stream.getvalue().splitlines()[1] == "evaluate: 920/1,000 examples, 1.0 examples/s, 1 min 20 s left"


def test_stages_side_by_side_are_timed_apart() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = PlainLines(stream, clock, every_s=1.0)
    lines(Event("a", 0, 10, "files"))
    clock.now_s = 5.0
    lines(Event("b", 0, 10, "files"))
    clock.now_s = 10.0
    lines(Event("a", 5, 10, "files"))
    lines(Event("b", 5, 10, "files"))
    assert stream.getvalue().splitlines()[2:] == [
        "a: 5/10 files, 2.0 s per file, 10 s left",
        "b: 5/10 files, 1.0 files/s, 5 s left",
    ]


def test_a_stage_without_a_known_end_tells_what_is_done() -> None:
    assert amount_text(Event("verify", 1_234_500_000, 0, "bytes")) == "1,234.5 MB"
    assert amount_text(Event("verify", 1_234_500_000, 2_000_000_000, "bytes")) == "1,234.5/2,000.0 MB"
    assert amount_text(Event("walk", 7, 0, "files")) == "7 files"


def test_rates_and_times_are_written_for_a_person() -> None:
    assert rate_text(3.04e8, "bytes") == "304.0 MB/s"
    assert rate_text(0.25, "steps") == "4.0 s per step"
    assert [time_text(s) for s in (0.4, 59.4, 60, 3599, 3600, 7384)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "59 min 59 s",
        "1 h 00 min",
        "2 h 03 min",
    ]
    assert remark(Event("s", 0, 1, "x", "a note", {"kl": 1.23456e-7})) == "kl 1.23e-07  a note"
    assert remark(Event("s", 0, 1, "x", "\x1b[2Jscan\u202e.png")) == r"\x1b[2Jscan\u202e.png"


def test_without_a_terminal_lines_go_to_stderr_and_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with drawn() as on_event:
        on_event(Event("export", 1, 2, "levels"))
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "export: 1/2 levels\n"


def test_bars_show_every_stage_and_brackets_in_a_note_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as on_event:
        on_event(Event("pixels", 1, 2, "images", "file [3].png"))
        on_event(Event("pixels", 2, 2, "images", "file [4].png"))
        on_event(Event("tokens", 5, 0, "rows"))
        print("data")
    captured = capsys.readouterr()
    assert captured.out == "data\n"
    assert "pixels" in captured.err and "2/2 images" in captured.err and "5 rows" in captured.err


def test_brief_lines_tell_only_of_stages_that_last() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = PlainLines(stream, clock, brief=True)
    for done in range(11):
        clock.now_s = done * 0.1
        lines(Event("short", done, 10, "files"))
    for done in range(5):
        clock.now_s = 100 + done * 6.0
        lines(Event("long", done, 4, "steps"))
    assert stream.getvalue().splitlines() == [
        "long: 2/4 steps, 6.0 s per step, 12 s left",
        "long: 4/4 steps, done in 24 s",
    ]


def screen(raw: str) -> list[str]:
    """Return the lines that a terminal shows after these bytes: carriage return, erase line, cursor up; no colours."""
    lines, row = [""], 0
    for mark, text in re.findall(r"(\r|\n|\x1b\[[0-9;?]*[A-Za-z])|([^\r\n\x1b]+)", raw):
        if text:
            lines[row] += text
        elif mark == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif mark.endswith("A"):
            row -= int(mark[2:-1] or 1)
        elif mark == "\x1b[2K":
            lines[row] = ""
    return [line.rstrip() for line in lines if line.strip()]


def terminal(program: str, columns: int = 100, lines: int = 24) -> str:
    """Run a program on a terminal of that size and return all that it wrote there."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm"}
    command = [sys.executable, "-c", program]
    made = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **size})
    os.close(theirs)
    raw = b""
    with contextlib.suppress(OSError):  # Linux's way to say that nobody writes any more
        while chunk := os.read(ours, 4096):
            raw += chunk
    assert made.wait() == 0
    return raw.decode()


def test_on_a_terminal_words_and_stages_do_not_run_into_each_other() -> None:
    program = (
        "import time\n"
        "from infimed.cli.progress import drawn\n"
        "from infimed.runtime.events import Event\n"
        "with drawn(brief=True) as on_event:\n"
        "    for stage in ('one', 'two', 'one'):\n"
        "        on_event(Event(stage, 1, 2, 'steps'))\n"
        "        time.sleep(0.3)\n"
        "        print(f'amid {stage}')\n"
        "        on_event(Event(stage, 2, 2, 'steps'))\n"
        "        print(f'after {stage}')\n"
    )
    raw = terminal(program)
    assert "1/2 steps" in raw
    assert screen(raw) == ["amid one", "after one", "amid two", "after two", "amid one", "after one"]


def test_more_stages_than_a_terminal_has_lines_leave_the_one_under_way_in_sight() -> None:
    program = (
        "import time\n"
        "from infimed.cli.progress import drawn\n"
        "from infimed.runtime.events import Event\n"
        "with drawn() as on_event:\n"
        "    for number in range(12):\n"
        "        on_event(Event(f'level {number}', 1, 2, 'tensors', 'x' * 200))\n"
        "        time.sleep(1.5 if number == 11 else 0)\n"
        "        on_event(Event(f'level {number}', 2, 2, 'tensors'))\n"
        "    on_event(Event('walk', 7, 0, 'files'))\n"
    )
    raw = terminal(program, lines=6)
    under_way = [line for line in raw.splitlines() if "level 11" in line and "1/2 tensors" in line]
    assert under_way and all(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip()) <= 100 for line in under_way)
    told = screen(raw)
    assert [line.split("  ")[0] for line in told] == [*(f"level {number}" for number in range(12)), "walk"]
    assert {line.index("2/2 tensors") for line in told[:12]} == {27} and told[12].endswith("7 files")
