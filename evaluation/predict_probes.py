"""Asks one engine a dataset's questions and their probes picture by picture: a clean run and one run for each probe.

Runs of probes lie in RUNS/probes/, so that what compares runs over the same questions never meets them. A picture that
several runs show is encoded once: the questions of all runs about it follow one another. Each run has its own journal
and its own fixed order of rows, whatever other probes are asked with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.engine import Engine
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import canonical_json, write_bytes
from ..runtime.messages import ImagePart
from .corruptions import changed
from .dataset import Dataset
from .example import Content, Example, ImageRef
from .journal import Journal
from .jsonform import FormError, from_json, parse, to_json
from .predict import GREY_SUFFIX, Asking, EvaluateError, ask, by_image, identity_of
from .prediction import Identity, PredictionError, Subject
from .probe import Picture
from .probes import GREY_PROBE, ProbedItems, ProbeSpec, probed_items
from .prompting import messages_for
from .shards import Shard, divided

PROBES_FOLDER = "probes"
_Refs = tuple[ImageRef, ...]


@dataclass(frozen=True)
class ProbeRecord:
    """RUNS/probes/<probe>.json: what a probe made of the dataset, the same for every level.

    items: examples it covers; rows: what is asked of them; left_out: the others by reason. sha256: over the rows.
    """

    probe: str
    severity: int
    seed: int
    key: str
    dataset_sha256: str
    role: str
    items: int
    rows: int
    left_out: Mapping[str, int]
    sha256: str
    settings: Mapping[str, str | int | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What was made. files: the folder of each run, by its name, in the order of the making."""

    files: Mapping[str, Path]
    records: tuple[ProbeRecord, ...]


class Row(NamedTuple):
    """What is asked. place: of its source's pictures. picture: how they are changed. of: the id of its source."""

    place: int
    example: Example
    picture: Picture | None
    of: str


@dataclass
class Work:
    """A run to be made: its rows in order."""

    identity: Identity
    folder: Path
    asking: Asking
    rows: list[Row]
    journal: Journal | None = None

    def part(self, shard: Shard, numbers: Mapping[str, int], folder: Path) -> Work:
        """Return a shard's part of the run. numbers: of the shard, by the example that a row is about."""
        settings = {**self.identity.settings, "shard": str(shard)}
        rows = [row for row in self.rows if numbers[row.of] == shard.number]
        return Work(replace(self.identity, settings=settings), folder, self.asking, rows)


def record_of(items: ProbedItems, dataset: Dataset, role: str) -> ProbeRecord:
    """Return the record of a probe over a role of a dataset."""
    spec = items.spec
    settings: dict[str, str | int | bool] = {
        "probe": spec.name,
        "probe_severity": spec.severity,
        "probe_seed": spec.seed,
        "probe_sha256": items.sha256,
    }
    if spec.row.changes_picture:
        import PIL

        settings["pillow"] = PIL.__version__  # another version may make other pixels
    return ProbeRecord(
        spec.name, spec.severity, spec.seed, spec.row.key, dataset.sha256, role, items.items, len(items.rows),
        items.left_out, items.sha256, settings,
    )  # fmt: skip


def read_record(path: Path) -> ProbeRecord:
    """Read the record of a probe. Raises PredictionError."""
    try:
        return from_json(ProbeRecord, parse(path.read_bytes(), path.name), path.name)
    except (OSError, FormError) as error:
        raise PredictionError(
            f"{path} cannot be read ({error}); remove the folder and evaluate the probes again"
        ) from None


def coverage_text(record: ProbeRecord) -> str:
    """Return what a probe covers, in any severity, and why it leaves out the rest, in one line."""
    total = record.items + sum(record.left_out.values())
    why = "; ".join(f"{count:,} {reason}" for reason, count in record.left_out.items())
    return f"{record.probe} covers {record.items:,} of {total:,} questions{f' (left out: {why})' if why else ''}"


