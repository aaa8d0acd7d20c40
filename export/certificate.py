"""The parity certificate of a level: what was checked, three statements, and the stage of the first failure.

Graph: is it the checkpoint's computation? Kernel: do the engine's own roundings stay within what clean models show?
Drift: how far is it from unquantised torch, and which part of that is the weights'? docs/parity.md states each. Holds
findings only: certify.py takes them, in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..runtime.open_engine import GRAPH, computed_as

Verdict = Literal["held", "failed", "not run", "stated"]
KINDS = ("checks", "graph", "kernel", "drift")


@dataclass(frozen=True)
class Finding:
    """One stage. value, limit: in `unit`, None where the stage compares for equality. said: in words, one line.

    verdict "stated": a figure without a limit. "not run": what was missing stands in `said`.
    """

    stage: str
    verdict: Verdict
    said: str
    value: float | None = None
    limit: float | None = None
    unit: str = ""

    @classmethod
    def of(cls, stage: str, value: float, limit: float, unit: str, said: str = "") -> Finding:
        """Return a finding that holds if the value is at most the limit; what is no number does not."""
        return cls(stage, "held" if value <= limit else "failed", said, float(value), limit, unit)

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON; a value that is no number as its name."""
        body = asdict(self)
        if self.value is not None and not abs(self.value) < float("inf"):
            body["value"] = str(self.value)
        return body

    @classmethod
    def unseen(cls, stage: str, seeing: bool) -> Finding:
        """Return the finding of a stage of images that there was no image for. seeing: whether the model takes any."""
        if seeing:
            return cls(stage, "not run", "no prompt of the sample holds an image")
        return cls(stage, "stated", "no tower: the model takes no images")

    def of_graph(self) -> Finding:
        """Return the finding with the words that it speaks of a graph, and not of the engine built from it."""
        return replace(self, said="; ".join(part for part in (GRAPH, self.said) if part))

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Finding:
        """Return the finding that `to_json` gave."""
        value = body["value"]
        return cls(**{**body, "value": None if value is None else float(value)})


@dataclass(frozen=True)
class Statement:
    """What one statement rests on. kind: one of KINDS."""

    kind: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """Failed if a finding failed; else not run if one was not; held if one was judged; else stated."""
        verdicts = [finding.verdict for finding in self.findings]
        order: tuple[Verdict, ...] = ("failed", "not run", "held")
        for verdict in order:
            if verdict in verdicts:
                return verdict
        return "stated" if verdicts else "not run"

    @property
    def failure(self) -> Finding | None:
        """The first finding that failed."""
        return next((finding for finding in self.findings if finding.verdict == "failed"), None)


@dataclass(frozen=True)
class Certificate:
    """Everything that was found of one level. digest: the level's. probes: how many prompts, by kind.

    engine: the libraries by version. statements: in the order of KINDS.
    """

    level: str
    digest: str
    probes: Mapping[str, int]
    engine: Mapping[str, str]
    statements: tuple[Statement, ...]

    @property
    def computed_as(self) -> str:
        """What was run in the place of the level's engine, "" where it was the engine."""
        return computed_as(self.level)

    @property
    def held(self) -> bool:
        """Whether nothing failed. What was not run did not fail: each statement says which it is."""
        return all(statement.verdict != "failed" for statement in self.statements)

    @property
    def failure(self) -> tuple[str, Finding] | None:
        """The kind of the first statement that failed, and its first finding that did."""
        for statement in self.statements:
            if statement.failure is not None:
                return statement.kind, statement.failure
        return None

    def statement(self, kind: str) -> Statement:
        """Return one of KINDS."""
        return next(statement for statement in self.statements if statement.kind == kind)

    def finding(self, kind: str, stage: str) -> Finding:
        """Return the finding of a stage; KeyError if the statement has none of that name."""
        for found in self.statement(kind).findings:
            if found.stage == stage:
                return found
        raise KeyError(stage)

    def to_json(self) -> dict[str, Any]:
        """Return the certificate as JSON, as an attestation holds it."""
        failure = self.failure
        return {
            "level": self.level,
            "digest": self.digest,
            "computes": self.computed_as,
            "held": self.held,
            "failed_stage": None if failure is None else f"{failure[0]}: {failure[1].stage}",
            "probes": dict(self.probes),
            "engine": dict(self.engine),
            "statements": {
                statement.kind: {
                    "verdict": statement.verdict,
                    "findings": [finding.to_json() for finding in statement.findings],
                }
                for statement in self.statements
            },
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Certificate:
        """Return the certificate that `to_json` gave."""
        statements = body["statements"]
        return cls(
            body["level"],
            body["digest"],
            dict(body["probes"]),
            dict(body["engine"]),
            tuple(
                Statement(kind, tuple(Finding.from_json(one) for one in statements[kind]["findings"])) for kind in KINDS
            ),
        )
