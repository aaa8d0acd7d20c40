"""The plan: what a dataset can certify, and the margins, cells, questions and reference fixed before any answer.

Its file is canonical JSON; every run made under it names the sha256 of these bytes. docs/drift.md defines the figures.
Knows datasets and outlook.py's powers, no run: plan_kept.py says whether a plan was kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import InfimedError, __version__
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import canonical_json
from .bounds import hidden_loss
from .dataset import Dataset
from .drift_report import Margins, SmallCell
from .example import Example
from .jsonform import FormError, from_json, parse, to_json
from .outlook import (
    DRAWS,
    Lead,
    clusters_needed,
    competence_power,
    joint_power,
    margin_power,
    smallest_margin,
)
from .prediction import items_digest, require_sha256
from .settle import POWER
from .verdict import ALPHA
from .worlds import Counts, Flips, grown

SCHEMA = "infimed.plan/1"
_DIGITS = 4  # powers are drawn: further digits would be noise


class PlanError(InfimedError):
    """A plan that cannot be made, read or worked under."""


@dataclass(frozen=True)
class Assumed:
    """What is assumed where nothing was measured yet. docs/drift.md says where the defaults come from.

    flips: shares of questions on which level and reference differ, one outlook each. correlation: of the luck of two
    questions of one cluster. accuracy, lead: of the reference, and over the text-only prior. loss: the true loss.
    """

    flips: tuple[float, ...] = (0.01, 0.05, 0.1)
    correlation: float = 0.3
    accuracy: float = 0.7
    lead: float = 0.25
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not self.flips or not all(0 < value <= 1 for value in self.flips):
            raise PlanError(f"flips are shares of the questions, above 0 and at most 1, not {self.flips}")
        if not 0 <= self.correlation < 1:
            raise PlanError(f"the correlation within a cluster lies in 0..1 (1 excluded), not {self.correlation}")
        if not (0 < self.lead <= self.accuracy <= 1):
            raise PlanError(f"lead {self.lead} and accuracy {self.accuracy}: 0 < lead <= accuracy <= 1 is needed")
        if any(abs(self.loss) > value for value in self.flips):
            raise PlanError(f"a loss of {self.loss} needs at least as many flips; {min(self.flips)} are assumed")


@dataclass(frozen=True)
class Outlook:
    """What to expect at one share of flips. power: chance of a PASS; margin_power: of the bound alone.

    margin: the smallest margin with margin_power 0.8. items_needed: questions clustered like these for a PASS with
    power 0.8, None where ten million are not enough; items_missing: what is lacking to them.
    """

    flips: float
    power: float
    margin_power: float
    margin: float
    items_needed: int | None
    items_missing: int | None

    @property
    def certifiable(self) -> bool:
        """Whether a harmless level PASSes with power 0.8."""
        return self.power >= POWER


@dataclass(frozen=True)
class PlannedPart:
    """All questions ("" and ""), or one cell. mean_size: of the cluster a random question lies in.

    hidden_loss: what no harmed cluster at all could hide. competence_power: chance that the reference's lead is as
    sure as a PASS asks for.
    """

    modality: str
    task: str
    margin: float
    items: int
    clusters: int
    mean_size: float
    largest_cluster_share: float
    hidden_loss: float
    competence_power: float
    outlooks: tuple[Outlook, ...]


@dataclass(frozen=True)
class Joint:
    """Chances at one share of flips: that every printed cell PASSes, and that they and the whole do."""

    flips: float
    cells: float
    cells_and_overall: float


@dataclass(frozen=True)
class Plan:
    """What was fixed beforehand, and what it can show. items_sha256: over the questions and their answers."""

    dataset: str
    dataset_sha256: str
    role: str
    items: int
    clusters: int
    items_sha256: str
    reference: str
    likelihood: str
    margins: Margins
    assumed: Assumed
    overall: PlannedPart
    cells: tuple[PlannedPart, ...]
    small_cells: tuple[SmallCell, ...]
    joint: tuple[Joint, ...]
    draws: int
    infimed: str
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        require_sha256(dataset_sha256=self.dataset_sha256, items_sha256=self.items_sha256)

    def to_bytes(self) -> bytes:
        """Return the exact bytes of the plan's file: same plan, same bytes."""
        return canonical_json(to_json(self))

    @property
    def sha256(self) -> str:
        """The sha256 of these bytes: what a run made under the plan names."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan's file. Raises PlanError, also where the bytes are not those that infimed writes."""
        try:
            data = path.read_bytes()
            plan = from_json(cls, parse(data, path.name), path.name)
        except (OSError, FormError) as error:
            raise PlanError(f"{path} is no plan ({error}); make one with infimed drift --plan DATASET") from None
        if plan.schema != SCHEMA:
            raise PlanError(f"{path} has schema {plan.schema!r}, not {SCHEMA!r}; make the plan again")
        if plan.to_bytes() != data:
            raise PlanError(f"{path} was edited or reformatted: its bytes are not those of a plan; make it again")
        return plan


