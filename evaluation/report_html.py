"""The drift report as one page that needs nothing else: no script, no font and no file from elsewhere.

Readable in light and dark, on a phone and on paper; a verdict is told by word, sign and border, never by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .drift_report import DriftReport, LevelDrift, NotRun
from .report_answers import answer_tables
from .report_figure import CLASSES, Scale, chip, legend
from .report_robustness import html_robustness, html_table
from .report_sections import explanations, knowledge_table
from .report_style import STYLE
from .report_text import (
    MARKS,
    NOT_A_DEVICE,
    counted,
    headline,
    margin_text,
    megabytes,
    named_claim,
    nats,
    number,
    percent,
    points,
    settle_text,
    stored_text,
    unfinished_text,
    worst_cell_claim,
)
from .robustness_report import Robustness


def html(report: DriftReport, robustness: Robustness | None = None) -> str:
    """Return the page. robustness: what the probes found, where any was run."""
    scale = Scale([row.overall for row in report.rows], report.margins.overall)
    title = escape(f"Drift: {report.dataset}")
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<style>{STYLE}</style></head><body>",
        *_head(report),
        "<main>",
        "<h2>Levels</h2>",
        f'<p class="lead">Against {escape(report.reference.run)}, on the same {report.items:,} questions.</p>',
        '<section class="card stack">',
        *_levels(report, scale),
        legend(report.margins.overall),
        "</section>",
        "<h2>Cells: modality \u00d7 task</h2>",
        f'<p class="lead">The difference in points; margin {margin_text(report.margins.cell)} per cell. '
        f"Cells below {report.margins.cell_items} items are not judged.</p>",
        *(_level_card(row, report) for row in report.rows),
        *_answers(report),
        *html_robustness(robustness),
        *knowledge_table(report),
        *explanations(report),
        "</main>",
        f"<footer><p>{escape(NOT_A_DEVICE)}</p><p>Made by infimed {escape(report.infimed)}.</p></footer>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _answers(report: DriftReport) -> Iterator[str]:
    for place, table in enumerate(answer_tables(report)):
        if not place:
            yield "<h2>The answers themselves</h2>"
        yield from html_table(table)


def _head(report: DriftReport) -> Iterator[str]:
    yield '<header><p class="kicker">Drift report</p>'
    yield f"<h1>{escape(headline(report))}</h1>"
    facts = (
        (report.dataset, "dataset"),
        (report.reference.run, "reference"),
        *_knowledge(report),
        (f"{report.items:,}", f"questions, role {report.role}"),
        (f"{report.clusters:,}", "patients or groups"),
        (margin_text(report.margins.overall), "margin over all"),
        (margin_text(report.margins.cell), "margin per cell"),
    )
    told = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in facts)
    yield f'<div class="facts">{told}</div>'
    yield f'<p class="note">{escape(NOT_A_DEVICE)}</p></header>'


def _knowledge(report: DriftReport) -> Iterator[tuple[str, str]]:
    """Yield how much the reference knows, and how much can be answered without looking."""
    row = next((row for row in report.rows if row.reference == report.reference.run), None)
    if row:
        yield percent(row.overall.reference.value), "reference accuracy"
        prior = row.overall.competence
        yield (
            ("not run", "text-only prior") if prior.missing else (percent(prior.accuracy), f"text only: {prior.prior}")
        )


def _levels(report: DriftReport, scale: Scale) -> Iterator[str]:
    head = ("Level", "Verdict", "Difference to reference, points", "Accuracy", "Flips", "KL, nats", "Weights", "Speed")
    yield f"<table><thead><tr>{''.join(f'<th scope=col>{name}</th>' for name in head)}</tr></thead><tbody>"
    if isinstance(report.stored, NotRun):
        yield (
            '<tr><th scope="row">checkpoint<small>as stored, against adapter</small></th>'
            f'<td colspan="7">{escape(stored_text(report.stored))}</td></tr>'
        )
    for row in report.rows:
        yield _level(row, report, scale)
    for run in report.unfinished:
        yield f'<tr><th scope="row">{escape(run.run)}</th><td colspan="7">{escape(unfinished_text(run))}</td></tr>'
    yield "</tbody></table>"


def _level(row: LevelDrift, report: DriftReport, scale: Scale) -> str:
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
    speed = f"{number(facts.items_per_second)}/s" if facts.items_per_second else ""
    against = f"<small>as stored, against {escape(row.reference)}</small>" if stored else ""
    cells = [
        f'<th scope="row">{escape(facts.run)}{against}</th>',
        f"<td>{chip(found.verdict)}<small>{escape(settle_text(found))}</small></td>",
        f'<td class="wide" data-label="Difference, points">{scale.forest(found)}'
        f'<small class="num">{points(found.delta)} &nbsp;[{points(found.lower)}, {points(found.upper)}]</small></td>',
        f'<td class="num" data-label="Accuracy"><span>{percent(found.level.value)}'
        f"<small>{percent(found.level.lower)} \u2013 {percent(found.level.upper)}</small></span></td>",
        f'<td class="num" data-label="Flips"><span>{found.harmful} harmful<small>{found.healing} healing; '
        f"{percent(found.agreement)} same</small></span></td>",
        f'<td class="num" data-label="KL, nats"><span>{kl}</span></td>' if kl else "<td></td>",
        f'<td class="num" data-label="Weights"><span>{size}{share}</span></td>',
        f'<td class="num" data-label="Speed">{speed}</td>' if speed else "<td></td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _level_card(row: LevelDrift, report: DriftReport) -> str:
    tally = f'<small style="display:inline">{escape(counted(row.cells))}</small>'
    return "\n".join(
        (
            '<section class="card">',
            f'<div class="title"><h3>{escape(row.facts.run)}</h3>{chip(row.overall.verdict)}{tally}</div>',
            f"<p>{escape(_sentence(row.overall.reason))}</p>",
            _matrix(row, report) if row.cells else "",
            f'<ul class="claims"><li>{escape(worst_cell_claim(row, report))}</li>'
            f"<li>{escape(named_claim(row, report))}</li></ul>",
            _cell_table(row) if row.cells else "",
            "</section>",
        )
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _matrix(row: LevelDrift, report: DriftReport) -> str:
    cells = {(cell.modality, cell.task): cell for cell in row.cells}
    small = {(cell.modality, cell.task): cell.items for cell in report.small_cells}
    every = sorted({*cells, *small})
    tasks = sorted({task for _, task in every})
    lines = [f"<tr><td></td>{''.join(f'<th scope=col>{escape(task)}</th>' for task in tasks)}</tr>"]
    for modality in sorted({modality for modality, _ in every}):
        line = [f'<th scope="row">{escape(modality)}</th>']
        for task in tasks:
            cell = cells.get((modality, task))
            if cell:
                alone = "\u00b0" if cell.verdict == "FAIL" and not cell.named_worse else ""
                said = escape(f"{modality} x {task}: {cell.verdict}; {cell.reason}", quote=True)
                line.append(
                    f'<td class="{CLASSES[cell.verdict]}" title="{said}"><b>{MARKS[cell.verdict]}{alone} '
                    f"{points(cell.delta)}</b><small>{cell.items} items</small></td>"
                )
            elif (modality, task) in small:
                line.append(f'<td class="tiny">too small<small>{small[modality, task]} items</small></td>')
            else:
                line.append('<td class="blank">\u00b7</td>')
        lines.append(f"<tr>{''.join(line)}</tr>")
    unnamed = any(cell.verdict == "FAIL" and not cell.named_worse for cell in row.cells)
    note = (
        "<small>\u00b0 FAILs alone at 5 %, not after Holm's correction over the level's cells</small>"
        if unnamed
        else ""
    )
    return (
        f'<div class="matrix"><table><thead>{lines[0]}</thead><tbody>{"".join(lines[1:])}</tbody></table></div>{note}'
    )


def _cell_table(row: LevelDrift) -> str:
    head = ("Cell", "Verdict", "Items", "Reference", "Level", "Difference [bounds]", "Flips harm / heal", "KL mean",
            "Lead over prior")  # fmt: skip
    lines = []
    for cell in row.cells:
        lead = "not run" if cell.competence.missing else points(cell.competence.lead)
        prior = "" if cell.competence.missing else f"<small>{escape(cell.competence.prior)}</small>"
        settle = f"<small>{escape(settle_text(cell))}</small>" if settle_text(cell) else ""
        lines.append(
            f'<tr><th scope="row">{escape(cell.modality)} \u00d7 {escape(cell.task)}</th>'
            f"<td>{chip(cell.verdict)}{settle}</td>"
            f'<td class="num" data-label="Items"><span>{cell.items}<small>{cell.clusters} clusters</small></span></td>'
            f'<td class="num" data-label="Reference">{percent(cell.reference.value)}</td>'
            f'<td class="num" data-label="Level">{percent(cell.level.value)}</td>'
            f'<td class="num" data-label="Difference">{points(cell.delta)} '
            f"[{points(cell.lower)}, {points(cell.upper)}]</td>"
            f'<td class="num" data-label="Harm / heal">{cell.harmful} / {cell.healing}</td>'
            f'<td class="num" data-label="KL mean">{nats(cell.divergence.mean_nats) if cell.divergence else ""}</td>'
            f'<td class="num" data-label="Lead"><span>{lead}{prior}</span></td></tr>'
        )
    columns = "".join(f"<th scope=col>{name}</th>" for name in head)
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return (
        f"<details><summary>All figures of {len(row.cells)} cells</summary>"
        f'<div class="scroll stack">{table}</div></details>'
    )
