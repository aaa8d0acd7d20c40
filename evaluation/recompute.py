"""Makes a report again from the stored outcomes, as it says it was made, and holds its files against the new ones.

So that whoever gets a report can see that these runs yield it, byte for byte. Knows files, no layout and no statistics.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ..runtime.events import OnEvent, ignore
from .dataset import Dataset
from .drift import drift
from .drift_report import DriftReport
from .flip_pictures import PicturesError, flip_pictures
from .jsonform import flat, to_json
from .report import JSON_NAME, ROBUSTNESS_NAME, report_files
from .robustness import robustness
from .robustness_report import Robustness


@dataclass(frozen=True)
class Made:
    """A report with its files. files: by name, the page last. differences: one sentence for each that differs."""

    report: DriftReport
    robustness: Robustness | None
    files: dict[str, bytes]
    differences: tuple[str, ...] = ()


def make_files(report: DriftReport, runs: Path, dataset: Dataset | None) -> Made:
    """Return a report that says whether it is pictured, what the probes found, and the files.

    dataset: that of the runs, for pictures of the flips; None leaves them out. Raises PicturesError for another one.
    """
    pictures = flip_pictures(report, dataset) if dataset else None
    report = dataclasses.replace(report, pictured=dataset is not None)
    probed = robustness(runs, report.reference.run, report.margins.cell)
    return Made(report, probed, report_files(report, probed, pictures))


def recompute(runs: Path, kept: Path, dataset: Dataset | None = None, on_event: OnEvent = ignore) -> Made:
    """Make the report of a folder again from the runs, with the reference, margins and threshold that it states.

    dataset: needed where the page shows pictures. Raises ReportError for a folder without a report, PicturesError
    where pictures are shown and no dataset is given, and what drift raises for runs that cannot be compared.
    """
    old = DriftReport.read(kept / JSON_NAME)
    if old.pictured and dataset is None:
        raise PicturesError(f"{kept} shows pictures of the dataset {old.dataset}; give it with --data")
    report = drift(runs, old.reference.run, old.margins, on_event, abstain_below=old.abstain_below)
    made = make_files(report, runs, dataset if old.pictured else None)
    return dataclasses.replace(made, differences=tuple(_differences(made.files, kept, made.report, old)))


def _differences(files: dict[str, bytes], kept: Path, report: DriftReport, old: DriftReport) -> list[str]:
    found = []
    for name, data in files.items():
        path = kept / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.read_bytes() != data:
            where = f": {_first(report, old)}" if name == JSON_NAME else ""
            found.append(f"{name} differs{where}")
    if ROBUSTNESS_NAME not in files and (kept / ROBUSTNESS_NAME).is_file():
        found.append(f"{ROBUSTNESS_NAME} is of probes that are not among the runs")
    return found


def _first(report: DriftReport, old: DriftReport) -> str:
    """Return the first field that differs, with both values."""
    mine, theirs = flat(to_json(report)), flat(to_json(old))
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            return f"{name} is {theirs.get(name)!r:.60}, the runs yield {mine.get(name)!r:.60}"
    return "the same values in other bytes"
