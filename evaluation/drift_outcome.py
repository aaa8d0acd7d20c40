"""What a whole report comes to in one verdict, for a machine that goes on or stops by it. Knows no statistics."""

from __future__ import annotations

from .drift_report import DriftReport
from .verdict import Verdict

# what decides where verdicts differ: a loss that is shown, then a reference that can judge nothing, then too few items
_GRAVEST: tuple[Verdict, ...] = ("FAIL", "REFERENCE NOT COMPETENT", "NOT ENOUGH ITEMS", "PASS")


def outcome(report: DriftReport, *, open_cells: bool = False) -> Verdict:
    """Return the gravest verdict of all levels, over all items and in every judged cell.

    open_cells: pass over cells that have NOT ENOUGH ITEMS or a REFERENCE NOT COMPETENT; a cell that FAILs still counts.
    """
    found = {row.overall.verdict for row in report.rows}
    cells = {cell.verdict for row in report.rows for cell in row.cells}
    found |= cells & {"FAIL"} if open_cells else cells
    return next(verdict for verdict in _GRAVEST if verdict in found)
