"""Compares runs on the same items: a reference, its levels, and the text-only prior; the findings are a DriftReport.

Refuses runs over other items, another dataset or other settings. Knows no engine; the verdicts are verdict.py's.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError, __version__
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.likelihood import LIKELIHOODS, Likelihood, likelihood_of
from .answer_drift import answer_drift
from .comparison import Flags, compare, outcomes
from .crossing import apart
from .drift_report import Comparison, DriftReport, LevelDrift, Margins, NotRun, RunFacts, SmallCell, Unfinished
from .flips import choose_flips
from .judged_drift import judged_drift, judgements
from .knowledge import knowledge
from .plan_kept import lying_plan, plan_finding
from .predict import GREY_SUFFIX
from .prediction import (
    Prediction,
    Run,
    begun_identities,
    complete_runs,
    items_digest,
    read_run,
    unfinished_runs,
)
from .prior import PRIOR
from .probe_drift import ProbeRuns
from .rationale_drift import rationale_drift
from .reliability import reliability
from .verdict import ALPHA, holm

CHECKPOINT, ADAPTER = "checkpoint", "adapter"
ABSTAIN_BELOW = 0.5
MAJORITY, GREY_IMAGE = "majority answer", "grey image"


class DriftError(InfimedError):
    """Runs that cannot be compared."""


@dataclass(frozen=True)
class Items:
    """The items of a report in one fixed order. clusters: patient, else image or near-duplicate group."""

    rows: tuple[Prediction, ...]
    clusters: NDArray[np.str_]

    def cells(self) -> dict[tuple[str, str], NDArray[np.int64]]:
        """Return the indices of each cell's items, cells in the alphabet."""
        found: dict[tuple[str, str], list[int]] = {}
        for index, row in enumerate(self.rows):
            found.setdefault((row.modality, row.task), []).append(index)
        return {cell: np.array(found[cell]) for cell in sorted(found)}


def drift(
    folder: Path,
    reference: str,
    margins: Margins | None = None,
    on_event: OnEvent = ignore,
    *,
    abstain_below: float = ABSTAIN_BELOW,
) -> DriftReport:
    """Compare every complete run of a folder with the reference run and return the findings.

    margins: by default those of the plan that lies in the folder, else 2 points over all and 5 in a cell.
    abstain_below: the largest option probability below which an answer counts as withheld; no verdict hangs on it.
    """
    plan = lying_plan(folder)
    margins = margins or (plan.margins if plan else Margins())
    if not (0 < margins.overall < 1 and 0 < margins.cell < 1):
        raise DriftError(f"margins lie between 0 and 1, not {margins.overall} and {margins.cell}; 0.02 is 2 points")
    names = complete_runs(folder)
    begun = unfinished_runs(folder)
    if reference not in names:
        also = f"; not finished: {', '.join(begun)}" if begun else ""
        raise DriftError(f"{folder} holds no complete run {reference!r}; it holds: {', '.join(names) or 'none'}{also}")
    runs = {name: read_run(folder, name) for name in names}
    base = runs[reference]
    if base.meta.identity.image != "own":
        shown = ", ".join(name for name, run in runs.items() if run.meta.identity.image == "own")
        raise DriftError(
            f"{reference!r} answers without the images and is no reference; name one of: {shown or 'none'}"
        )
    _refuse_others(base, runs)
    items = Items(_in_order(base), np.array([row.group for row in _in_order(base)]))
    cells = items.cells()
    beside = {reference, ADAPTER} | ({CHECKPOINT} if reference == ADAPTER else set())
    chosen = [name for name, run in runs.items() if run.meta.identity.image == "own" and name not in beside]
    if not chosen and not {CHECKPOINT, ADAPTER} <= set(names):
        also = f", or finish {', '.join(begun)}" if begun else ""
        raise DriftError(f"{folder} holds nothing to compare with {reference!r}; evaluate more levels into it{also}")
    priors = _priors(runs, items, reference)
    probed = ProbeRuns.read(folder, runs)
    judged = judgements(folder, runs)
    levels = []
    for done, name in enumerate(chosen):
        on_event(Event("drift", done, len(chosen), "levels", name))
        found = _level(items, cells, base, runs[name], priors, margins)
        levels.append(
            dataclasses.replace(
                found,
                probes=probed.drift(reference, name),
                judged=judged_drift(base, runs[name], judged),
                abstention=probed.abstention(runs[name], runs, abstain_below),
            )
        )
    stored = _stored(items, cells, runs, margins)
    on_event(Event("drift", len(chosen), len(chosen), "levels"))
    identity = base.meta.identity
    return DriftReport(
        dataset=identity.dataset,
        dataset_sha256=identity.dataset_sha256,
        role=identity.role,
        items=len(items.rows),
        clusters=len(set(items.clusters.tolist())),
        items_sha256=items_digest(base.predictions),
        settings=dict(identity.settings),
        margins=margins,
        reference=_facts(base),
        stored=stored,
        levels=tuple(levels),
        unfinished=tuple(
            Unfinished(
                name, f"{rows:,} of {len(items.rows):,} questions are answered; infimed evaluate goes on with it"
            )
            for name, rows in begun.items()
        ),
        small_cells=tuple(
            SmallCell(*cell, len(index)) for cell, index in cells.items() if len(index) < margins.cell_items
        ),
        knowledge=knowledge(_in_order(base), items.clusters, priors),
        priors=tuple(_facts(run) for run in runs.values() if run.meta.identity.image != "own"),
        infimed=__version__,
        plan=plan_finding(
            plan,
            base,
            [*(run.meta.identity for run in runs.values()), *begun_identities(folder)],
            margins,
            [cell for cell, index in cells.items() if len(index) >= margins.cell_items],
        ),
        abstention=probed.abstention(base, runs, abstain_below),
        reliability=tuple(
            one for run in (reference, *chosen) if (one := reliability(run, runs[run].predictions)) is not None
        ),
        flips=choose_flips(items.rows, {name: _in_order(runs[name]) for name in chosen}, reference),
        abstain_below=abstain_below,
    )


