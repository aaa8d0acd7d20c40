"""How answers changed under each probe, and what a run leaves unanswered: read from the runs of probes beside it.

Whether a level loses more under a probe than the reference is robustness_contrast.py's question. Knows folders of runs;
the figures are answer_drift.py's and abstention.py's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .abstention import abstention
from .answer_drift import answer_drift
from .comparison import says_same, share
from .drift_figures import Abstention, ProbeDrift
from .predict import GREY_SUFFIX
from .predict_probes import PROBES_FOLDER, ProbeRecord, read_record
from .prediction import Prediction, Run, complete_runs, read_run

UNANSWERABLE = "abstain"  # the key of a probe whose picture does not show what is asked
Rows = tuple[Prediction, ...]


@dataclasses.dataclass(frozen=True)
class ProbeRuns:
    """The runs of probes in a folder. records: by label; rows: by run and label, in the order of their ids."""

    records: Mapping[str, ProbeRecord]
    rows: Mapping[str, Mapping[str, Rows]]

    @classmethod
    def read(cls, folder: Path, clean: Mapping[str, Run]) -> ProbeRuns:
        """Read what belongs to the clean runs of a folder; a run of another subject or other questions is passed over.

        The robustness section tells which runs it passed over, and why.
        """
        beside = folder / PROBES_FOLDER
        if not beside.is_dir():
            return cls({}, {})
        paths = [
            path for path in sorted(beside.glob("*.json")) if not path.name.endswith((".meta.json", ".started.json"))
        ]
        records = {path.stem: read_record(path) for path in paths}
        rows: dict[str, dict[str, Rows]] = {}
        for name in complete_runs(beside):
            run, _, label = name.rpartition(".")
            if label in records and run in clean:
                probed, own = read_run(beside, name), clean[run].meta.identity
                mine, record = probed.meta.identity, records[label]
                same = (mine.subject, mine.dataset_sha256, mine.role) == (own.subject, own.dataset_sha256, own.role)
                if same and all(mine.settings.get(key) == value for key, value in record.settings.items()):
                    rows.setdefault(run, {})[label] = tuple(sorted(probed.predictions, key=lambda row: row.example_id))
        return cls(records, rows)

    def drift(self, reference: str, level: str) -> tuple[ProbeDrift, ...]:
        """Return how answers changed under each probe that both runs were asked with."""
        before, after = self.rows.get(reference, {}), self.rows.get(level, {})
        found = []
        for label in sorted(set(before) & set(after)):
            one, other = before[label], after[label]
            if [row.example_id for row in one] != [row.example_id for row in other]:
                continue
            clusters = np.array([row.group for row in one])
            answers = answer_drift(one, other, clusters)
            if self.records[label].key == UNANSWERABLE:  # without a right answer confidence fits nothing
                answers = dataclasses.replace(answers, calibration=None)
            same = np.array([says_same(*rows) for rows in zip(one, other, strict=True)], dtype=bool)
            found.append(ProbeDrift(label, share(same, clusters), answers))
        return tuple(found)

    def abstention(self, run: Run, clean: Mapping[str, Run], threshold: float) -> Abstention | None:
        """Return what a run leaves unanswered: of its own questions, and of those on grey or exchanged pictures."""
        grey = clean.get(run.name + GREY_SUFFIX)
        without = [row for row in grey.predictions if row.images] if grey else []
        for label, rows in self.rows.get(run.name, {}).items():
            if self.records[label].key == UNANSWERABLE:
                without += rows
        return abstention(run.predictions, without, threshold)
