"""Merges the shards of runs to the bytes that one run would have written. Everything is checked before anything is
written: a shard that is missing, unfinished, changed, of another run or another shard's copy ends with an error.

Knows how questions are divided and what a run holds, and no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..runtime.events import Event, OnEvent, ignore
from .dataset import Dataset
from .journal import Journal
from .predict import Asking
from .predict_probes import PROBES_FOLDER, Made, ProbeRecord, Work, keep_records, shard_numbers, works_of
from .prediction import Prediction, Run, Subject, complete_runs, read_meta, read_run
from .probes import ProbeSpec
from .shards import Shard, ShardError, shards_in


@dataclass(frozen=True)
class Merged:
    """What was merged. left_over: runs that the shards hold and that were not asked for."""

    made: Made
    left_over: tuple[str, ...]


def merge_shards(
    dataset: Dataset,
    out: Path,
    subjects: Mapping[str, Subject],
    specs: Sequence[ProbeSpec],
    *,
    role: str = "test",
    asking: Asking = Asking(),
    grey: bool = False,
    plan: str = "",
    on_event: OnEvent = ignore,
) -> Merged:
    """Write the runs of which all shards lie in RUNS/shards, as `predict_probes` would have in one go.

    subjects: what was asked, by the name of its run. The engine that computed is taken from the shards, which must
    agree on it; all else is as for `predict_probes`. A run that is complete already is kept as it is. Raises
    ShardError or EvaluateError, before anything is written.
    """
    shards = shards_in(out)
    works: list[Work] = []
    records: tuple[ProbeRecord, ...] = ()
    for run, subject in subjects.items():
        more, records = works_of(
            dataset, out, run, specs,
            subject=subject, role=role, asking=asking, grey=grey, computed_by=None, plan=plan,
        )  # fmt: skip
        works += more
    numbers = shard_numbers(dataset, role, len(shards))
    checked = []
    for work in works:
        found = _shards_of(work, out, shards, numbers)
        work = replace(work, identity=replace(work.identity, engine=found[0].meta.identity.engine))
        _journal(work).finished()  # refuses another run of this name
        checked.append(work)
    keep_records(out, specs, records)
    for work in checked:
        found = _shards_of(work, out, shards, numbers)
        rows = {shard.number: _timed(run) for shard, run in zip(shards, found, strict=True)}
        with _journal(work) as journal:
            kept = journal.done
            for done, row in enumerate(work.rows):
                prediction, seconds = next(rows[numbers[row.of]])
                if done >= kept:
                    journal.append(prediction, seconds)
            journal.finish()
        on_event(Event(f"merge {work.identity.run}", len(work.rows), len(work.rows), "rows"))
    made = Made({work.identity.run: work.folder for work in works}, records)
    return Merged(made, _left_over(out, shards, works))


def _left_over(runs: Path, shards: Sequence[Shard], works: Sequence[Work]) -> tuple[str, ...]:
    merged = {(work.folder, work.identity.run) for work in works}
    found = {
        name
        for folder in (runs, runs / PROBES_FOLDER)
        for shard in shards
        for name in complete_runs(_within(shard, runs, folder))
        if (folder, name) not in merged
    }
    return tuple(sorted(found))


def _journal(work: Work) -> Journal:
    return Journal(work.folder, work.identity, [row.example.id for row in work.rows])


def _within(shard: Shard, runs: Path, folder: Path) -> Path:
    return shard.folder(runs) / folder.relative_to(runs)


def _shards_of(work: Work, runs: Path, shards: Sequence[Shard], numbers: Mapping[str, int]) -> list[Run]:
    """Return the shards' runs, each complete, unchanged and of this very run. Raises ShardError."""
    found: list[Run] = []
    name = work.identity.run
    for shard in shards:
        folder = _within(shard, runs, work.folder)
        part = work.part(shard, numbers, folder)
        meta = read_meta(folder, name)
        if meta is None:
            raise ShardError(
                f"shard {shard} has no complete run {name!r}; evaluate with --shard {shard} and the same options again"
            )
        engine = found[0].meta.identity.engine if found else meta.identity.engine
        if difference := replace(part.identity, engine=engine).difference(meta.identity):
            raise ShardError(
                f"{folder} holds a run {name!r} whose {difference}: it is no part of the run that is "
                f"merged; repeat the options of the shards, or remove its files and evaluate with --shard {shard} again"
            )
        run = read_run(folder, name)
        if [row.example_id for row in run.predictions] != [row.example.id for row in part.rows]:
            raise ShardError(
                f"{folder} holds a run {name!r} of other rows than shard {shard} has; remove its files "
                f"and evaluate with --shard {shard} again"
            )
        found.append(run)
    return found


def _timed(run: Run) -> Iterator[tuple[Prediction, float]]:
    """Yield the rows of a shard, each with the seconds that it took on average."""
    seconds = 1 / run.items_per_second if run.items_per_second else 0.0
    for row in run.predictions:
        yield row, seconds
