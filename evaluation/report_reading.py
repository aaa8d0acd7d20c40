"""The last parts of the drift report: what the reference knows, what the verdicts mean, how to read them, the hashes.

Computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .drift_report import DriftReport, RunFacts
from .report_sections import Findings, chip, folded, markdown_rows, scrolling_start
from .report_text import MARKS, limits, meanings, part_name, percent, points


def html_knowledge(found: Findings) -> Iterator[str]:
    """Yield the table of the reference's lead over the text-only prior."""
    report = found.report
    if not report.knowledge:
        return
    yield (
        f'<p class="lead">What {escape(report.reference.run)} knows beyond the text: its lead over what can be '
        "answered without looking, the better of the majority answer and the same model given a grey image. Intervals "
        "are two-sided, 95 %.</p>"
    )
    head = ("Questions", "Items", "Accuracy", "Text-only prior", "Lead, points")
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    start = scrolling_start("What the reference knows", "stack dense")
    yield f'<section class="card">{start}<table><thead><tr>{columns}</tr></thead><tbody>'
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
    yield "</tbody></table></div></section>"


def markdown_knowledge(found: Findings) -> Iterator[str]:
    """Yield the same table."""
    report = found.report
    if not report.knowledge:
        return
    rows = (
        (
            part_name(part),
            f"{part.items:,} ({part.clusters:,})",
            f"{percent(part.reference.value)} [{percent(part.reference.lower)}, {percent(part.reference.upper)}]",
            f"{percent(part.prior_share.value)} ({part.prior})",
            f"{points(part.lead)} [{points(part.lower)}, {points(part.upper)}]",
        )
        for part in report.knowledge
    )
    yield from (f"What {report.reference.run} knows beyond the text.", "")
    yield from markdown_rows(
        ("part", "items (clusters)", "accuracy [95 %]", "text-only prior", "lead [95 %], points"), rows
    )
    yield ""


def html_reading(found: Findings) -> Iterator[str]:
    """Yield what each verdict means, and how the figures are to be read."""
    yield '<section class="card"><dl>'
    yield "".join(f"<dt>{chip(verdict)}</dt><dd>{escape(text)}</dd>" for verdict, text in meanings(found.report))
    yield '</dl></section><section class="card"><ul class="reading">'
    yield "".join(f"<li>{escape(text)}</li>" for text in limits(found.report))
    yield "</ul></section>"


def markdown_reading(found: Findings) -> Iterator[str]:
    """Yield what each verdict means, and how the figures are to be read."""
    yield from (f"- {MARKS[verdict]} **{verdict}**: {text}" for verdict, text in meanings(found.report))
    yield ""
    yield from (f"- {text}" for text in limits(found.report))
    yield ""


def html_provenance(found: Findings) -> Iterator[str]:
    """Yield the hashes, folded."""
    yield from folded("Hashes of the runs, the dataset and the plan", [_hash_table(found.report)])


def _hash_table(report: DriftReport) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(facts.run)}<small>{facts.kind}</small></th>'
        f"<td><code>{escape(facts.digest)}</code></td><td><code>{escape(facts.predictions_sha256)}</code></td></tr>"
        for facts in _runs(report)
    )
    plan = f"<small>plan: {report.plan.state}</small><code>{report.plan.sha256}</code>" if report.plan.sha256 else ""
    return (
        f'<section class="card">{scrolling_start("Hashes", "stack")}<table><thead><tr><th scope="col">Run</th>'
        '<th scope="col">sha256 of what was run</th><th scope="col">sha256 of its predictions</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<p class="hashes"><small>dataset</small><code>{escape(report.dataset_sha256)}</code>'
        f"<small>items</small><code>{escape(report.items_sha256)}</code>{plan}</p></section>"
    )


def markdown_provenance(found: Findings) -> Iterator[str]:
    """Yield the hashes."""
    report = found.report
    yield (
        f"infimed {report.infimed}; dataset `{report.dataset_sha256}`; items `{report.items_sha256}`; "
        f"plan {f'`{report.plan.sha256}`, {report.plan.state}' if report.plan.sha256 else 'none'}."
    )
    yield ""
    yield from markdown_rows(
        ("run", "what was run", "its sha256", "predictions sha256"),
        ((facts.run, facts.kind, f"`{facts.digest}`", f"`{facts.predictions_sha256}`") for facts in _runs(report)),
    )
    yield ""


def _runs(report: DriftReport) -> list[RunFacts]:
    """Return every run once: the reference, the levels, the text-only ones."""
    runs = [report.reference, *(row.facts for row in report.rows), *report.priors]
    return list({facts.run: facts for facts in runs}.values())
