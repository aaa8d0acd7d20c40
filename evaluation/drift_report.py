"""The DriftReport: what a comparison of runs found, as frozen records with a JSON round trip.

Knows no statistics and no layout; docs/drift.md defines every figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import InfimedError
from ..runtime.files import canonical_json
from .jsonform import FormError, from_json, parse, to_json
from .prediction import SubjectKind, require_sha256
from .verdict import Verdict

SCHEMA = "infimed.drift/1"


class ReportError(InfimedError):
    """A report that cannot be read."""


@dataclass(frozen=True)
class Margins:
    """The loss of accuracy, 0..1, that is still acceptable: over all items, and in one cell of `cell_items` or more."""

    overall: float = 0.02
    cell: float = 0.05
    cell_items: int = 20


@dataclass(frozen=True)
class Share:
    """A share of right answers with Wilson's 95 % interval on items / D, the design effect."""

    correct: int
    items: int
    lower: float
    upper: float

    @property
    def value(self) -> float:
        """The share, 0..1."""
        return self.correct / self.items


@dataclass(frozen=True)
class Competence:
    """Whether the reference beats the text-only prior on these items.

    prior: the better of "majority answer" and "grey image". lead: reference minus prior. lead_lower: its lower bound
    at 5 %; above 0 it is competent. lead_lower_pass: the bound at 0.001 % that a PASS asks for. missing: which part of
    the prior was not run, and how to run it; then no figure is known.
    """

    prior: str
    accuracy: float
    lead: float
    lead_lower: float
    lead_lower_pass: float
    missing: str = ""


@dataclass(frozen=True)
class Divergence:
    """KL(reference || level) in nats: over the options' probabilities, items then being those with options, or at the
    tokens of the reference's replies, items then being those tokens."""

    items: int
    mean_nats: float
    p99_nats: float
    max_nats: float


@dataclass(frozen=True)
class Change:
    """A figure of the reference and of the level, and level minus reference with a clustered 95 % interval."""

    reference: float
    level: float
    change: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Calibration:
    """How well confidence, the largest option probability, fits the answers; every figure is better where smaller.

    items: those with options. ece: expected calibration error, 15 bins of equal mass. brier: squared distance of all
    options' probabilities, 0..2. aurc: area under the risk-coverage curve. risk_at_80: wrong answers among the four
    fifths answered most confidently.
    """

    items: int
    clusters: int
    ece: Change
    brier: Change
    aurc: Change
    risk_at_80: Change


@dataclass(frozen=True)
class TokenDrift:
    """A level that is given the reference's own greedy replies, token by token.

    items: replies. kl: as measured, from the tokens that the reference kept; the whole rows' lies between it and
    kl_at_most. top1: tokens at which the level's likeliest is the reference's. replies: those where it is at every
    token, so that the level by itself would say the same.
    """

    items: int
    kl: Divergence
    kl_at_most: Divergence
    top1: Share
    replies: Share


@dataclass(frozen=True)
class AnswerDrift:
    """What changed in the answers themselves. top1: items with options whose likeliest option is the same.

    invalid: replies that name no answer, where both runs generated one. tokens: where the level was given the
    reference's replies. None where nothing is there to measure.
    """

    items: int
    top1: Share | None
    invalid: Change | None
    calibration: Calibration | None
    tokens: TokenDrift | None = None


@dataclass(frozen=True)
class ProbeDrift:
    """The same under a probe. probe: its label, "blur-3"; agreement: rows with the same answer."""

    probe: str
    agreement: Share
    answers: AnswerDrift


@dataclass(frozen=True)
class Abstention:
    """What a run leaves unanswered, at a threshold of the largest option probability, or by saying so.

    unanswerable: rows whose picture does not show what is asked (grey, or another patient's). coverage: answered of all
    rows; selective_accuracy: right of those, where an answer to an unanswerable row is wrong; recall: unanswerable rows
    left alone; over_refusal: answerable rows left alone.
    """

    threshold: float
    answerable: int
    unanswerable: int
    coverage: Share
    selective_accuracy: Share | None
    recall: Share | None
    over_refusal: Share | None


@dataclass(frozen=True)
class Bootstrap:
    """One-sided 95 % limits of a paired difference by drawing whole clusters; they decide nothing."""

    lower: float
    upper: float
    draws: int
    seed: int


@dataclass(frozen=True)
class Comparison:
    """A level against its reference on the same items: all of them, or one cell (modality x task).

    delta: accuracy of the level minus the reference's; lower, upper: its one-sided 95 % cluster-robust bounds, which
    decide. item_lower, item_upper: Tango's bounds as if items were independent, for comparison only; bootstrap: limits
    by drawing clusters, None of a single one, for comparison only too. harmful: reference right, level wrong; healing:
    the opposite. agreement: share of items with the same answer. p_worse: against "no worse than the margin";
    p_worse_holm: adjusted over the level's competent cells (cells only). named_worse: that is at most alpha.
    items_to_settle: for a verdict that is open, items like these with power 0.8; None where settled or out of reach.
    """

    modality: str
    task: str
    margin: float
    items: int
    clusters: int
    reference: Share
    level: Share
    delta: float
    lower: float
    upper: float
    item_lower: float
    item_upper: float
    harmful: int
    healing: int
    agreement: float
    mcnemar_p: float
    design_effect: float
    discordant_clusters: int
    largest_cluster_share: float
    divergence: Divergence | None
    competence: Competence
    verdict: Verdict
    reason: str
    items_to_settle: int | None
    p_worse: float
    p_worse_holm: float | None = None
    named_worse: bool = False
    answers: AnswerDrift | None = None
    bootstrap: Bootstrap | None = None


