"""The cells' part of the drift report: a heat map of modality x task by level, then every level's claims and figures.

Computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .drift_report import Comparison, LevelDrift
from .report_heat import Heat, HeatRow, heat_legend, heat_map
from .report_sections import Findings, chip, folded, markdown_rows, scrolling_start
from .report_text import (
    MARKS,
    bootstrap_text,
    counted,
    margin_text,
    named_claim,
    nats,
    percent,
    points,
    settle_text,
    token_lines,
    worst_cell_claim,
)

ALONE = "\u00b0"
_HEAD = (
    "cell",
    "verdict",
    "items (clusters)",
    "reference",
    "level",
    "difference [bounds], points",
    "flips harm / heal",
    "KL mean",
    "lead over prior",
    "would settle it",
)


def html_cells(found: Findings) -> Iterator[str]:
    """Yield the heat map and, folded, each level's claims and figures."""
    report, rows = found.report, list(found.report.rows)
    margin = report.margins.cell
    yield (
        f'<p class="lead">Difference to the reference in points; margin {margin_text(margin)} per cell. '
        f"Cells below {report.margins.cell_items} items are not judged.</p>"
    )
    cells = list(_heat_rows(rows, found))
    if cells:
        yield '<section class="card">'
        yield from heat_map("Cells by level", "Cell", [row.facts.run for row in rows], cells)
        yield heat_legend(margin)
        if any(_alone(cell) for row in rows for cell in row.cells):
            yield f"<small>{ALONE} FAILs alone at 5 %, not after Holm's correction over the level's cells</small>"
        yield "</section>"
    for row in rows:
        yield from _level(row, found)


def _heat_rows(rows: list[LevelDrift], found: Findings) -> Iterator[HeatRow]:
    judged = [{(cell.modality, cell.task): cell for cell in row.cells} for row in rows]
    small = {(cell.modality, cell.task): cell.items for cell in found.report.small_cells}
    for modality, task in sorted({*small, *(cell for row in judged for cell in row)}):
        own = [row.get((modality, task)) for row in judged]
        items = next((cell.items for cell in own if cell), small.get((modality, task), 0))
        shown = tuple(
            Heat(
                cell.verdict, cell.delta, cell.margin, f"{modality} \u00d7 {task}: {cell.verdict}; {cell.reason}",
                ALONE if _alone(cell) else "",
            ) if cell else "too small"
            for cell in own
        )  # fmt: skip
        yield HeatRow(modality, task, f"{items:,} items", shown)


def _alone(cell: Comparison) -> bool:
    return cell.verdict == "FAIL" and not cell.named_worse


def _level(row: LevelDrift, found: Findings) -> Iterator[str]:
    report = found.report
    yield '<section class="card">'
    yield (
        f'<div class="title"><h3>{escape(row.facts.run)}</h3>{chip(row.overall.verdict)}'
        f"<small>cells: {escape(counted(row.cells))}</small></div>"
    )
    yield f"<p>{escape(_sentence(row.overall.reason))}</p>"
    yield (
        f'<ul class="claims"><li>{escape(worst_cell_claim(row, report))}</li>'
        f"<li>{escape(named_claim(row, report))}</li>"
        f"{''.join(f'<li>{escape(line)}</li>' for line in token_lines(row))}</ul>"
    )
    if row.cells:
        yield from folded(f"All figures of {len(row.cells)} cells", [_cell_table(row)])
    yield "</section>"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


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
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    start = scrolling_start(f"Figures of {row.facts.run}", "scroll stack")
    return f"{start}<table><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def markdown_cells(found: Findings) -> Iterator[str]:
    """Yield each level's verdict, claims and cells."""
    for row in found.report.rows:
        one = row.overall
        yield from (
            f"### {row.facts.run} against {row.reference}",
            "",
            f"{MARKS[one.verdict]} **{one.verdict}**: {one.reason}. {settle_text(one)}".rstrip(),
            "",
            f"Reference {percent(one.reference.value)} [{percent(one.reference.lower)}, "
            f"{percent(one.reference.upper)}]; {_competence(one)}; McNemar p {one.mcnemar_p:.3g}; "
            f"design effect {one.design_effect:.2f}{f'; {by}' if (by := bootstrap_text(one)) else ''}.",
            "",
            f"- {worst_cell_claim(row, found.report)}",
            f"- {named_claim(row, found.report)}",
            *(f"- {line}" for line in token_lines(row)),
            "",
        )
        if row.cells:
            yield from markdown_rows(_HEAD, (_cell_line(cell) for cell in row.cells))
            yield ""


def _cell_line(cell: Comparison) -> tuple[str, ...]:
    return (
        f"{cell.modality} \u00d7 {cell.task}",
        f"{MARKS[cell.verdict]} {cell.verdict}{' (alone, not after Holm)' if _alone(cell) else ''}",
        f"{cell.items} ({cell.clusters})",
        percent(cell.reference.value),
        percent(cell.level.value),
        f"{points(cell.delta)} [{points(cell.lower)}, {points(cell.upper)}]",
        f"{cell.harmful} / {cell.healing}",
        nats(cell.divergence.mean_nats) if cell.divergence else "",
        "not run" if cell.competence.missing else points(cell.competence.lead),
        f"{cell.items_to_settle:,}" if cell.items_to_settle else "",
    )


def _competence(found: Comparison) -> str:
    known = found.competence
    if known.missing:
        return f"text-only prior: {known.missing}"
    return (
        f"text-only prior ({known.prior}) {percent(known.accuracy)}, lead {points(known.lead)} points, "
        f"lower bound {points(known.lead_lower)}"
    )
