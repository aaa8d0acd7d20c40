"""Writes a drift report: drift.json and robustness.json (the findings), drift.md and drift.html (for people).

Computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..runtime.files import write_bytes
from .drift_report import Comparison, DriftReport, LevelDrift, NotRun, RunFacts
from .report_answers import answer_tables
from .report_html import html
from .report_robustness import markdown_robustness, markdown_table
from .report_text import (
    MARKS,
    NOT_A_DEVICE,
    bootstrap_text,
    counted,
    headline,
    limits,
    margin_text,
    meanings,
    megabytes,
    named_claim,
    nats,
    number,
    part_name,
    percent,
    points,
    settle_text,
    stored_text,
    token_lines,
    unfinished_text,
    worst_cell_claim,
)
from .robustness_report import Robustness

JSON_NAME, MARKDOWN_NAME, HTML_NAME = "drift.json", "drift.md", "drift.html"
ROBUSTNESS_NAME = "robustness.json"
_LEVEL_HEAD = (
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
_CELL_HEAD = (
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


def write_report(report: DriftReport, out: Path, robustness: Robustness | None = None) -> tuple[Path, ...]:
    """Write the files of a report into a folder, each whole or not at all; return their paths, the page last.

    robustness: what the probes found; it has a JSON file of its own and a section in the two others.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = {out / ROBUSTNESS_NAME: robustness.to_bytes()} if robustness else {}
    files |= {
        out / JSON_NAME: report.to_bytes(),
        out / MARKDOWN_NAME: markdown(report, robustness).encode(),
        out / HTML_NAME: html(report, robustness).encode(),
    }
    (out / ROBUSTNESS_NAME).unlink(missing_ok=True)  # an earlier report's, of runs that may be gone
    for path, data in files.items():
        write_bytes(path, data)
    return tuple(files)


def markdown(report: DriftReport, robustness: Robustness | None = None) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# Drift: {report.dataset}",
        "",
        f"**{headline(report)}**",
        "",
        f"Reference {report.reference.run}; {report.items:,} questions of the role {report.role} in "
        f"{report.clusters:,} patients or groups; margins {margin_text(report.margins.overall)} over all, "
        f"{margin_text(report.margins.cell)} per cell; one-sided 5 %.",
        "",
        f"> {NOT_A_DEVICE}",
        "",
        "## Levels",
        "",
        *_table(
            _LEVEL_HEAD,
            _level_rows(report),
        ),
        "",
    ]
    for row in report.rows:
        lines += _level_section(row, report)
    for place, table in enumerate(answer_tables(report)):
        lines += [*([] if place else ["## The answers themselves", ""]), *markdown_table(table)]
    lines += markdown_robustness(robustness)
    lines += _knowledge(report)
    lines += ["## What the verdicts mean", ""]
    lines += [f"- {MARKS[verdict]} **{verdict}**: {text}" for verdict, text in meanings(report)]
    lines += ["", "## How to read it, and what these data cannot say", ""]
    lines += [f"- {text}" for text in limits(report)]
    lines += ["", "## Provenance", "", *_provenance(report), ""]
    # a name from a dataset is text: Markdown would take it for a tag
    return "\n".join(lines).replace("<", "&lt;")


def _knowledge(report: DriftReport) -> list[str]:
    if not report.knowledge:
        return []
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
    return [
        f"## What {report.reference.run} knows beyond the text",
        "",
        *_table(("part", "items (clusters)", "accuracy [95 %]", "text-only prior", "lead [95 %], points"), rows),
        "",
    ]


def _level_rows(report: DriftReport) -> Iterable[Sequence[str]]:
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
            _difference(found),
            f"{found.harmful} / {found.healing}",
            percent(found.agreement),
            " / ".join(map(nats, (divergence.mean_nats, divergence.p99_nats, divergence.max_nats)))
            if divergence
            else "",
            number(row.facts.items_per_second) if row.facts.items_per_second else "",
            counted(row.cells),
        )
    for run in report.unfinished:
        yield (run.run, report.reference.run, unfinished_text(run), *[""] * 8)


def _level_section(row: LevelDrift, report: DriftReport) -> list[str]:
    found = row.overall
    lines = [
        f"## {row.facts.run} against {row.reference}",
        "",
        f"{MARKS[found.verdict]} **{found.verdict}**: {found.reason}. {settle_text(found)}".rstrip(),
        "",
        f"Reference {percent(found.reference.value)} [{percent(found.reference.lower)}, "
        f"{percent(found.reference.upper)}]; {_competence(found)}; McNemar p {found.mcnemar_p:.3g}; "
        f"design effect {found.design_effect:.2f}{f'; {by}' if (by := bootstrap_text(found)) else ''}.",
        "",
        f"- {worst_cell_claim(row, report)}",
        f"- {named_claim(row, report)}",
        *(f"- {line}" for line in token_lines(row)),
        "",
    ]
    if not row.cells:
        return lines
    return [
        *lines,
        *_table(
            _CELL_HEAD,
            (
                (
                    f"{cell.modality} \u00d7 {cell.task}",
                    f"{MARKS[cell.verdict]} {cell.verdict}{_alone(cell)}",
                    f"{cell.items} ({cell.clusters})",
                    percent(cell.reference.value),
                    percent(cell.level.value),
                    _difference(cell),
                    f"{cell.harmful} / {cell.healing}",
                    nats(cell.divergence.mean_nats) if cell.divergence else "",
                    "not run" if cell.competence.missing else points(cell.competence.lead),
                    f"{cell.items_to_settle:,}" if cell.items_to_settle else "",
                )
                for cell in row.cells
            ),
        ),
        "",
    ]


def _alone(cell: Comparison) -> str:
    return " (alone, not after Holm)" if cell.verdict == "FAIL" and not cell.named_worse else ""


def _difference(found: Comparison) -> str:
    return f"{points(found.delta)} [{points(found.lower)}, {points(found.upper)}]"


def _competence(found: Comparison) -> str:
    known = found.competence
    if known.missing:
        return f"text-only prior: {known.missing}"
    return (
        f"text-only prior ({known.prior}) {percent(known.accuracy)}, lead {points(known.lead)} points, "
        f"lower bound {points(known.lead_lower)}"
    )


def _provenance(report: DriftReport) -> list[str]:
    def line(facts: RunFacts) -> str:
        return f"| {facts.run} | {facts.kind} | `{facts.digest}` | `{facts.predictions_sha256}` |"

    runs = [report.reference, *(row.facts for row in report.rows), *report.priors]
    return [
        f"infimed {report.infimed}; dataset `{report.dataset_sha256}`; items `{report.items_sha256}`; "
        f"plan {f'`{report.plan.sha256}`, {report.plan.state}' if report.plan.sha256 else 'none'}.",
        "",
        "| run | what was run | its sha256 | predictions sha256 |",
        "|---|---|---|---|",
        *dict.fromkeys(line(facts) for facts in runs),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows),
    ]
