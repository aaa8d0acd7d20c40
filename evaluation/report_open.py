"""What the data cannot say: open verdicts with the items that would settle them, and cells that nothing can be said of.

Computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from .drift_report import Comparison, DriftReport
from .report_sections import Table
from .report_text import number, percent, points, rounded


def open_tables(report: DriftReport) -> Iterator[Table]:
    """Yield what has NOT ENOUGH ITEMS, where the REFERENCE is NOT COMPETENT, and which cells are too small."""
    for table in (_not_enough(report), _not_competent(report), _too_small(report)):
        if table.rows:
            yield table


def _parts(report: DriftReport) -> Iterator[tuple[str, list[Comparison | None]]]:
    """Yield all questions and each cell, with every row's comparison there."""
    rows = list(report.rows)
    yield "all questions", [row.overall for row in rows]
    cells = [{(cell.modality, cell.task): cell for cell in row.cells} for row in rows]
    for cell in sorted({key for row in cells for key in row}):
        yield " \u00d7 ".join(cell), [row.get(cell) for row in cells]


def _not_enough(report: DriftReport) -> Table:
    def words(one: Comparison | None) -> str:
        if one is None or one.verdict != "NOT ENOUGH ITEMS":
            return ""
        if one.items_to_settle is None:
            return "too near the margin"
        return f"{rounded(one.items_to_settle):,} (\u00d7 {number(one.items_to_settle / one.items)})"

    return Table(
        "NOT ENOUGH ITEMS",
        "About how many items like these would settle the verdict with power 0.8, and how many times as many as there "
        "are; empty where the verdict is another. No PASS: the loss may lie on either side of the margin.",
        ("where", "items", *(row.facts.run for row in report.rows)),
        tuple(
            (name, f"{next(one.items for one in found if one):,}", *(words(one) for one in found))
            for name, found in _parts(report)
            if any(words(one) for one in found)
        ),
    )


def _not_competent(report: DriftReport) -> Table:
    rows = []
    for name, found in _parts(report):
        one = next((one for one in found if one and one.verdict == "REFERENCE NOT COMPETENT"), None)
        if one:
            known = one.competence
            rows.append(
                (name, f"{one.items:,}", percent(one.reference.value), *(
                    ("not run", "", known.missing) if known.missing
                    else (f"{percent(known.accuracy)} ({known.prior})",
                          f"{points(known.lead)} [from {points(known.lead_lower)}]", "its lower bound is not above 0")
                ))
            )  # fmt: skip
    return Table(
        "REFERENCE NOT COMPETENT",
        f"Here {report.reference.run} is not shown to know more than can be answered without looking; no level can be "
        "judged against it, whatever its answers. More of these items would help only if the lead is real.",
        ("where", "items", "reference", "text-only prior", "lead [lower bound], points", "why"),
        tuple(rows),
    )


def _too_small(report: DriftReport) -> Table:
    least = report.margins.cell_items
    return Table(
        "Too small",
        f"Cells of fewer than {least} items are counted over all and not judged alone.",
        ("where", "items", "missing"),
        tuple(
            (f"{cell.modality} \u00d7 {cell.task}", str(cell.items), str(least - cell.items))
            for cell in report.small_cells
        ),
    )
