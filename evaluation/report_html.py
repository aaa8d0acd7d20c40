"""The drift report as one page that needs nothing else: no script, no font and no file from elsewhere.

Readable in light and dark, on a phone and on paper; a verdict is told by word, sign and border, never by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from .drift_report import DriftReport
from .report_contents import CONTENTS
from .report_sections import Findings
from .report_style import STYLE
from .report_text import NOT_A_DEVICE, headline, margin_text, percent
from .robustness_report import Robustness

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html(
    report: DriftReport, robustness: Robustness | None = None, pictures: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the page. robustness: what the probes found, where any was run. pictures: data URIs by question's id."""
    found = Findings(report, robustness, pictures or {})
    title = escape(f"Drift: {report.dataset}")
    told = [(section, list(section.html(found))) for section in CONTENTS]
    shown = [(section, lines) for section, lines in told if lines]
    links = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section, _ in shown)
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<style>{STYLE}</style></head><body>",
        *_head(report),
        f'<nav aria-label="Sections">{links}</nav>',
        "<main>",
    ]
    for section, lines in shown:
        parts += [f'<h2 id="{section.anchor}">{escape(section.title)}</h2>', *lines]
    parts += [
        "</main>",
        f"<footer><p>{escape(NOT_A_DEVICE)}</p><p>Made by infimed {escape(report.infimed)}.</p></footer>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


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
    told = "".join(f"<div><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>" for value, name in facts)
    yield f'<dl class="facts">{told}</dl>'
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
