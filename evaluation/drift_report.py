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
from .drift_figures import (
    Abstention,
    AnswerDrift,
    Bootstrap,
    Competence,
    Divergence,
    JudgedDrift,
    ProbeDrift,
    RationaleDrift,
    Share,
)
from .drift_views import Flip, Reliability
from .jsonform import FormError, from_json, parse, to_json
from .prediction import SubjectKind, require_sha256
from .verdict import Verdict

SCHEMA = "infimed.drift/1"


class ReportError(InfimedError):
    """A report that cannot be read."""


@dataclass(frozen=True)
class Margins:
    """The loss of accuracy, 0..1, that is still acceptable.

    overall: over all items. cell: in one cell. cell_items: the fewest items at which a cell is judged.
    """

    overall: float = 0.02
    cell: float = 0.05
    cell_items: int = 20


@dataclass(frozen=True)
class Comparison:
    """A level against its reference on the same items: all of them, or one cell (modality x task).

    reference, level: shares of right answers. delta: accuracy of the level minus the reference's; lower, upper: its
    one-sided 95 % cluster-robust bounds, which decide. item_lower, item_upper: Tango's bounds as if items were
    independent, for comparison only. bootstrap: limits by drawing clusters, null of a single one, for comparison only
    too. harmful: reference right, level wrong; healing: the opposite. agreement: share of items with the same answer.
    mcnemar_p: exact and two-sided. design_effect: by which clusters widen the bounds. discordant_clusters: those with a
    flip. largest_cluster_share: of the items, in one cluster. divergence: null without options. competence: of the
    reference on these items. answers: what changed in them beside right and wrong. p_worse: against "no worse than the
    margin"; p_worse_holm: adjusted over the level's competent cells (cells only). named_worse: that is at most alpha.
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
    """A level against its reference on the single or on the cross-modal items; told, not judged.

    kind: which of them. found: the comparison on these.
    """

    kind: ItemKind
    found: Comparison


@dataclass(frozen=True)
class Knowledge:
    """What the reference knows beyond the text-only prior: over all, in one modality, in one task, or in one kind.

    axis "items": the kinds of Apart, where any item is cross-modal.

    axis: what it speaks of. name: the modality or task. reference: its right answers. prior: the better of "majority
    answer" and "grey image" here. prior_share: its right answers. lead: reference minus prior; lower, upper: its
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
    """One run by its hashes.

    kind: what was run. level: of a bundle, else the kind. digest: its sha256. weight_bytes: all weights it loads.
    predictions_sha256: of its rows. items_per_second: null where its log is gone.
    """

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

    facts: the level's run. reference: the run that it is held against. overall: over all items. cells: those with
    enough items. probes: how answers changed under each probe that both runs were asked with. abstention: what the
    level leaves unanswered. apart: single and cross-modal items, where there are any of the latter. rationales: how
    reasoning changed, where any reply carries some. judged: the same to a judge, where one was asked.
    """

    facts: RunFacts
    reference: str
    overall: Comparison
    cells: tuple[Comparison, ...]
    no_cell_worse: bool
    probes: tuple[ProbeDrift, ...] = ()
    abstention: Abstention | None = None
    apart: tuple[Apart, ...] = ()
    rationales: RationaleDrift | None = None
    judged: JudgedDrift | None = None

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
    """A row that every report has and this one could not fill. reason: why, and what to run."""

    reason: str


@dataclass(frozen=True)
class Unfinished:
    """A run that lies in the folder and was not compared, because not every row is there."""

    run: str
    reason: str


PlanChange = Literal["margin", "cells", "items", "reference", "scoring", "runs", "plan"]


@dataclass(frozen=True)
class PlanFinding:
    """Whether a plan was written before the predictions and kept.

    state: which of these. sha256: of its file, empty where there is none.

    changed: what differs from it; "runs": some were not made under it, "plan": its file is missing. reasons: one
    sentence for each.
    """

    state: Literal["kept", "not kept", "none"]
    sha256: str
    changed: tuple[PlanChange, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class DriftReport:
    """Everything a report says.

    role: of the questions. settings: with which the runs were asked. margins: stated beforehand or given. reference:
    the run that levels are held against. stored: the merged checkpoint as stored on disk against base plus adapter.
    levels: every other run. small_cells: those that are not judged. infimed: the version that wrote it. plan: whether
    there was one.
    unfinished: runs that were begun in the same folder and are not complete: no verdict speaks of them.
    items_sha256: over the questions and answers that all runs share. knowledge: of the reference; empty where no prior
    was run. priors: the text-only runs that were found. abstention: of the reference. reliability: of the reference and
    the levels, where questions have options. flips: those that a person should look at. abstain_below: the confidence
    below which an answer counts as withheld. pictured: whether the page shows the pictures of its flips.
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
    reliability: tuple[Reliability, ...] = ()
    flips: tuple[Flip, ...] = ()
    abstain_below: float = 0.5
    pictured: bool = False
    schema: str = SCHEMA

    @property
    def rows(self) -> Iterator[LevelDrift]:
        """The stored checkpoint's row, where it was run, then the levels."""
        if isinstance(self.stored, LevelDrift):
            yield self.stored
        yield from self.levels

    @property
    def failed(self) -> bool:
        """Whether any row FAILs, over all or in a cell."""
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
