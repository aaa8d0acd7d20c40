"""Writes a drift report: drift.json and robustness.json (the findings), drift.md and drift.html (for people).

Computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..runtime.files import write_bytes
from .drift_report import DriftReport
from .report_contents import CONTENTS
from .report_html import html
from .report_sections import Findings
from .report_text import NOT_A_DEVICE, headline, margin_text
from .robustness_report import Robustness

JSON_NAME, MARKDOWN_NAME, HTML_NAME = "drift.json", "drift.md", "drift.html"
ROBUSTNESS_NAME = "robustness.json"


def write_report(
    report: DriftReport,
    out: Path,
    robustness: Robustness | None = None,
    pictures: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Path, ...]:
    """Write the files of a report into a folder, each whole or not at all; return their paths, the page last.

    robustness: what the probes found; it has a JSON file of its own and a section in the two others. pictures: data
    URIs of the images of the flips, by the question's id.
    """
    return write_files(report_files(report, robustness, pictures), out)


def write_files(files: Mapping[str, bytes], out: Path) -> tuple[Path, ...]:
    """Write the files of a report into a folder, each whole or not at all; return their paths in the order given."""
    out.mkdir(parents=True, exist_ok=True)
    if ROBUSTNESS_NAME not in files:
        (out / ROBUSTNESS_NAME).unlink(missing_ok=True)  # an earlier report's, of runs that may be gone
    for name, data in files.items():
        write_bytes(out / name, data)
    return tuple(out / name for name in files)


def report_files(
    report: DriftReport,
    robustness: Robustness | None = None,
    pictures: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, bytes]:
    """Return the files of a report by name, the page last: same findings, same bytes."""
    files = {ROBUSTNESS_NAME: robustness.to_bytes()} if robustness else {}
    return files | {
        JSON_NAME: report.to_bytes(),
        MARKDOWN_NAME: markdown(report, robustness).encode(),
        HTML_NAME: html(report, robustness, pictures).encode(),
    }


def markdown(report: DriftReport, robustness: Robustness | None = None) -> str:
    """Return the report as Markdown."""
    found = Findings(report, robustness)
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
    ]
    for section in CONTENTS:
        told = list(section.markdown(found))
        if told:
            lines += [f"## {section.title}", "", *told]
    # a name from a dataset is text: Markdown would take it for a tag
    return "\n".join(lines).replace("<", "&lt;")
