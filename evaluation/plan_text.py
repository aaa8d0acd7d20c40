"""What a plan says in words and numbers, for the command line. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from .plan import Outlook, Plan, PlannedPart
from .report_text import margin_text, number, percent, rounded


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield the plan for people: first what was assumed, then each part, then all cells together."""
    yield (
        f"{plan.dataset}, role {plan.role}: {plan.items:,} questions in {plan.clusters:,} patients or groups; "
        f"reference {plan.reference}; scored {plan.likelihood}."
    )
    assumed = plan.assumed
    yield (
        f"Assumed: a true loss of {margin_text(assumed.loss)}, correlation {assumed.correlation:g} within a group, a "
        f"reference of {percent(assumed.accuracy)} with a lead of {margin_text(assumed.lead)} over the text-only prior."
    )
    for part in (plan.overall, *plan.cells):
        yield ""
        yield from _part_lines(part)
    if plan.small_cells:
        small = ", ".join(f"{cell.modality} \u00d7 {cell.task} ({cell.items})" for cell in plan.small_cells)
        yield ""
        yield f"Too small to judge, below {plan.margins.cell_items} questions: {small}."
    if plan.joint:
        yield ""
        yield f"All {len(plan.cells)} cells together:"
        for row in plan.joint:
            yield (
                f"  {percent(row.flips):>7} flip: {percent(row.cells)} that every cell PASSes, "
                f"{percent(row.cells_and_overall)} with the whole"
            )


def _part_lines(part: PlannedPart) -> Iterator[str]:
    name = f"{part.modality} \u00d7 {part.task}" if part.modality else "All questions"
    yield (
        f"{name}: {part.items:,} questions, {part.clusters:,} clusters, margin {margin_text(part.margin)}; unharmed "
        f"clusters could hide {number(100 * part.hidden_loss, 2)} points; the lead is sure enough in "
        f"{percent(part.competence_power)}"
    )
    for outlook in part.outlooks:
        yield f"  {percent(outlook.flips):>7} flip: {_said(outlook, part)}"


def _said(outlook: Outlook, part: PlannedPart) -> str:
    chance = f"PASS in {percent(outlook.power)}"
    if outlook.certifiable:
        return f"{chance}, certifiable; {outlook.items_needed:,} questions like these are enough"
    if outlook.items_missing is None:
        needed = "items alone will not do it"
    else:
        needed = f"about {rounded(outlook.items_missing):,} questions are missing"
    limit = ""
    if outlook.margin_power > outlook.power / 0.95 and part.competence_power < 0.95:
        limit = f"; the bound alone holds in {percent(outlook.margin_power)}"
    margin = f"; it certifies {number(100 * outlook.margin)} points" if outlook.margin < 1 else ""
    return f"{chance}, NOT certifiable: {needed}{margin}{limit}"