def predict_probes(
    engine: Callable[[], Engine],
    dataset: Dataset,
    out: Path,
    run: str,
    specs: Sequence[ProbeSpec],
    *,
    subject: Subject,
    role: str = "test",
    asking: Asking = Asking(),
    grey: bool = False,
    computed_by: Mapping[str, str | int | bool] | None = None,
    plan: str = "",
    shard: Shard | None = None,
    on_event: OnEvent = ignore,
) -> Made:
    """Predict a role of a dataset and its probes; rows that are there already are kept.

    Makes RUNS/<run>.jsonl, RUNS/<run>.grey.jsonl (with `grey`, or where the probe "grey" is among the specs) and, for
    each other probe that covers anything, RUNS/probes/<run>.<probe>.jsonl. engine: called once, where anything is left
    to ask. plan: the sha256 of the plan that all of them are made under. shard: only this part of all rows is asked,
    into RUNS/shards/<number>-of-<count>.
    """
    works, records = works_of(
        dataset, out, run, specs,
        subject=subject, role=role, asking=asking, grey=grey, computed_by=computed_by, plan=plan,
    )  # fmt: skip
    stage = f"evaluate {run}"
    if shard is not None:
        numbers = shard_numbers(dataset, role, shard.count)
        works = [work.part(shard, numbers, shard.folder(out) / work.folder.relative_to(out)) for work in works]
        out, stage = shard.folder(out), f"{stage}, shard {shard}"
    keep_records(out, specs, records)
    _make(works, engine, dataset, stage, on_event)
    return Made({work.identity.run: work.folder for work in works}, records)


def works_of(
    dataset: Dataset,
    out: Path,
    run: str,
    specs: Sequence[ProbeSpec],
    *,
    subject: Subject,
    role: str = "test",
    asking: Asking = Asking(),
    grey: bool = False,
    computed_by: Mapping[str, str | int | bool] | None = None,
    plan: str = "",
) -> tuple[list[Work], tuple[ProbeRecord, ...]]:
    """Return the runs that `predict_probes` makes, and what each probe makes of the dataset. Nothing is written."""
    examples = by_image(dataset.in_role(role))
    if not examples:
        raise EvaluateError(f"{dataset.folder} has no example in the role {role!r}; divide it with infimed data curate")
    places = _places(examples)
    works = [_clean_work(shown_grey, examples, places, dataset, out, run, subject, role, asking, computed_by, plan)
             for shown_grey in (False, True)
             if not shown_grey or grey or any(spec.name == GREY_PROBE for spec in specs)]  # fmt: skip
    records = []
    for spec in specs:
        items = probed_items(spec, examples)
        record = record_of(items, dataset, role)
        records.append(record)
        if spec.name != GREY_PROBE and items.rows:
            under = _under(asking, f".{spec.label}")
            clean = identity_of(dataset, run, subject, role, under, computed_by, plan)
            identity = replace(clean, run=f"{run}.{spec.label}", settings={**clean.settings, **record.settings})
            works.append(Work(identity, out / PROBES_FOLDER, under, _in_order(items, places)))
    return works, tuple(records)


def shard_numbers(dataset: Dataset, role: str, count: int) -> dict[str, int]:
    """Return the shard of each example of a role by its id; the rows of its probes go with it. Raises ShardError."""
    return divided(by_image(dataset.in_role(role)), count)


def keep_records(out: Path, specs: Sequence[ProbeSpec], records: Sequence[ProbeRecord]) -> None:
    """Write the record of each probe that has a run, or hold it against the one that is there."""
    for spec, record in zip(specs, records, strict=True):
        if spec.name != GREY_PROBE and record.rows:
            _keep_record(out / PROBES_FOLDER, spec, record)


def _clean_work(
    grey: bool, examples: Sequence[Example], places: Mapping[_Refs, int], dataset: Dataset, out: Path, run: str,
    subject: Subject, role: str, asking: Asking, computed_by: Mapping[str, str | int | bool] | None,
    plan: str,
) -> Work:  # fmt: skip
    asking = _under(replace(asking, grey=grey), GREY_SUFFIX if grey else "")
    identity = identity_of(dataset, run, subject, role, asking, computed_by, plan)
    picture = Picture("grey", 0, 0) if grey else None
    return Work(identity, out, asking, [Row(places[row.images], row, picture, row.id) for row in examples])


def _under(asking: Asking, suffix: str) -> Asking:
    """Return how the questions of one run are put. suffix: of the run's name."""
    return replace(asking, answers=asking.answers.for_run(suffix) if asking.answers else None)