def _level(
    items: Items,
    cells: Mapping[tuple[str, str], NDArray[np.int64]],
    reference: Run,
    level: Run,
    priors: Mapping[str, Flags] | str,
    margins: Margins,
) -> LevelDrift:
    before, after = _in_order(reference), _in_order(level)
    likelihood = _likelihood(reference)
    overall = compare(items.rows, items.clusters, before, after, priors, margins.overall, likelihood)
    answers = answer_drift(before, after, items.clusters)
    overall = dataclasses.replace(overall, modality="", task="", answers=answers)
    rows = []
    for index in cells.values():
        if len(index) >= margins.cell_items:
            here = priors if isinstance(priors, str) else {name: flags[index] for name, flags in priors.items()}
            picked = [[run[i] for i in index] for run in (items.rows, before, after)]
            found = compare(picked[0], items.clusters[index], picked[1], picked[2], here, margins.cell, likelihood)
            answers = answer_drift(picked[1], picked[2], items.clusters[index])
            rows.append(dataclasses.replace(found, answers=answers))
    return LevelDrift(
        facts=_facts(level),
        reference=reference.name,
        overall=overall,
        cells=_named(rows),
        no_cell_worse=bool(rows) and all(row.verdict == "PASS" for row in rows),
        apart=apart(items.rows, items.clusters, before, after, priors, margins.overall, likelihood),
        rationales=rationale_drift(before, after, items.clusters),
    )


def _likelihood(run: Run) -> Likelihood:
    """Return how a run normalised its options' log-likelihoods; runs of before it was stated did so per token."""
    return likelihood_of(str(run.meta.identity.settings.get("likelihood", LIKELIHOODS[0])))


