"""The heat map of the drift page: a table whose colour tells the size of a difference, and whose sign the verdict.

A table, so that it can be read aloud, searched and printed. Knows no report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .report_sections import scrolling_start
from .report_text import MARKS, margin_text, points
from .verdict import Verdict

# the loss in margins up to which a cell has a class; beyond the last it is the hottest
_STEPS = ((0.25, "h0"), (1.0, "h1"), (2.0, "h2"))
_GAIN = 0.5


@dataclass(frozen=True)
class Heat:
    """One cell. delta: the difference, a share. margin: what is acceptable. says: the reason. note: a further sign."""

    verdict: Verdict
    delta: float
    margin: float
    says: str
    note: str = ""


@dataclass(frozen=True)
class HeatRow:
    """One row. group: a heading that rows share; cells: one for each column, or words where there is none."""

    group: str
    name: str
    detail: str
    cells: tuple[Heat | str, ...]


def heat_class(delta: float, margin: float) -> str:
    """Return the class of a difference: "gain", or "h0" to "h3" by its loss in margins."""
    loss = -delta / margin
    if loss < -_GAIN:
        return "gain"
    return next((name for most, name in _STEPS if loss < most), "h3")


def heat_map(label: str, corner: str, columns: Sequence[str], rows: Iterable[HeatRow]) -> Iterator[str]:
    """Yield the map as inline HTML, rows of one group under their heading."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    yield scrolling_start(label, "matrix")
    yield f'<table><thead><tr><th scope="col">{escape(corner)}</th>{head}</tr></thead>'
    group = None
    for row in rows:
        if row.group != group:
            yield f"{'</tbody>' if group is not None else ''}<tbody>"
            if row.group:
                span = len(columns) + 1
                yield f'<tr class="group"><th scope="rowgroup" colspan="{span}">{escape(row.group)}</th></tr>'
            group = row.group
        cells = "".join(_cell(cell) for cell in row.cells)
        detail = f"<small>{escape(row.detail)}</small>" if row.detail else ""
        yield f'<tr><th scope="row">{escape(row.name)}{detail}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def heat_legend(margin: float) -> str:
    """Return what the colours and the signs mean."""
    steps = (("gain", "gain"), ("h0", "about none"), ("h1", "loss within the margin"),
             ("h2", f"beyond {margin_text(margin)}"), ("h3", f"beyond {margin_text(2 * margin)}"))  # fmt: skip
    colours = "".join(f'<span><i class="swatch {name}"></i>{says}</span>' for name, says in steps)
    signs = "".join(f"<span><b>{mark}</b> {verdict.lower()}</span>" for verdict, mark in MARKS.items())
    return f'<div class="legend">{colours}{signs}</div>'


def _cell(cell: Heat | str) -> str:
    if isinstance(cell, str):
        return f'<td class="tiny">{escape(cell)}</td>' if cell else '<td class="blank">\u00b7</td>'
    return (
        f'<td class="{heat_class(cell.delta, cell.margin)}" title="{escape(cell.says)}"><b>{MARKS[cell.verdict]} '
        f'{points(cell.delta)}{cell.note}</b><span class="unseen"> {cell.verdict}</span></td>'
    )
