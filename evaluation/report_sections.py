"""What a section of the drift report is: a title, and how its findings are told in HTML and in Markdown.

report_contents.py lists them; a new finding is a new row there. Tables are written once, as words, for both layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape

from .drift_report import DriftReport
from .report_charts import CLASSES
from .report_text import MARKS
from .robustness_report import Robustness
from .verdict import Verdict

_LONG = 8  # rows of a table that are shown before a reader asks for more


@dataclass(frozen=True)
class Findings:
    """All that a report tells. pictures: data URIs of a question's images, by the question's id."""

    report: DriftReport
    robustness: Robustness | None = None
    pictures: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """One section. anchor: its id on the page. html, markdown: its lines without the title; none leave it out."""

    anchor: str
    title: str
    html: Callable[[Findings], Iterable[str]]
    markdown: Callable[[Findings], Iterable[str]]


@dataclass(frozen=True)
class Table:
    """One table in words."""

    title: str
    says: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown_table(table: Table) -> list[str]:
    """Return a table with its title in Markdown."""
    return [f"### {table.title}", "", table.says, "", *markdown_rows(table.head, table.rows), ""]


def markdown_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; a bar within a cell becomes a slash."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)]


def html_table(table: Table) -> Iterator[str]:
    """Yield a table with its title as inline HTML; on a phone each row becomes a card."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    yield f'<p class="lead"><b>{escape(table.title)}.</b> {escape(table.says)}</p>'
    start = scrolling_start(f"Table: {table.title}", "stack dense")
    yield f'<section class="card">{start}<table><thead><tr>{columns}</tr></thead><tbody>'
    for first, *rest in table.rows:
        cells = "".join(
            f'<td class="num" data-label="{escape(name)}"><span>{escape(cell)}</span></td>' if cell else "<td></td>"
            for name, cell in zip(table.head[1:], rest, strict=True)
        )
        yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div></section>"


def section_of_tables(anchor: str, title: str, tables: Callable[[DriftReport], Iterator[Table]]) -> Section:
    """Return a section that is made of tables alone; on the page long ones are folded."""

    def html(found: Findings) -> Iterator[str]:
        for table in tables(found.report):
            yield from html_table(replace(table, rows=table.rows[:_LONG]))
            rest = replace(table, title=f"{table.title}, the others", says="", rows=table.rows[_LONG:])
            if rest.rows:
                yield from folded(f"{len(rest.rows)} more", html_table(rest))

    def markdown(found: Findings) -> Iterator[str]:
        for table in tables(found.report):
            yield from markdown_table(table)

    return Section(anchor, title, html, markdown)


def scrolling_start(label: str, kind: str = "scroll") -> str:
    """Return the start of a block that may be wider than its window, and that a keyboard can scroll."""
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{escape(label)}">'


def folded(summary: str, lines: Iterable[str], *, opened: bool = False) -> Iterator[str]:
    """Yield what a reader opens to see; on paper it is open."""
    yield f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>"
    yield from lines
    yield "</details>"


def chip(verdict: Verdict) -> str:
    """Return a verdict as a word with its sign."""
    return f'<span class="chip {CLASSES[verdict]}"><i aria-hidden="true"><b>{MARKS[verdict]}</b></i>{verdict}</span>'


def figures(charts: Sequence[tuple[str, str]], kind: str) -> str:
    """Return charts side by side, each (drawing, caption as text)."""
    shown = "".join(f"<figure>{chart}<figcaption>{escape(says)}</figcaption></figure>" for chart, says in charts)
    return f'<div class="charts {kind}">{shown}</div>'