def _named(rows: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Adjust the cells' p-values over the competent cells by Holm: the family in which cells are named worse."""
    judged = [row for row in rows if row.verdict != "REFERENCE NOT COMPETENT"]
    cells = [(row.modality, row.task) for row in judged]
    adjusted = dict(zip(cells, holm([row.p_worse for row in judged]), strict=True))
    named = []
    for row in rows:
        p = adjusted.get((row.modality, row.task))
        named.append(dataclasses.replace(row, p_worse_holm=p, named_worse=p is not None and p <= ALPHA))
    return tuple(named)


def _stored(
    items: Items, cells: Mapping[tuple[str, str], NDArray[np.int64]], runs: Mapping[str, Run], margins: Margins
) -> LevelDrift | NotRun:
    """Judge the merged checkpoint as stored on disk against base plus adapter: rounding an adapter away is drift."""
    missing = [name for name in (ADAPTER, CHECKPOINT) if name not in runs]
    if missing:
        return NotRun(
            f"no run {' and no run '.join(missing)}: evaluate the adapter's folder and the merged checkpoint's "
            "to see what merging and storing changed"
        )
    priors = _priors(runs, items, ADAPTER)
    return _level(items, cells, runs[ADAPTER], runs[CHECKPOINT], priors, margins)


def _priors(runs: Mapping[str, Run], items: Items, reference: str) -> dict[str, Flags] | str:
    """Return the outcomes of both text-only priors, or which is missing.

    The grey run is the reference's own; adapter and merged checkpoint are one model and may stand in for each other.
    """
    if PRIOR not in runs:
        return "the majority answer was not run; add --prior TRAINSET to infimed evaluate"
    found = {MAJORITY: outcomes(_in_order(runs[PRIOR]))}
    if all(row.images == 0 for row in items.rows):
        return found
    allowed = (reference, *(name for name in (ADAPTER, CHECKPOINT) if reference in (ADAPTER, CHECKPOINT)))
    name = next((name for name in allowed if name in runs and name + GREY_SUFFIX in runs), None)
    if name is None:
        return f"the reference was not run on grey images; run infimed evaluate for {reference} with --grey"
    grey = runs[name + GREY_SUFFIX]
    shown, own = grey.meta.identity.subject, runs[name].meta.identity.subject
    if (shown.kind, shown.level, shown.digest) != (own.kind, own.level, own.digest):
        raise DriftError(
            f"run {grey.name!r} is not of what {name!r} is (digest {shown.digest[:16]}, not {own.digest[:16]}): one of "
            f"them is stale; remove its files and evaluate {name} with --grey again"
        )
    # a question without an image is the same with a grey one: there only the majority answer is a prior
    pictured = np.array([row.images > 0 for row in items.rows])
    found[GREY_IMAGE] = np.where(pictured, outcomes(_in_order(grey)), found[MAJORITY])
    return found


def _facts(run: Run) -> RunFacts:
    subject = run.meta.identity.subject
    return RunFacts(
        run.name, subject.kind, subject.level, subject.digest, subject.weight_bytes, run.meta.predictions_sha256,
        run.items_per_second,
    )  # fmt: skip


def _in_order(run: Run) -> tuple[Prediction, ...]:
    return tuple(sorted(run.predictions, key=lambda row: row.example_id))


def _refuse_others(reference: Run, runs: Mapping[str, Run]) -> None:
    """Raise DriftError for a run that answered other questions, or was asked in another way."""
    mine, wanted = reference.meta.identity, items_digest(reference.predictions)
    for name, run in runs.items():
        other = run.meta.identity
        for what in ("dataset_sha256", "role"):
            if getattr(other, what) != getattr(mine, what):
                raise DriftError(
                    f"run {name!r} has {what} {getattr(other, what)[:16]}, the reference {reference.name!r} "
                    f"{getattr(mine, what)[:16]}; compare runs over the same questions only"
                )
        if other.settings != mine.settings and other.subject.kind != "prior":
            raise DriftError(f"run {name!r} was asked with other settings than {reference.name!r}; evaluate one again")
        if items_digest(run.predictions) != wanted:
            missing = Counter(row.example_id for row in reference.predictions)
            missing.subtract(row.example_id for row in run.predictions)
            odd = [key for key, count in missing.items() if count]
            raise DriftError(
                f"run {name!r} answers other items than {reference.name!r} ({len(odd)} by id)"
                f"{'' if odd else _first_difference(reference, run)}; compare runs over the same questions only"
            )


def _first_difference(reference: Run, run: Run) -> str:
    """Return the first item of two runs whose ids are the same that is not the same item, with what differs."""
    for one, other in zip(_in_order(reference), _in_order(run), strict=True):
        for name in ("group", "modality", "task", "wording", "answer", "options"):
            mine, theirs = getattr(one, name), getattr(other, name)
            if mine != theirs:
                return f": item {one.example_id!r:.80} has the {name} {theirs!r:.60}, not {mine!r:.60}"
    return ""