def _places(examples: Sequence[Example]) -> dict[_Refs, int]:
    """Return the place of each set of images, in the order in which they are first asked about."""
    return {images: place for place, images in enumerate(dict.fromkeys(row.images for row in examples))}


def _in_order(items: ProbedItems, places: Mapping[_Refs, int]) -> list[Row]:
    """Return a probe's rows in the order of their sources' pictures, those with the same beginning together."""
    sources: dict[str, int] = {}
    groups: dict[tuple[int, tuple[Content, ...], Picture | None], list[Row]] = {}
    for row in items.rows:
        own = items.shown_by[row.of]
        sources.setdefault(row.of, places[own])
        place = sources[row.of]
        key = (place, row.example.content[:-1], row.picture)
        groups.setdefault(key, []).append(Row(place, row.example, row.picture, row.of))
    ordered = sorted(groups.items(), key=lambda group: group[0][0])  # stable: the dataset's order within a picture
    return [row for _, rows in ordered for row in rows]


def _keep_record(folder: Path, spec: ProbeSpec, record: ProbeRecord) -> None:
    """Write a probe's record, or hold it against the one that is there."""
    path = folder / f"{spec.label}.json"
    if path.exists():
        found = read_record(path)
        if found != record:
            mine, theirs = to_json(record), to_json(found)
            name = next(name for name in mine if mine[name] != theirs[name])
            raise EvaluateError(
                f"{path} is of other questions: its {name} is {theirs[name]!r:.80}, not {mine[name]!r:.80}; name "
                "another folder for the runs, or remove the probes there"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, canonical_json(to_json(record)))


def _make(works: Sequence[Work], engine: Callable[[], Engine], dataset: Dataset, stage: str, on_event: OnEvent) -> None:
    with ExitStack() as stack:
        for work in works:
            ids = [row.example.id for row in work.rows]
            work.journal = stack.enter_context(Journal(work.folder, work.identity, ids))
        done = sum(work.journal.done for work in works if work.journal)
        total = sum(len(work.rows) for work in works)
        on_event(Event(stage, done, total, "questions", "resumed" if done else ""))
        if done < total:
            opened = engine()
            right: Counter[str] = Counter()
            asked: Counter[str] = Counter()
            try:
                for name, correct in _ask_by_picture(works, opened, dataset):
                    done, asked[name], right[name] = done + 1, asked[name] + 1, right[name] + correct
                    figures = {"accuracy": right[name] / asked[name]}
                    on_event(Event(stage, done, total, "questions", name if len(works) > 1 else "", figures))
            finally:
                opened.close()
        for work in works:
            if work.journal:
                work.journal.finish()


def _ask_by_picture(works: Sequence[Work], engine: Engine, dataset: Dataset) -> Iterator[tuple[str, bool]]:
    """Ask what is left, all runs' questions about a picture together; yield each row's run and if it is right.

    Of the runs' rows at a place those that show the same come first, whatever run they are of: the engine goes on from
    the picture that it took in last.
    """
    left = [list(reversed(work.rows[work.journal.done :])) for work in works if work.journal]
    while any(left):
        place = min(rows[-1].place for rows in left if rows)
        while here := [rows[-1] for rows in left if rows and rows[-1].place == place]:
            shown = here[0].example.images, here[0].picture
            images: tuple[ImagePart, ...] | None = None
            for work, rows in zip(works, left, strict=True):
                while rows and (rows[-1].place, (rows[-1].example.images, rows[-1].picture)) == (place, shown):
                    example = rows.pop().example
                    began_s = time.perf_counter()
                    if images is None:
                        images = made_images(dataset, example, shown[1])
                    row = ask(engine, example, messages_for(example, images), work.asking)
                    if work.journal:
                        work.journal.append(row, time.perf_counter() - began_s)
                    yield work.identity.run, row.correct


def made_images(dataset: Dataset, example: Example, picture: Picture | None) -> tuple[ImagePart, ...]:
    """Return what a row shows: its images, changed as its picture says."""
    return tuple(ImagePart(_made(rgb, picture)) for rgb in dataset.images(example))


def _made(rgb: NDArray[np.uint8], picture: Picture | None) -> NDArray[np.uint8]:
    return rgb if picture is None else changed(rgb, picture.change, picture.severity, picture.seed)
