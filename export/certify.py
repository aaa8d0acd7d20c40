"""Takes a level's certificate in a process of its own, which an engine's abort() or a hang cannot outlive it.

The child tells each step and each finding as a line of JSON; what it had found when it died stays in the certificate,
and the step it died in is the failed one, with the signal's name.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from .. import InfimedError
from ..runtime.bundle import Bundle
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.levels import level as level_row
from ..runtime.manifest import PROBES
from ..runtime.open_engine import default_threads
from ..runtime.scratch import scratch
from .certificate import KINDS, Certificate, Finding, Statement
from .certificate_examine import examine, sample, versions
from .own_process import SILENCE_S, OwnProcess, telling
from .probe_store import read_probes

_STATEMENT_OF = {"torch": "graph", "dequantised": "graph", "level": "kernel"}


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
    with scratch("parity", work) as place:
        given = {
            "folder": str(Path(bundle.folder).resolve()),
            "level": level,
            "probes": probes,
            "threads": threads or default_threads(),
            "drift_limit_nats": drift_limit_nats,
            "work": str(place),
        }
        child = OwnProcess(__name__, given, place / "stderr", silence_s)
        found: dict[str, list[Finding]] = {}
        stage, ending = "start", ""
        try:
            for told in child.lines():
                if "event" in told:
                    stage = told["event"]["stage"]
                    on_event(Event(**{**told["event"], "stage": f"{level} {stage}"}))
                elif "finding" in told:
                    found.setdefault(told["kind"], []).append(Finding.from_json(told["finding"]))
                elif "error" in told:
                    ending = str(told["error"])
                elif "certificate" in told:
                    return Certificate.from_json(told["certificate"])
        finally:
            child.end()
    kind = _STATEMENT_OF.get(stage, "checks")
    kinds = Counter(reference.probe.kind for reference in references)
    return Certificate(
        level,
        digest,
        dict(sorted(kinds.items())),
        versions(level_row(level)),
        _broken(found, kind, stage, ending or child.ending),
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


def main(given: dict[str, Any]) -> None:
    """Examine a level in this process, telling each step on standard output; what else is printed goes to stderr."""
    tell = telling()

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
