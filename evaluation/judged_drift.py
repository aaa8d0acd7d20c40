"""What a judge says of two runs' reasoning, beside the rules and never mixed with them.

Over the replies that the judge read in both runs. Knows judgements and rows, no client and no address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .comparison import share
from .drift_figures import JudgedDrift
from .prediction import Prediction, Run
from .rationale import ASPECTS, Rationale
from .rationale_drift import rationale_of, reasoning_parts
from .rationale_judge import FOLDER, Judged, JudgeError, lengths, read_judged


def judgements(folder: Path, runs: Mapping[str, Run]) -> dict[str, Judged]:
    """Return what judges said of the runs of a folder. Raises JudgeError for judgements of rows that are gone."""
    found = {}
    for name, run in runs.items():
        path = folder / FOLDER / f"{name}.json"
        if (judged := read_judged(path)) is None:
            continue
        if judged.run != name or judged.predictions_sha256 != run.meta.predictions_sha256:
            raise JudgeError(f"{path} speaks of other rows than run {name!r} has; remove it and ask the judge again")
        found[name] = judged
    return found


def judged_drift(reference: Run, level: Run, judged: Mapping[str, Judged]) -> JudgedDrift | None:
    """Return how reasoning changed to a judge; None where no one judge read replies of both runs."""
    pair = [judged.get(run.name) for run in (reference, level)]
    if pair[0] is None or pair[1] is None or pair[0].model != pair[1].model:
        return None
    if pair[0].instructions_sha256 != pair[1].instructions_sha256:
        return None
    rows = [{row.example_id: row for row in run.predictions} for run in (reference, level)]
    said = [{one.example_id: one for one in each.rows if one.read} for each in pair if each is not None]
    shared = sorted(set(said[0]) & set(said[1]))
    if not shared:
        return None
    told: list[list[Rationale | None]] = []
    for own, judgement in zip(rows, said, strict=True):
        long = lengths([own[key] for key in shared])
        told.append([judgement[key].as_rationale(long[key]) for key in shared])
    picked = [rows[0][key] for key in shared]
    clusters = np.array([row.group for row in picked])
    flags, groups = _agreement([rows[1][key] for key in shared], told[1])
    return JudgedDrift(
        model=pair[0].model,
        items=len(shared),
        unread=sum(not one.read for each in pair if each is not None for one in each.rows),
        agreement=share(np.array(flags, dtype=bool), np.array(groups)),
        parts=reasoning_parts(told, [row.record for row in picked], clusters),
    )


def _agreement(rows: Sequence[Prediction], told: Sequence[Rationale | None]) -> tuple[list[bool], list[str]]:
    """Return, of the level's replies, for each thing judged whether the rules say the same; and its group."""
    flags, groups = [], []
    for row, judged in zip(rows, told, strict=True):
        ruled = rationale_of(row)
        for name in (*(name for name in ASPECTS if name in row.record), "follows"):
            flags.append(getattr(ruled, name, None) == getattr(judged, name, None))
            groups.append(row.group)
    return flags, groups
