"""The levels' part of the drift report: a row for each with its verdict, and accuracy against size and speed.

Computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from .drift_report import DriftReport, LevelDrift, NotRun
from .report_charts import Scale, tradeoff_chart
from .report_sections import Findings, chip, figures, markdown_rows, scrolling_start
from .report_text import (
    MARKS,
    counted,
    megabytes,
    nats,
    number,
    percent,
    points,
    settle_text,
    stored_text,
    unfinished_text,
)

_HEAD = (
    "level",
    "against",
    "verdict",
    "weights",
    "accuracy [95 %]",
    "difference [bounds], points",
    "flips harm / heal",
    "same answer",
    "KL mean / p99 / max, nats",
    "items/s",
    "cells",
)


def html_levels(found: Findings) -> Iterator[str]:
    """Yield the table of levels, each with its difference drawn on one axis."""
    report = found.report
    scale = Scale([row.overall for row in report.rows], report.margins.overall)
    head = ("Level", "Verdict", "Difference to reference, points", "Accuracy", "Flips", "KL, nats", "Weights, speed")
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    yield f'<p class="lead">Against {escape(report.reference.run)}, on the same {report.items:,} questions.</p>'
    yield f'<section class="card">{scrolling_start("Levels", "stack")}<table><thead><tr>{columns}</tr></thead><tbody>'
    for place, row in enumerate(report.rows):
        yield _level(row, report, scale, f"forest-{place}")
    if isinstance(report.stored, NotRun):
        yield (
            '<tr><th scope="row">checkpoint<small>as stored, against adapter</small></th>'
            f'<td colspan="6">{escape(stored_text(report.stored))}</td></tr>'
        )
    for run in report.unfinished:
        yield f'<tr><th scope="row">{escape(run.run)}</th><td colspan="6">{escape(unfinished_text(run))}</td></tr>'
    yield f"</tbody></table></div>{_legend(report.margins.overall)}</section>"


def _level(row: LevelDrift, report: DriftReport, scale: Scale, name: str) -> str:
    found, facts = row.overall, row.facts
    stored = row is report.stored
    ratio = facts.weight_bytes / report.reference.weight_bytes if report.reference.weight_bytes else 0.0
    size = megabytes(facts.weight_bytes)
    share = f"<small>{percent(ratio)} of reference</small>" if ratio and not stored else ""
    divergence = found.divergence
    kl = (
        f"{nats(divergence.mean_nats)}<small>p99 {nats(divergence.p99_nats)}, max {nats(divergence.max_nats)}</small>"
        if divergence
        else ""
    )
    speed = f"; {number(facts.items_per_second)}/s" if facts.items_per_second else ""
    against = f"<small>as stored, against {escape(row.reference)}</small>" if stored else ""
    settle = f"<small>{escape(settle_text(found))}</small>" if settle_text(found) else ""
    cells = [
        f'<th scope="row">{escape(facts.run)}{against}</th>',
        f"<td>{chip(found.verdict)}{settle}</td>",
        f'<td class="wide" data-label="Difference, points">{scale.forest(found, name)}'
        f'<small class="num">{points(found.delta)} &nbsp;[{points(found.lower)}, {points(found.upper)}]</small></td>',
        f'<td class="num" data-label="Accuracy"><span>{percent(found.level.value)}'
        f"<small>{percent(found.level.lower)} \u2013 {percent(found.level.upper)}</small></span></td>",
        f'<td class="num" data-label="Flips"><span>{found.harmful} harmful<small>{found.healing} healing; '
        f"{percent(found.agreement)} same</small></span></td>",
        f'<td class="num" data-label="KL, nats"><span>{kl}</span></td>' if kl else "<td></td>",
        f'<td class="num" data-label="Weights, speed"><span>{size}{speed}{share}</span></td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _legend(margin: float) -> str:
    """Return what the marks of the pictures mean."""
    marks = (
        ("span", "difference with one-sided 95 % bounds, cluster-robust"),
        ("margin", f"margin, {points(-margin)} points"),
        ("zero", "no difference"),
        ("allowed", "acceptable"),
    )
    told = "".join(f'<span><i class="key {name}"></i>{text}</span>' for name, text in marks)
    return f'<div class="legend">{told}</div>'


def html_costs(found: Findings) -> Iterator[str]:
    """Yield accuracy against the weights' bytes and against questions per second, where they are known."""
    report = found.report
    base = next((row for row in report.levels if row.reference == report.reference.run), None)
    if base is None:
        return
    charts = [
        (chart, says)
        for of, says in (
            ("size", "Accuracy against all weights that a level loads, its vision tower's too."),
            ("speed", "Accuracy against questions per second as these runs were made; machines may differ."),
        )
        if (chart := tradeoff_chart((report.reference, base.overall.reference), report.levels, of))
    ]
    if charts:
        yield '<p class="lead">Accuracy with 95 % intervals, the reference first. A smaller or faster level is worth '
        yield "having only where its verdict allows it.</p>"
        yield f'<section class="card">{figures(charts, "two")}</section>'


def markdown_levels(found: Findings) -> Iterator[str]:
    """Yield the table of levels."""
    yield from markdown_rows(_HEAD, _rows(found.report))
    yield ""


def _rows(report: DriftReport) -> Iterator[Sequence[str]]:
    if isinstance(report.stored, NotRun):
        yield ("checkpoint", "adapter", stored_text(report.stored), *[""] * 8)
    for row in report.rows:
        found = row.overall
        divergence = found.divergence
        yield (
            row.facts.run,
            row.reference,
            f"{MARKS[found.verdict]} {found.verdict}",
            megabytes(row.facts.weight_bytes),
            f"{percent(found.level.value)} [{percent(found.level.lower)}, {percent(found.level.upper)}]",
            f"{points(found.delta)} [{points(found.lower)}, {points(found.upper)}]",
            f"{found.harmful} / {found.healing}",
            percent(found.agreement),
            f"{nats(divergence.mean_nats)} / {nats(divergence.p99_nats)} / {nats(divergence.max_nats)}"
            if divergence
            else "",
            number(row.facts.items_per_second) if row.facts.items_per_second else "",
            counted(row.cells),
        )
    for run in report.unfinished:
        yield (run.run, report.reference.run, unfinished_text(run), *[""] * 8)
