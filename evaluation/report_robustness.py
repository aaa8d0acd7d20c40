"""The probes' part of the drift report: level x probe as a heat map, curves by severity, and the tables of figures.

Computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from .drift_figures import Share
from .report_charts import curve_chart
from .report_heat import Heat, HeatRow, heat_legend, heat_map
from .report_sections import Findings, Table, figures, folded, html_table, markdown_table
from .report_text import MARKS, margin_text, number, percent, points
from .robustness_report import Contrast, Measured, ProbeFigures, Robustness

SIDES = "Intervals are two-sided, 95 %, cluster-robust."


def tables(found: Robustness) -> Iterator[Table]:
    """Yield the tables that have rows."""
    for table in (_contrasts(found), _figures(found), _measured(found), _quadrants(found), _asked(found)):
        if table.rows:
            yield table


def markdown_robustness(found: Findings) -> Iterator[str]:
    """Yield the section in Markdown; nothing where no probe was run."""
    if found.robustness is None:
        return
    for table in tables(found.robustness):
        yield from markdown_table(table)
    yield from (f"- {text}" for text in _remarks(found.robustness))
    yield ""


def html_robustness(found: Findings) -> Iterator[str]:
    """Yield level x probe as a heat map, accuracy by severity as curves and, folded, the tables."""
    probed = found.robustness
    if probed is None:
        return
    rows = list(_heat_rows(probed))
    if rows:
        margin = probed.contrasts[0].margin
        yield (
            '<p class="lead">How much more a level loses under a probe than '
            f"{escape(probed.reference)}, in points, on the same questions; margin {margin_text(margin)}. It does not "
            "change the level's verdict.</p>"
        )
        yield '<section class="card">'
        yield from heat_map("Level under a probe", "Probe", _compared(probed), rows)
        yield f"{heat_legend(margin)}</section>"
    curves = [(curve_chart(name, runs), f"Accuracy under {name}") for name, runs in severities(probed)]
    if curves:
        yield '<p class="lead">Accuracy by severity of a corruption; bands are 95 % intervals.</p>'
        yield f'<section class="card">{figures(curves, "many wide")}</section>'
    yield '<section class="card"><ul class="reading">'
    yield "".join(f"<li>{escape(text)}</li>" for text in _remarks(probed))
    yield "</ul></section>"
    yield from folded("All figures", (line for table in tables(probed) for line in html_table(table)))


def severities(found: Robustness) -> Iterator[tuple[str, list[tuple[str, list[ProbeFigures]]]]]:
    """Yield each corruption of two severities or more with its figures by run, the reference first."""
    probes = dict.fromkeys(row.probe for row in found.figures if row.severity)
    for probe in probes:
        by_run: dict[str, list[ProbeFigures]] = {}
        for row in sorted(found.figures, key=lambda row: row.severity):
            if row.probe == probe and row.severity:
                by_run.setdefault(row.run, []).append(row)
        runs = sorted(by_run.items(), key=lambda item: item[0] != found.reference)
        drawn = [(run, rows) for run, rows in runs if len(rows) > 1]
        if drawn:
            yield probe, drawn


def _compared(found: Robustness) -> list[str]:
    return list(dict.fromkeys(row.run for row in found.contrasts))


def _heat_rows(found: Robustness) -> Iterator[HeatRow]:
    cells = {(row.run, row.label): row for row in found.contrasts}
    for label in dict.fromkeys(one.label for one in found.asked):
        own = [cells.get((run, label)) for run in _compared(found)]
        if any(own):
            shown = tuple(
                Heat(row.verdict, row.excess, row.margin, f"{label}: {row.verdict}; {row.reason}") if row else ""
                for row in own
            )
            items = next(row.items for row in own if row)
            yield HeatRow("", label, f"{items:,} items", shown)


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
    without: dict[str, dict[str, None]] = {}
    for row in found.figures:
        if row.missing:
            without.setdefault(row.missing, {})[row.run] = None
    missing = [f"{', '.join(runs)}: consistency is {reason}." for reason, runs in without.items()]
    return (
        "A level that is worse without a probe has less to lose under it: read the extra loss beside both accuracies.",
        "Where the reference falls to the text-only prior under a probe, the probe has destroyed the question, and "
        "equal losses say nothing of the levels.",
        *missing,
        *(f"Not read: {text}." for text in found.not_read),
    )


def _share(one: Share | None) -> str:
    return "" if one is None else f"{percent(one.value)} [{percent(one.lower)}, {percent(one.upper)}]"
