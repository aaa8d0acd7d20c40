"""The answers' part of the drift report: same answers, INVALID replies, confidence, abstaining, over all and by probe.

Tables for Markdown and for the page; per cell they stand in drift.json. Computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from .drift_figures import Abstention, AnswerDrift, Change, Share
from .drift_report import DriftReport
from .report_charts import reliability_chart
from .report_sections import Findings, Table, figures, folded, html_table, markdown_table
from .report_text import number, percent

_ANSWERS = (
    "level", "on", "rows", "same top answer", "INVALID, points", "ECE, points", "Brier", "AURC", "risk at coverage 0.8"
)  # fmt: skip


def html_answers(found: Findings) -> Iterator[str]:
    """Yield a reliability diagram for each run and, folded, the figures."""
    charts = [
        (reliability_chart(one, f"reliability-{place}"), f"{one.run}: calibration error {percent(one.ece)}")
        for place, one in enumerate(found.report.reliability)
    ]
    if charts:
        yield (
            '<p class="lead">How often an answer is right where the model is how sure. On the dashed line confidence '
            "can be believed; below it the model is too sure. Fifteen bins of equally many answers, with Wilson's 95 % "
            'intervals, widened by the design effect.</p><section class="card">'
        )
        yield f"{figures(charts, 'many')}</section>"
    tables = list(answer_tables(found.report))
    if tables:
        yield from folded("All figures", (line for table in tables for line in html_table(table)))


def markdown_answers(found: Findings) -> Iterator[str]:
    """Yield the tables."""
    for table in answer_tables(found.report):
        yield from markdown_table(table)


def answer_tables(report: DriftReport) -> Iterator[Table]:
    """Yield the tables that have rows."""
    rows = tuple(_rows(report))
    if rows:
        yield Table(
            "How the answers changed",
            "Level minus reference, with 95 % intervals by cluster. Confidence is the largest option probability: its "
            "error (ECE, 15 bins of equal mass), its squared distance (Brier, 0 to 2), the area under risk and "
            "coverage and the errors among the four fifths answered most confidently; each is better where smaller. "
            "Not judged. The same for every cell is in drift.json.",
            _ANSWERS,
            rows,
        )
    told = tuple(_open(report))
    if told:
        yield Table(
            "How the open answers changed",
            "Level minus reference, with 95 % intervals by cluster; each is better where larger. Token F1 is "
            "the primary figure. An INVALID reply is worth nothing. Only the exact match is judged, as accuracy.",
            ("level", "on", "open questions", "token F1, points", "exact match, points", "BLEU-1, points",
             "ROUGE-L, points"),
            told,
        )  # fmt: skip
    withheld = tuple(_withheld(report))
    if withheld:
        threshold = report.abstention.threshold if report.abstention else 0.0
        yield Table(
            "What is left unanswered",
            f"An answer counts as withheld where its confidence lies below {threshold:g}, or where the reply says that "
            "it cannot tell. Unanswerable are the questions on grey or exchanged pictures; to answer one is wrong.",
            ("run", "questions", "unanswerable", "coverage", "right of those answered", "unanswerable left alone",
             "answerable left alone"),
            withheld,
        )  # fmt: skip


def _rows(report: DriftReport) -> Iterator[tuple[str, ...]]:
    for row in report.rows:
        if row.overall.answers:
            yield (row.facts.run, "all questions", *_figures(row.overall.answers))
        for probe in row.probes:
            yield (row.facts.run, f"probe {probe.probe}", *_figures(probe.answers))


def _figures(found: AnswerDrift) -> tuple[str, ...]:
    known = found.calibration
    return (
        f"{found.items:,}",
        _share(found.top1),
        _change(found.invalid, 100),
        *(
            (_change(known.ece, 100), _change(known.brier), _change(known.aurc), _change(known.risk_at_80))
            if known
            else ("",) * 4
        ),
    )


def _open(report: DriftReport) -> Iterator[tuple[str, ...]]:
    for row in report.rows:
        for where, found in (
            ("all questions", row.overall.answers),
            *((f"probe {probe.probe}", probe.answers) for probe in row.probes),
        ):
            if found and (text := found.text):
                changes = (text.f1, text.exact, text.bleu1, text.rouge_l)
                yield (row.facts.run, where, f"{text.items:,}", *(_change(one, 100) for one in changes))


def _withheld(report: DriftReport) -> Iterator[tuple[str, ...]]:
    runs: list[tuple[str, Abstention | None]] = [(report.reference.run, report.abstention)]
    runs += [(row.facts.run, row.abstention) for row in report.levels]
    for run, found in runs:
        if found:
            yield (
                run, f"{found.answerable:,}", f"{found.unanswerable:,}", _share(found.coverage),
                _share(found.selective_accuracy), _share(found.recall), _share(found.over_refusal),
            )  # fmt: skip


def _share(found: Share | None) -> str:
    return f"{percent(found.value)} [{percent(found.lower)}, {percent(found.upper)}]" if found else ""


def _change(found: Change | None, times: float = 1.0) -> str:
    if found is None:
        return ""
    digits = 1 if times > 1 else 3
    values = (number(times * value, digits, signed=True) for value in (found.change, found.lower, found.upper))
    return "{} [{}, {}]".format(*values)
