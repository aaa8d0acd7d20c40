"""Whether a plan was kept: a run is tied to it by hash, and a report by margins, cells, questions and reference.

What can be shown without clocks: a run names the plan's sha256 in its files before its first answer, so the plan's
bytes were there first. What cannot: that nobody looked at other runs before. Knows plans and runs, no statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..runtime.files import write_bytes
from .dataset import Dataset
from .drift_report import Margins, PlanChange, PlanFinding
from .plan import Plan, PlanError
from .prediction import Identity, Run, items_digest

PLAN_NAME = "plan.json"


def adopt(folder: Path, given: Path | None, dataset: Dataset, role: str, likelihood: str, *, keep: bool = True) -> str:
    """Tie what is run into a folder to a plan and return its sha256, empty where there is none.

    given: the plan's file; without it the plan that lies in the folder. It is copied there before anything is asked;
    keep: false where it is only looked at.
    Raises PlanError for a plan of other questions or another way of scoring, or where another plan lies there.
    """
    lying = folder / PLAN_NAME
    if given is None and not lying.is_file():
        return ""
    plan = Plan.read(given or lying)
    for what, planned, found in (
        ("the dataset with sha256", plan.dataset_sha256, dataset.sha256),
        ("the role", plan.role, role),
        ("scoring", plan.likelihood, likelihood),
    ):
        if planned != found:
            raise PlanError(f"the plan {given or lying} is for {what} {planned[:16]!r}, not {found[:16]!r}")
    if given is not None and lying.is_file() and lying.read_bytes() != plan.to_bytes():
        raise PlanError(f"{folder} holds another plan, {Plan.read(lying).sha256[:16]}; name another folder")
    if keep and not lying.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(lying, plan.to_bytes())
    return plan.sha256


def lying_plan(folder: Path) -> Plan | None:
    """Return the plan that lies in a folder of runs. Raises PlanError for one that was edited."""
    path = folder / PLAN_NAME
    return Plan.read(path) if path.is_file() else None


def plan_finding(
    plan: Plan | None,
    reference: Run,
    begun: Iterable[Identity],
    margins: Margins,
    cells: Iterable[tuple[str, str]],
) -> PlanFinding:
    """Return whether the plan was kept, and what differs from it.

    begun: the identities of every run in the folder, finished or not. cells: those that the report judges.
    """
    identities = list(begun)
    if plan is None:
        named = sorted({identity.plan for identity in identities if identity.plan})
        if not named:
            return PlanFinding("none", "", (), ())
        runs = ", ".join(identity.run for identity in identities if identity.plan)
        return PlanFinding("not kept", named[0], ("plan",), (f"the plan that {runs} were made under is missing",))
    changes: list[PlanChange] = []
    reasons: list[str] = []

    def differs(what: PlanChange, reason: str) -> None:
        changes.append(what)
        reasons.append(reason)

    for name in ("overall", "cell"):
        planned, used = getattr(plan.margins, name), getattr(margins, name)
        if planned != used:
            differs(
                "margin", f"the margin {'over all' if name == 'overall' else 'per cell'} was {planned:g}, not {used:g}"
            )
    wanted, found = {(part.modality, part.task) for part in plan.cells}, set(cells)
    if wanted != found:
        told = ", ".join(f"{modality} x {task}" for modality, task in sorted(wanted ^ found))
        differs("cells", f"the cells differ by {told}")
    elif plan.margins.cell_items != margins.cell_items:
        differs("cells", f"cells were to be judged from {plan.margins.cell_items} items, not {margins.cell_items}")
    if plan.items_sha256 != items_digest(reference.predictions):
        differs("items", f"the questions are others than the {plan.items:,} that were planned")
    if plan.reference != reference.name:
        differs("reference", f"the reference was to be {plan.reference}, not {reference.name}")
    scored = str(reference.meta.identity.settings.get("likelihood", "per token"))
    if scored != plan.likelihood:
        differs("scoring", f"options were to be scored {plan.likelihood}, not {scored}")
    without = [identity.run for identity in identities if identity.plan != plan.sha256]
    if without:
        differs("runs", f"not made under the plan: {', '.join(sorted(without))}")
    return PlanFinding("not kept" if changes else "kept", plan.sha256, tuple(dict.fromkeys(changes)), tuple(reasons))