def make_plan(
    dataset: Dataset,
    reference: str,
    margins: Margins = Margins(),
    assumed: Assumed = Assumed(),
    *,
    role: str = "test",
    likelihood: str = "per token",
    draws: int = DRAWS,
    on_event: OnEvent = ignore,
) -> Plan:
    """Return the plan for a role of a dataset. No prediction is looked at: clusters are the dataset's groups."""
    if not (0 < margins.overall < 1 and 0 < margins.cell < 1):
        raise PlanError(f"margins lie between 0 and 1, not {margins.overall} and {margins.cell}; 0.02 is 2 points")
    examples = dataset.in_role(role)
    if not examples:
        raise PlanError(f"{dataset.folder} has no example in the role {role!r}; divide it with infimed data curate")
    clusters = np.unique([example.group for example in examples], return_inverse=True)[1].astype(np.int64)
    found: dict[tuple[str, str], list[int]] = {}
    for index, example in enumerate(examples):
        found.setdefault(example.cell, []).append(index)
    printed = {cell: np.array(found[cell]) for cell in sorted(found) if len(found[cell]) >= margins.cell_items}
    parts, everything = [], np.arange(len(examples))
    for done, (cell, at) in enumerate([(("", ""), everything), *printed.items()]):
        on_event(Event("plan", done, len(printed) + 1, "parts", " ".join(cell)))
        margin = margins.cell if any(cell) else margins.overall
        parts.append(_part(cell, np.bincount(clusters[at]), margin, assumed, draws))
    joint = _joint(clusters, list(printed.values()), margins, assumed, draws)
    on_event(Event("plan", len(printed) + 1, len(printed) + 1, "parts"))
    return Plan(
        dataset=dataset.label,
        dataset_sha256=dataset.sha256,
        role=role,
        items=len(examples),
        clusters=int(clusters.max()) + 1,
        items_sha256=questions_digest(examples),
        reference=reference,
        likelihood=likelihood,
        margins=margins,
        assumed=assumed,
        overall=parts[0],
        cells=tuple(parts[1:]),
        small_cells=tuple(
            SmallCell(*cell, len(found[cell])) for cell in sorted(found) if len(found[cell]) < margins.cell_items
        ),
        joint=joint,
        draws=draws,
        infimed=__version__,
    )


def questions_digest(examples: Sequence[Example]) -> str:
    """Return the sha256 that every run over these questions shares."""
    from .prediction import Prediction

    return items_digest([Prediction.of(example, correct=False, score=0.0) for example in examples])


def _part(cell: tuple[str, str], counted: Counts, margin: float, assumed: Assumed, draws: int) -> PlannedPart:
    sizes = counted[counted > 0]
    items, held = int(sizes.sum()), np.cumsum(np.sort(sizes)[::-1]) / sizes.sum()
    lead = Lead(assumed.accuracy, assumed.lead)
    competent = competence_power(sizes, lead, assumed.correlation, draws)
    outlooks = []
    for share in assumed.flips:
        flips = Flips.of(share, -assumed.loss, assumed.correlation)
        bound = margin_power(sizes, flips, margin, draws)
        power = round(bound * competent, _DIGITS)
        clusters = clusters_needed(sizes, flips, margin, lead, draws)
        needed = None if clusters is None else int(grown(sizes, clusters).sum())
        if needed is not None:  # what is drawn anew may differ a little from what these very questions show
            needed = min(needed, items) if power >= POWER else max(needed, items + 1)
        outlooks.append(
            Outlook(
                flips=share,
                power=power,
                margin_power=round(bound, _DIGITS),
                margin=round(smallest_margin(sizes, flips, draws), _DIGITS),
                items_needed=needed,
                items_missing=None if needed is None else max(0, needed - items),
            )
        )
    return PlannedPart(
        modality=cell[0],
        task=cell[1],
        margin=margin,
        items=items,
        clusters=len(sizes),
        mean_size=round(float((sizes**2).sum() / items), _DIGITS),
        largest_cluster_share=round(float(held[0]), _DIGITS),
        hidden_loss=round(float(hidden_loss(held, ALPHA)), _DIGITS),
        competence_power=round(competent, _DIGITS),
        outlooks=tuple(outlooks),
    )


def _joint(
    clusters: Counts, cells: Sequence[Counts], margins: Margins, assumed: Assumed, draws: int
) -> tuple[Joint, ...]:
    if not cells:
        return ()
    cell_of = np.full(len(clusters), -1)
    for number, at in enumerate(cells):
        cell_of[at] = number
    wanted = [margins.cell] * len(cells) + [margins.overall]
    rows = []
    for share in assumed.flips:
        flips = Flips.of(share, -assumed.loss, assumed.correlation)
        lead = Lead(assumed.accuracy, assumed.lead)
        every, whole, _ = joint_power(clusters, cell_of, flips, wanted, lead, max(200, draws // 2))
        rows.append(Joint(share, round(every, _DIGITS), round(whole, _DIGITS)))
    return tuple(rows)
