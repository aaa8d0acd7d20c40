"""The probes' part of the drift report: tables, and what their words mean, for Markdown and for the page.

Computes nothing. A table is a title, a sentence, a head and rows of text; both layouts are made from the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .drift_report import Share
from .report_text import MARKS, margin_text, number, percent, points
from .robustness_report import Contrast, Measured, Robustness

SIDES = "Intervals are two-sided, 95 %, cluster-robust."


@dataclass(frozen=True)
class Table:
    """One table in words."""

    title: str
    says: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: Robustness) -> Iterator[Table]:
    """Yield the tables that have rows."""
    for table in (_contrasts(found), _figures(found), _measured(found), _quadrants(found), _asked(found)):
        if table.rows:
            yield table


def markdown_robustness(found: Robustness | None) -> list[str]:
    """Return the section in Markdown; no lines where no probe was run."""
    if found is None:
        return []
    lines = ["## Robustness", ""]
    for table in tables(found):
        lines += markdown_table(table)
    lines += [f"- {text}" for text in _remarks(found)]
    return [*lines, ""]


def markdown_table(table: Table) -> list[str]:
    """Return a table with its title in Markdown."""
    head = [f"### {table.title}", "", table.says, "", f"| {' | '.join(table.head)} |", f"|{'---|' * len(table.head)}"]
    return [*head, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table.rows), ""]


def html_robustness(found: Robustness | None) -> Iterator[str]:
    """Yield the section as inline HTML."""
    if found is None:
        return
    yield "<h2>Robustness</h2>"
    for table in tables(found):
        yield from html_table(table)
    yield '<section class="card"><ul class="reading">'
    yield "".join(f"<li>{escape(text)}</li>" for text in _remarks(found))
    yield "</ul></section>"


def html_table(table: Table) -> Iterator[str]:
    """Yield a table with its title as inline HTML."""
    columns = "".join(f"<th scope=col>{escape(name)}</th>" for name in table.head)
    yield f'<p class="lead"><b>{escape(table.title)}.</b> {escape(table.says)}</p>'
    yield f'<section class="card stack"><table><thead><tr>{columns}</tr></thead><tbody>'
    for first, *rest in table.rows:
        cells = "".join(
            f'<td class="num" data-label="{escape(name)}"><span>{escape(cell)}</span></td>'
            for name, cell in zip(table.head[1:], rest, strict=True)
        )
        yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></section>"


def contrast_line(row: Contrast) -> str:
    """Return one contrast as a line for the terminal."""
    return (
        f"{row.run:24} {row.label:18} {MARKS[row.verdict]} {row.verdict:24} extra {points(row.excess)} points "
        f"[{points(row.lower)}, {points(row.upper)}]"
    )


def _contrasts(found: Robustness) -> Table:
    margin = margin_text(found.contrasts[0].margin) if found.contrasts else ""
    return Table(
        "Level under a probe",
        f"Does a level lose more under a probe than {found.reference}? The extra loss is the change of the level's "
        "accuracy under the probe minus that of the reference's, on the same questions; negative: the level loses "
        f"more. PASS: an extra loss of {margin} or more is ruled out at one-sided 5 %. FAIL: more than that is shown. "
        "The p-value is adjusted by Holm over the level's probes: below 0.05 the probe may be named.",
        ("level", "probe", "verdict", "items (clusters)", f"{found.reference}: clean, probed", "level: clean, probed",
         "extra [bounds], points", "p, Holm", "why"),
        tuple(
            (
                row.run, row.label, f"{MARKS[row.verdict]} {row.verdict}", f"{row.items:,} ({row.clusters:,})",
                f"{percent(row.reference_clean)}, {percent(row.reference_probed)}",
                f"{percent(row.level_clean)}, {percent(row.level_probed)}",
                f"{points(row.excess)} [{points(row.lower)}, {points(row.upper)}]",
                "" if row.p_more_holm is None else f"{row.p_more_holm:.2g}",
                row.reason,
            )
            for row in found.contrasts
        ),
    )  # fmt: skip


def _figures(found: Robustness) -> Table:
    return Table(
        "Each run under each probe",
        "Clean and probed: share of right answers, without the probe and to its rows. All right: questions with every "
        "variant right. Consistent: questions whose variants all say the same as the clean run, by content, or its "
        f"mirror image. Flips: rows that say something else. {SIDES}",
        ("run", "probe", "key", "items, rows", "clean", "probed", "all right", "consistent", "flips", "also"),
        tuple(
            (
                row.run, row.label, row.key, f"{row.items:,}, {row.rows:,}", _share(row.clean), _share(row.probed),
                _share(row.robust), _share(row.consistency), _share(row.flips),
                "; ".join(f"{one.name} {_share(one.share)}" for one in row.named),
            )
            for row in found.figures
        ),
    )  # fmt: skip


def _measured(found: Robustness) -> Table:
    return Table(
        "Image, places and corruptions",
        "Image reliance: accuracy with the image minus accuracy with mid grey, in points; of one part: with all parts "
        "minus without it. Position bias: total variation between the places of the answers and of the keys, 0 to 1. "
        f"Corruptions: accuracy under one over clean accuracy, mean over severities. {SIDES}",
        ("run", "figure", "items", "value [interval]"),
        tuple(_row(one) for one in (*found.reliance, *found.position_bias, *found.relative)),
    )


def _row(one: Measured) -> tuple[str, ...]:
    told = points if one.name.endswith("reliance") else lambda value: number(value, 3)
    return one.run, one.name, f"{one.items:,}", f"{told(one.value)} [{told(one.lower)}, {told(one.upper)}]"


def _quadrants(found: Robustness) -> Table:
    rows = [(row, row.quadrants) for row in found.figures if row.quadrants]
    return Table(
        "Stable, and looking?",
        "Questions with a picture by two marks: whether all variants agree, and whether a grey image changes the "
        "answer. Stable and blind is the dangerous corner: such answers look reliable and do not hang on the picture.",
        ("run", "probe", "stable, sees", "unstable, sees", "unstable, blind", "stable, blind"),
        tuple(
            (row.run, row.label, f"{four.stable_seeing:,}", f"{four.unstable_seeing:,}", f"{four.unstable_blind:,}",
             f"{four.stable_blind.correct:,}: {_share(four.stable_blind)}")
            for row, four in rows
        ),
    )  # fmt: skip


def _asked(found: Robustness) -> Table:
    return Table(
        "What the probes asked",
        "Questions that a probe does not cover are left out and counted.",
        ("probe", "what it does", "covered of", "rows", "left out"),
        tuple(
            (row.label, row.says, f"{row.items:,} of {row.examples:,}", f"{row.rows:,}",
             "; ".join(f"{reason.text}: {reason.examples:,}" for reason in row.left_out))
            for row in found.asked
        ),
    )  # fmt: skip


def _remarks(found: Robustness) -> Sequence[str]:
    missing = dict.fromkeys(f"{row.run}: consistency is {row.missing}." for row in found.figures if row.missing)
    return (
        "A level that is worse without a probe has less to lose under it: read the extra loss beside both accuracies.",
        "Where the reference falls to the text-only prior under a probe, the probe has destroyed the question, and "
        "equal losses say nothing of the levels.",
        *missing,
        *(f"Not read: {text}." for text in found.not_read),
    )


def _share(one: Share | None) -> str:
    return "" if one is None else f"{percent(one.value)} [{percent(one.lower)}, {percent(one.upper)}]"