ItemKind = Literal["single", "cross-modal"]


@dataclass(frozen=True)
class Apart:
    """A level against its reference on the single or on the cross-modal items; told, not judged."""

    kind: ItemKind
    found: Comparison


@dataclass(frozen=True)
class Knowledge:
    """What the reference knows beyond the text-only prior: over all, in one modality, in one task, or in one kind.

    axis "items": the kinds of Apart, where any item is cross-modal.

    prior: the better of "majority answer" and "grey image" here. lead: reference minus prior; lower, upper: its
    two-sided 95 % cluster-robust interval.
    """

    axis: Literal["all", "modality", "task", "items"]
    name: str
    items: int
    clusters: int
    reference: Share
    prior: str
    prior_share: Share
    lead: float
    lower: float
    upper: float


@dataclass(frozen=True)
class SmallCell:
    """A cell with too few items to print."""

    modality: str
    task: str
    items: int


@dataclass(frozen=True)
class RunFacts:
    """One run by its hashes. digest: of what was run; weight_bytes: all weights it loads."""

    run: str
    kind: SubjectKind
    level: str
    digest: str
    weight_bytes: int
    predictions_sha256: str
    items_per_second: float | None

    def __post_init__(self) -> None:
        require_sha256(digest=self.digest, predictions_sha256=self.predictions_sha256)


@dataclass(frozen=True)
class LevelDrift:
    """One row of the report. no_cell_worse: every printed cell PASSes, an intersection-union claim at alpha.

    probes: how answers changed under each probe that both runs were asked with. apart: single and cross-modal items,
    where there are any of the latter.
    """

    facts: RunFacts
    reference: str
    overall: Comparison
    cells: tuple[Comparison, ...]
    no_cell_worse: bool
    probes: tuple[ProbeDrift, ...] = ()
    abstention: Abstention | None = None
    apart: tuple[Apart, ...] = ()

    @property
    def named_worse(self) -> tuple[Comparison, ...]:
        """The cells named worse than the margin, with family-wise error alpha (Holm)."""
        return tuple(cell for cell in self.cells if cell.named_worse)

    @property
    def failed(self) -> bool:
        """Whether the level FAILs over all or in any cell."""
        return any(row.verdict == "FAIL" for row in (self.overall, *self.cells))


@dataclass(frozen=True)
class NotRun:
    """A row that every report has and this one could not fill."""

    reason: str


@dataclass(frozen=True)
class Unfinished:
    """A run that lies in the folder and was not compared, because not every row is there."""

    run: str
    reason: str


PlanChange = Literal["margin", "cells", "items", "reference", "scoring", "runs", "plan"]


@dataclass(frozen=True)
class PlanFinding:
    """Whether a plan was written before the predictions and kept. sha256: of its file, empty where there is none.

    changed: what differs from it; "runs": some were not made under it, "plan": its file is missing. reasons: one
    sentence for each.
    """

    state: Literal["kept", "not kept", "none"]
    sha256: str
    changed: tuple[PlanChange, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class DriftReport:
    """Everything a report says. stored: the merged checkpoint as stored on disk against base plus adapter.

    unfinished: runs that were begun in the same folder and are not complete: no verdict speaks of them.
    items_sha256: over the questions and answers that all runs share. knowledge: of the reference; empty where no prior
    was run. priors: the text-only runs that were found. abstention: of the reference.
    """

    dataset: str
    dataset_sha256: str
    role: str
    items: int
    clusters: int
    items_sha256: str
    settings: Mapping[str, str | int | bool]
    margins: Margins
    reference: RunFacts
    stored: LevelDrift | NotRun
    levels: tuple[LevelDrift, ...]
    unfinished: tuple[Unfinished, ...]
    small_cells: tuple[SmallCell, ...]
    knowledge: tuple[Knowledge, ...]
    priors: tuple[RunFacts, ...]
    infimed: str
    plan: PlanFinding = PlanFinding("none", "", (), ())
    abstention: Abstention | None = None
    schema: str = SCHEMA

    @property
    def rows(self) -> Iterator[LevelDrift]:
        """The stored checkpoint's row, where it was run, then the levels."""
        if isinstance(self.stored, LevelDrift):
            yield self.stored
        yield from self.levels

    @property
    def failed(self) -> bool:
        """Whether any row FAILs: the exit code of `infimed drift`."""
        return any(row.failed for row in self.rows)

    def to_bytes(self) -> bytes:
        """Return the report as JSON: same findings, same bytes."""
        return canonical_json(to_json(self))

    @classmethod
    def read(cls, path: Path) -> DriftReport:
        """Read a report's JSON. Raises ReportError."""
        try:
            return from_json(cls, parse(path.read_bytes(), path.name), path.name)
        except (OSError, FormError) as error:
            raise ReportError(f"{path} is no drift report ({error}); make one with infimed drift") from None
