"""Takes the certificate of one level, step by step, in the process it runs in; certify.py gives it one of its own.

The order is that of the data: prompts, headers, weights, then three engines one after the other, each alone in memory.
Every finding is told as soon as it is there, so that an abort leaves what was found before it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import InfimedError, MissingExtra
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import strict_json
from ..runtime.levels import QuantLevel
from ..runtime.levels import level as level_row
from ..runtime.manifest import MANIFEST, PROBES, Manifest
from ..runtime.open_engine import computed_as
from ..runtime.scratch import scratch
from .answers import Answers, take_answers
from .certificate import Certificate, Finding, Statement
from .certificate_checks import check_headers, check_prompts_of, check_weights
from .certificate_statements import drift_statement, graph_statement, kernel_statement
from .dequantised_level import Level, open_dequantised
from .level_weights import LevelWeight, write_checkpoint
from .parity import ParityError, Reference
from .probe_store import read_probes

OnFinding = Callable[[str, Finding], None]


def examine(
    folder: Path,
    name: str,
    *,
    probes: int | None,
    threads: int,
    drift_limit_nats: float | None = None,
    work: Path | None = None,
    on_event: OnEvent = ignore,
    on_finding: OnFinding = lambda kind, finding: None,
) -> Certificate:
    """Take the certificate of level `name` of a verified bundle.

    probes: how many golden prompts, spread over their kinds; None for all. work: where the dequantised level is
    written, 8 bytes per weight, and removed; the system's folder for temporary files by default.
    """
    manifest = Manifest.from_json(strict_json((folder / MANIFEST).read_bytes()))
    level = Level(folder, next(entry for entry in manifest.levels if entry.name == name), manifest.preprocessing)
    row = level_row(name)
    references = sample(read_probes(folder / PROBES), probes)
    with scratch("parity", work) as place:
        examination = _Examination(level, row, references, threads, drift_limit_nats, place, on_event, on_finding)
        statements = examination.run()
    kinds = Counter(reference.probe.kind for reference in references)
    return Certificate(name, manifest.level_digest(name), dict(sorted(kinds.items())), versions(row), statements)


def sample(references: Sequence[Reference], count: int | None) -> tuple[Reference, ...]:
    """Return `count` prompts, the kinds in turn, in the order in which they are stored. Raises ParityError for none."""
    if not references or (count is not None and count < 1):
        raise ParityError("there is no prompt to measure parity on; ask for at least one of a bundle that holds some")
    if count is None or count >= len(references):
        return tuple(references)
    by_kind: dict[str, list[int]] = {}
    for index, reference in enumerate(references):
        by_kind.setdefault(reference.probe.kind, []).append(index)
    turns = sorted(
        (turn, start, index) for start, kind in enumerate(by_kind.values()) for turn, index in enumerate(kind)
    )
    return tuple(references[index] for index in sorted(index for _, _, index in turns[:count]))


def versions(row: QuantLevel) -> dict[str, str]:
    """Return the versions of the engine's library and of the reference's, those that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    library = "llama-cpp-python" if row.format == "gguf" else "onnxruntime"
    found = {}
    for name in (library, "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class _Examination:
    """One level's run through all stages."""

    def __init__(
        self,
        level: Level,
        row: QuantLevel,
        references: tuple[Reference, ...],
        threads: int,
        drift_limit_nats: float | None,
        work: Path,
        on_event: OnEvent,
        on_finding: OnFinding,
    ) -> None:
        self.level, self.row, self.references, self.threads = level, row, references, threads
        self.drift_limit_nats, self.work = drift_limit_nats, work
        self.on_event, self.on_finding = on_event, on_finding

    def run(self) -> tuple[Statement, ...]:
        checks, weights, error = self._checks()
        seeing = self.level.seeing
        torch = self._torch(weights)
        dequantised = self._ask("dequantised", lambda: open_dequantised(self.level, self.work / "full", self.threads))
        shutil.rmtree(self.work / "full", ignore_errors=True)
        own = self._ask("level", lambda: self.level.open(self.threads))
        if isinstance(torch, Answers) and isinstance(dequantised, Answers):
            stored = own if isinstance(own, Answers) else None
            graph = graph_statement(self.row, torch, dequantised, stored, seeing=seeing)
        else:
            graph = Statement("graph", tuple(one for one in (torch, dequantised) if isinstance(one, Finding)))
        if isinstance(dequantised, Answers) and isinstance(own, Answers):
            kernel = kernel_statement(self.row, dequantised, own, self.references, error, seeing=seeing)
        else:
            kernel = Statement("kernel", tuple(one for one in (dequantised, own) if isinstance(one, Finding)))
        if isinstance(own, Answers):
            parts = dequantised if isinstance(dequantised, Answers) else None
            drift = drift_statement(self.row, parts, own, self.references, self.drift_limit_nats)
        else:
            drift = Statement("drift", (own,))
        made = [checks]
        for statement in (graph, kernel, drift):
            findings = statement.findings
            if computed_as(self.row.name):
                findings = tuple(finding.of_graph() for finding in findings)
            made.append(Statement(statement.kind, tuple(self._told(statement.kind, finding) for finding in findings)))
        return tuple(made)

    def _told(self, kind: str, finding: Finding) -> Finding:
        """Tell a finding and return it, without the folders of this machine: a certificate may travel in its bundle."""
        said = finding.said
        for place in (self.work, self.level.folder):
            said = said.replace(f"{place}/", "")
        finding = replace(finding, said=said)
        self.on_finding(kind, finding)
        return finding

    def _checks(self) -> tuple[Statement, tuple[LevelWeight, ...] | Finding, float]:
        found: list[Finding] = []

        def take(finding: Finding) -> None:
            found.append(self._told("checks", finding))

        self.on_event(Event("prompts", 0, len(self.references), "prompts"))
        for finding in check_prompts_of(self.level, self.references):
            take(finding)
        self.on_event(Event("headers", 0, 1, "files"))
        take(check_headers(self.level))
        self.on_event(Event("weights", 0, 0, "tensors"))
        error = float("nan")
        weights: tuple[LevelWeight, ...] | Finding
        try:
            weights = self.level.weights()
        except MissingExtra as missing:
            weights = Finding("weights", "not run", str(missing))
            take(weights)
        except InfimedError as wrong:
            weights = Finding("weights", "failed", str(wrong))
            take(weights)
        else:
            finding, error = check_weights(self.level, weights, self._tensor)
            take(finding)
        return Statement("checks", tuple(found)), weights, error

    def _tensor(self, done: int, total: int) -> None:
        self.on_event(Event("weights", done, total, "tensors"))

    def _torch(self, weights: tuple[LevelWeight, ...] | Finding) -> Answers | Finding:
        """Ask torch with the level's weights."""
        if isinstance(weights, Finding):
            return Finding("torch", "not run", weights.said)

        def opened() -> object:
            from ..training.reference import open_reference

            return open_reference(
                write_checkpoint(weights, self.level.shared, self.work / "torch"), threads=self.threads
            )

        answers = self._ask("torch", opened)
        shutil.rmtree(self.work / "torch", ignore_errors=True)
        return answers

    def _ask(self, stage: str, opened: Callable[[], object]) -> Answers | Finding:
        """Open an engine, ask it every prompt and close it; what it raises is a finding."""
        self.on_event(Event(stage, 0, len(self.references), "prompts"))
        try:
            engine = opened()
            try:
                return take_answers(
                    engine,  # type: ignore[arg-type]
                    self.references,
                    self.work / f"answers-{stage}",
                    stage,
                    self.on_event,
                )
            finally:
                engine.close()  # type: ignore[attr-defined]
        except MissingExtra as missing:
            return Finding(stage, "not run", str(missing))
        except (InfimedError, ValueError, np.linalg.LinAlgError) as error:
            return Finding(stage, "failed", str(error))
