"""The lower half of the drift page: what the reference knows, what the verdicts mean, what the data cannot say, hashes.

Inline HTML for report_html.py; computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .drift_report import DriftReport, RunFacts
from .report_figure import chip
from .report_text import limits, meanings, part_name, percent, points


def knowledge_table(report: DriftReport) -> Iterator[str]:
    """Yield the table of the reference's lead over the text-only prior."""
    if not report.knowledge:
        return
    yield f"<h2>What {escape(report.reference.run)} knows beyond the text</h2>"
    yield (
        '<p class="lead">Its lead over what can be answered without looking: the better of the majority answer and the '
        "same model given a grey image. Intervals are two-sided, 95 %.</p>"
    )
    head = ("Questions", "Items", "Accuracy", "Text-only prior", "Lead, points")
    columns = "".join(f"<th scope=col>{name}</th>" for name in head)
    yield f'<section class="card stack"><table><thead><tr>{columns}</tr></thead><tbody>'
    for part in report.knowledge:
        yield (
            f'<tr><th scope="row">{escape(part_name(part))}</th>'
            f'<td class="num" data-label="Items"><span>{part.items:,}'
            f"<small>{part.clusters:,} clusters</small></span></td>"
            f'<td class="num" data-label="Accuracy"><span>{percent(part.reference.value)}'
            f"<small>{percent(part.reference.lower)} \u2013 {percent(part.reference.upper)}</small></span></td>"
            f'<td class="num" data-label="Prior"><span>{percent(part.prior_share.value)}'
            f"<small>{escape(part.prior)}</small></span></td>"
            f'<td class="num" data-label="Lead"><span>{points(part.lead)}'
            f"<small>{points(part.lower)} to {points(part.upper)}</small></span></td></tr>"
        )
    yield "</tbody></table></section>"


def explanations(report: DriftReport) -> Iterator[str]:
    """Yield what the verdicts mean, how to read the figures, and the hashes."""
    yield '<h2>What the verdicts mean</h2><section class="card"><dl style="margin-top:0">'
    yield "".join(f"<dt>{chip(verdict)}</dt><dd>{escape(text)}</dd>" for verdict, text in meanings(report))
    yield "</dl></section>"
    yield '<h2>How to read it, and what these data cannot say</h2><section class="card"><ul class="reading">'
    yield "".join(f"<li>{escape(text)}</li>" for text in limits(report))
    yield "</ul></section>"
    yield '<h2>Provenance</h2><section class="card stack"><table><thead><tr>'
    yield "<th scope=col>Run</th><th scope=col>sha256 of what was run</th><th scope=col>sha256 of its predictions</th>"
    yield "</tr></thead><tbody>"
    runs = [report.reference, *(row.facts for row in report.rows), *report.priors]
    yield "".join(dict.fromkeys(_hashes(facts) for facts in runs))
    yield (
        f"</tbody></table><p style='margin:16px 0 0'><small>dataset</small><code>{escape(report.dataset_sha256)}</code>"
        f"<small>items</small><code>{escape(report.items_sha256)}</code>"
        f"<small>plan: {report.plan.state}</small><code>{report.plan.sha256}</code></p></section>"
    )


def _hashes(facts: RunFacts) -> str:
    return (
        f'<tr><th scope="row">{escape(facts.run)}<small>{facts.kind}</small></th>'
        f"<td><code>{escape(facts.digest)}</code></td><td><code>{escape(facts.predictions_sha256)}</code></td></tr>"
    )
