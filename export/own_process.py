"""A process of its own for what may abort or hang: an engine's end must not be the caller's.

The child tells what it does in lines of JSON on standard output; what its libraries print goes to a file, whose last
line is quoted when it dies. Whoever starts it reads lines, and afterwards how it ended. Knows no engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from .. import InfimedError

SILENCE_S = 1800.0
"""Seconds without a sign of life after which a child is ended; a sign comes with every prompt and every tensor."""
_START = """
import json, sys
given = json.loads(sys.argv[1])
sys.path[:] = given["path"]
from {name} import main
main(given)
"""


class OwnProcessError(InfimedError):
    """A process cannot be started."""


class OwnProcess:
    """A child that runs `main(given)` of a module of this package, and how it ended.

    given: what JSON can hold. errors: the file that its libraries' words go to. silence_s: see SILENCE_S.
    """

    def __init__(self, module: str, given: dict[str, Any], errors: Path, silence_s: float = SILENCE_S) -> None:
        self.ending = "the process ended without a word"
        self._silence_s = silence_s
        self._silent = False
        self._errors = errors
        code = _START.replace("{name}", module)
        try:
            with errors.open("wb") as words:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code, json.dumps({**given, "path": sys.path})],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=words,
                    start_new_session=True,
                )
        except OSError as error:
            raise OwnProcessError(f"no process can be started for the engines ({error})") from error

    def ask(self, value: dict[str, Any]) -> None:
        """Send the child a line; one that is gone is told of by `lines`."""
        stream: IO[bytes] | None = self._process.stdin
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):
            stream.write(json.dumps(value).encode() + b"\n")
            stream.flush()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what the child tells; when there is no more of it, `ending` says how it ended."""
        stream: IO[bytes] | None = self._process.stdout
        assert stream is not None
        while True:
            timer = self._watch()
            try:
                line = stream.readline()
            finally:
                timer.cancel()
            if not line:
                break
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict):
                    yield told
        code = self._process.wait()
        if self._silent:
            self.ending = f"no sign of life for {self._silence_s:g} s; the process was ended"
        elif code < 0:
            self.ending = f"the process was ended by {_signal_name(-code)}{self._last_words()}"
        elif code:
            self.ending = f"the process ended with code {code}{self._last_words()}"

    def end(self) -> None:
        """End the child and whatever it started."""
        self._kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The child's number."""
        return self._process.pid

    def _watch(self) -> threading.Timer:
        timer = threading.Timer(self._silence_s, self._give_up)
        timer.daemon = True
        timer.start()
        return timer

    def _give_up(self) -> None:
        self._silent = True
        self._kill()

    def _kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        """Return the last line that a library wrote, for a person."""
        try:
            lines = self._errors.read_bytes().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return f": {lines[-1].strip()[:200]}" if lines else ""


def telling() -> Callable[[dict[str, Any]], None]:
    """Return, in a child, the function that tells a value; what else is printed goes to stderr from now on."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    return tell


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
