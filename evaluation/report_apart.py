"""Single and cross-modal items in the drift report: one table for Markdown and the page. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from .drift_figures import Share
from .drift_report import DriftReport
from .report_sections import Table
from .report_text import nats, percent, points


def apart_tables(report: DriftReport) -> Iterator[Table]:
    """Yield the table, where the data hold cross-modal items."""
    rows = tuple(
        (
            row.facts.run, f"{one.kind} items", f"{one.found.items:,} ({one.found.clusters:,})",
            _share(one.found.reference), _share(one.found.level),
            f"{points(one.found.delta)} [{points(one.found.lower)}, {points(one.found.upper)}]",
            f"{one.found.harmful} / {one.found.healing}", percent(one.found.agreement),
            nats(one.found.divergence.mean_nats) if one.found.divergence else "",
            "not run" if one.found.competence.missing else points(one.found.competence.lead),
        )
        for row in report.rows
        for one in row.apart
    )  # fmt: skip
    if rows:
        yield Table(
            "Single and cross-modal items apart",
            "A cross-modal item shows an image together with another part: a second image, or a report. Bounds are "
            "one-sided, 95 %. Not judged apart: the verdicts are over all items and in each cell.",
            ("level", "on", "items (clusters)", "reference", "level", "difference [bounds], points",
             "flips harm / heal", "same answer", "KL mean, nats", "lead over prior, points"),
            rows,
        )  # fmt: skip


def _share(found: Share) -> str:
    return f"{percent(found.value)} [{percent(found.lower)}, {percent(found.upper)}]"
