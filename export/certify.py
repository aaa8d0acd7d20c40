"""Takes a level's certificate in a process of its own, which an engine's abort() or a hang cannot outlive it.

The child tells each step and each finding as a line of JSON; what it had found when it died stays in the certificate,
and the step it died in is the failed one, with the signal's name.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .. import InfimedError
from ..runtime.bundle import Bundle
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.levels import level as level_row
from ..runtime.manifest import PROBES
from ..runtime.open_engine import default_threads
from .certificate import KINDS, Certificate, Finding, Statement
from .certificate_examine import examine, sample, versions
from .probe_store import read_probes

SILENCE_S = 1800.0
"""Seconds without a sign of life after which the child is ended; a sign comes with every prompt and every tensor."""
_STATEMENT_OF = {"torch": "graph", "dequantised": "graph", "level": "kernel"}
_START = """
import json, sys
given = json.loads(sys.argv[1])
sys.path[:] = given["path"]
from {name} import main
main(given)
"""


class ParityProcessError(InfimedError):
    """The process of an examination cannot be started."""


def certify(
    bundle: Bundle,
    level: str,
    *,
    probes: int | None = None,
    threads: int | None = None,
    drift_limit_nats: float | None = None,
    work: Path | None = None,
    silence_s: float = SILENCE_S,
    on_event: OnEvent = ignore,
) -> Certificate:
    """Return the certificate of a level of a verified bundle. Nothing is written into the bundle.

    probes: how many golden prompts, spread over their kinds; None for all. threads: of the processor, all by default.
    drift_limit_nats: of the mean KL to the reference; None states the drift without a verdict. work: where the
    dequantised level is written, 8 bytes per weight, and removed. silence_s: see SILENCE_S. Raises UnknownLevel, or
    ParityError for a bundle without prompts; an engine's failure of any kind is a failed statement.
    """
    digest = bundle.manifest.level_digest(bundle.entry(level).name)
    references = sample(read_probes(bundle.folder / PROBES), probes)
    with tempfile.TemporaryDirectory(prefix="infimed-parity-", dir=work) as place:
        given = {
            "path": sys.path,
            "folder": str(Path(bundle.folder).resolve()),
            "level": level,
            "probes": probes,
            "threads": threads or default_threads(),
            "drift_limit_nats": drift_limit_nats,
            "work": place,
        }
        child = _Child(given, Path(place), silence_s)
        found: dict[str, list[Finding]] = {}
        stage = "start"
        for told in child.lines():
            if "event" in told:
                stage = told["event"]["stage"]
                on_event(Event(**{**told["event"], "stage": f"{level} {stage}"}))
            elif "finding" in told:
                found.setdefault(told["kind"], []).append(Finding.from_json(told["finding"]))
            elif "error" in told:
                child.ending = str(told["error"])
            elif "certificate" in told:
                return Certificate.from_json(told["certificate"])
    kind = _STATEMENT_OF.get(stage, "checks")
    kinds = Counter(reference.probe.kind for reference in references)
    return Certificate(
        level,
        digest,
        dict(sorted(kinds.items())),
        versions(level_row(level)),
        _broken(found, kind, stage, child.ending),
    )


def _broken(found: dict[str, list[Finding]], kind: str, stage: str, ending: str) -> tuple[Statement, ...]:
    """Return the statements of an examination that ended in `stage` of `kind`."""
    statements = []
    for one in KINDS:
        findings = found.get(one, [])
        if one == kind:
            findings = [*findings, Finding(stage, "failed", ending)]
        elif one != "checks":
            findings = [*findings, Finding("engine", "not run", f"the examination ended before, in {stage}")]
        statements.append(Statement(one, tuple(findings)))
    return tuple(statements)


class _Child:
    """The process, and how it ended."""

    def __init__(self, given: dict[str, Any], place: Path, silence_s: float) -> None:
        self.ending = "the process ended without a word"
        self._silence_s = silence_s
        self._silent = False
        self._errors = place / "stderr"
        code = _START.replace("{name}", f"{__package__}.certify")
        try:
            with self._errors.open("wb") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code, json.dumps(given)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                )
        except OSError as error:
            raise ParityProcessError(f"no process can be started for the examination ({error})") from error

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what the child tells; afterwards `ending` says how it ended."""
        stream: IO[bytes] | None = self._process.stdout
        assert stream is not None
        timer = self._watch()
        try:
            for line in stream:
                timer.cancel()
                with contextlib.suppress(ValueError):
                    told = json.loads(line)
                    if isinstance(told, dict):
                        yield told
                timer = self._watch()
            code = self._process.wait()
            if self._silent:
                self.ending = f"no sign of life for {self._silence_s:g} s; the process was ended"
            elif code < 0:
                self.ending = f"the process was ended by {_signal_name(-code)}{self._last_words()}"
            elif code:
                self.ending = f"the process ended with code {code}{self._last_words()}"
        finally:
            timer.cancel()
            self._kill()
            stream.close()
            self._process.wait()

    def _watch(self) -> threading.Timer:
        timer = threading.Timer(self._silence_s, self._give_up)
        timer.daemon = True
        timer.start()
        return timer

    def _give_up(self) -> None:
        self._silent = True
        self._kill()

    def _kill(self) -> None:
        """End the child and whatever it started."""
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


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main(given: dict[str, Any]) -> None:
    """Examine a level in this process, telling each step on standard output; what else is printed goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    def on_event(event: Event) -> None:
        tell({"event": {"stage": event.stage, "done": event.done, "total": event.total, "unit": event.unit}})

    try:
        certificate = examine(
            Path(given["folder"]),
            given["level"],
            probes=given["probes"],
            threads=given["threads"],
            drift_limit_nats=given["drift_limit_nats"],
            work=Path(given["work"]),
            on_event=on_event,
            on_finding=lambda kind, finding: tell({"finding": finding.to_json(), "kind": kind}),
        )
    except InfimedError as error:
        tell({"error": str(error)})
        return
    tell({"certificate": certificate.to_json()})
