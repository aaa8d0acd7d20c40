"""Predictions of one run: a row per example in RUNS/<run>.jsonl and a meta file, read and checked.

docs/predictions.md states the format; journal.py writes it. Knows no engine and no dataset.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .. import InfimedError
from ..runtime.files import sha256_file
from .answer_tokens import ForcedAnswer, KeptAnswer
from .example import Example
from .jsonform import FormError, flat, from_json, parse, to_json
from .parts import is_cross_modal, parts_of
from .record import record_of

SCHEMA = "infimed.predictions/1"
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+\-]{0,127}")  # + as in a level's name: gguf-q4_k_m+imatrix
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WHERE_KNOWN = frozenset({"kept", "forced", "aliases"})  # fields that stand in a row only where there is something
_DECIMALS = 9  # log-likelihoods come from float32 logits: what lies below is noise

ImageKind = Literal["own", "grey", "none"]
SubjectKind = Literal["bundle", "checkpoint", "adapter", "prior"]


class PredictionError(InfimedError):
    """A run that cannot be written, read or gone on with."""


def require_sha256(**digests: str) -> None:
    """Raise FormError for what is no sha256 in hexadecimal: these are printed and compared."""
    for name, value in digests.items():
        if not _SHA256.fullmatch(value):
            raise FormError(f"{name} is {value!r:.70}; it must be 64 hexadecimal digits")


@dataclass(frozen=True)
class Prediction:
    """What a run answered to one example.

    images: how many the example shows. option_logprobs_nats, option_tokens: per option, summed over its tokens.
    choice: the option with the highest log-likelihood, normalised as the run's settings say; probabilities: the softmax
    of these values. Empty for open ones.
    generated, extracted: the greedy reply and what it says (None: not asked for, or INVALID). correct: by `choice`, or
    for open questions by exact match. score: 1 or 0, for open questions the token F1. wording: the question.
    parts: the images and texts that the example shows before its question (0 in rows of before they were counted).
    kept: of a reference that keeps its answers, its reply token by token; forced: of a level, how far it lies from the
    reference's at each token.
    record: what is known of the item beside its key, by "modality", "organ", "side": what reasoning is held against.
    aliases: other right answers of an open question.
    """

    example_id: str
    group: str
    modality: str
    task: str
    answer_type: str
    images: int
    wording: str
    answer: str
    options: tuple[str, ...]
    option_logprobs_nats: tuple[float, ...]
    option_tokens: tuple[int, ...]
    choice: str | None
    probabilities: tuple[float, ...]
    generated: str | None
    extracted: str | None
    correct: bool
    score: float
    parts: int = 0
    kept: KeptAnswer | None = None
    forced: ForcedAnswer | None = None
    record: Mapping[str, str] = field(default_factory=dict, hash=False)
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault:
            raise FormError(f"example {self.example_id!r:.80}: {fault}")

    @property
    def cross_modal(self) -> bool:
        """Whether the example shows an image together with another part: a second image, a report."""
        return is_cross_modal(self.images, self.parts)

    @classmethod
    def of(
        cls,
        example: Example,
        *,
        correct: bool,
        score: float,
        option_logprobs_nats: Sequence[float] = (),
        option_tokens: Sequence[int] = (),
        choice: str | None = None,
        probabilities: Sequence[float] = (),
        generated: str | None = None,
        extracted: str | None = None,
        kept: KeptAnswer | None = None,
        forced: ForcedAnswer | None = None,
    ) -> Prediction:
        """Return the row of this example with this outcome."""
        return cls(
            example_id=example.id,
            group=example.group,
            modality=example.modality,
            task=example.task,
            answer_type=example.answer_type,
            images=len(example.images),
            wording=example.question,
            answer=example.answer,
            options=example.options,
            option_logprobs_nats=tuple(option_logprobs_nats),
            option_tokens=tuple(option_tokens),
            choice=choice,
            probabilities=tuple(probabilities),
            generated=generated,
            extracted=extracted,
            correct=correct,
            score=score,
            parts=len(parts_of(example)),
            kept=kept,
            forced=forced,
            record=record_of(example),
            aliases=example.aliases,
        )

    def to_line(self) -> bytes:
        """Return the row: sorted keys, UTF-8, one line feed."""
        rounded = dataclasses.replace(
            self,
            option_logprobs_nats=tuple(round(value, _DECIMALS) for value in self.option_logprobs_nats),
            probabilities=tuple(round(value, _DECIMALS) for value in self.probabilities),
            score=round(self.score, _DECIMALS),
        )
        value = {name: item for name, item in to_json(rounded).items() if name not in _WHERE_KNOWN or item}
        return (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _fault(row: Prediction) -> str:
    """Return why a row cannot be compared with another, or the empty text."""
    many = len(row.options)
    if not row.example_id or not row.group:
        return "example_id or group is empty"
    if many and row.answer not in row.options:
        return f"the answer {row.answer!r:.60} is not one of the options"
    if row.choice is not None and row.choice not in row.options:
        return f"the choice {row.choice!r:.60} is not one of the options"
    for name in ("option_logprobs_nats", "option_tokens", "probabilities"):
        if len(getattr(row, name)) not in (0, many):
            return f"{name} has {len(getattr(row, name))} values for {many} options"
    if row.option_logprobs_nats and not row.option_tokens:
        return "option_logprobs_nats without option_tokens"
    return ""


@dataclass(frozen=True)
class Subject:
    """What answers. digest: of the bundle's level, the checkpoint, the adapter or the training set, by sha256.

    weight_bytes: all weights that are loaded, the vision tower's included.
    """

    kind: SubjectKind
    level: str
    digest: str
    weight_bytes: int

    def __post_init__(self) -> None:
        require_sha256(digest=self.digest)


@dataclass(frozen=True)
class Identity:
    """What makes two runs the same run. settings: whatever else changes the rows, by name.

    engine: the library that computed, its version and where. A run goes on only under the same one, for the last bits
    of a number depend on it; runs of different engines are compared all the same. plan: the sha256 of the plan that the
    run was begun under, empty for none. answers: by which rule a reference's rows keep its answers, or the sha256 of
    the rows whose answers a level was given; empty where neither was asked for.
    """

    run: str
    subject: Subject
    image: ImageKind
    dataset: str
    dataset_sha256: str
    role: str
    settings: Mapping[str, str | int | bool] = field(default_factory=dict)
    engine: Mapping[str, str | int | bool] = field(default_factory=dict)
    plan: str = ""
    answers: str = ""

    def __post_init__(self) -> None:
        require_sha256(dataset_sha256=self.dataset_sha256, **({"plan": self.plan} if self.plan else {}))

    def difference(self, other: Identity) -> str:
        """Return the first field that differs, with both values; empty for equal ones."""
        mine, theirs = flat(to_json(self)), flat(to_json(other))
        for name in sorted({*mine, *theirs}):
            if mine.get(name) != theirs.get(name):
                return f"{name} is {theirs.get(name)!r}, not {mine.get(name)!r}"
        return ""


@dataclass(frozen=True)
class RunMeta:
    """RUNS/<run>.meta.json: it exists only when every row does. predictions_sha256: of RUNS/<run>.jsonl."""

    identity: Identity
    items: int
    predictions_sha256: str
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        require_sha256(predictions_sha256=self.predictions_sha256)


@dataclass(frozen=True)
class Run:
    """A complete run as read from disk."""

    meta: RunMeta
    predictions: tuple[Prediction, ...]
    items_per_second: float | None = None

    @property
    def name(self) -> str:
        """The run's name: that of its files."""
        return self.meta.identity.run


class RunFiles:
    """The paths of one run in a folder."""

    def __init__(self, folder: Path, run: str) -> None:
        if not _RUN_NAME.fullmatch(run):
            raise PredictionError(f"{run!r} is no name for a run; use letters, digits, '_', '-', '+' and '.'")
        self.run = run
        self.rows = folder / f"{run}.jsonl"
        self.meta = folder / f"{run}.meta.json"
        self.part = folder / f"{run}.jsonl.part"
        self.started = folder / f"{run}.started.json"
        self.speed = folder / f"{run}.speed.jsonl"


def read_meta(folder: Path, run: str) -> RunMeta | None:
    """Return the meta of a complete run, None where it is absent or incomplete."""
    path = RunFiles(folder, run).meta
    if not path.is_file():
        return None
    try:
        return from_json(RunMeta, parse(path.read_bytes(), path.name), path.name)
    except FormError as error:
        raise PredictionError(
            f"{path} cannot be read ({error}); if infimed evaluate wrote it, remove the run's files and evaluate "
            "again, else move it out of the folder"
        ) from None


def complete_runs(folder: Path) -> tuple[str, ...]:
    """Return the names of all complete runs of a folder, sorted. Raises PredictionError for a meta file of no run."""
    names = sorted(path.name.removesuffix(".meta.json") for path in folder.glob("*.meta.json"))
    for name in names:
        if not _RUN_NAME.fullmatch(name):
            raise PredictionError(
                f"{folder / name}.meta.json is no run's: runs have no such names; move it out of the folder"
            )
    return tuple(names)


def unfinished_runs(folder: Path) -> dict[str, int]:
    """Return the runs of a folder that were begun and have no meta file yet, with the number of their rows."""
    found: dict[str, int] = {}
    for suffix in (".started.json", ".jsonl.part"):
        for name in (path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")):
            if _RUN_NAME.fullmatch(name) and not (files := RunFiles(folder, name)).meta.exists():
                found[name] = max(_count_lines(files.part), _count_lines(files.rows))
    return dict(sorted(found.items()))


def begun_identities(folder: Path) -> tuple[Identity, ...]:
    """Return what the unfinished runs of a folder say they are; one whose file cannot be read says nothing."""
    found = []
    for name in unfinished_runs(folder):
        path = RunFiles(folder, name).started
        try:
            found.append(from_json(Identity, parse(path.read_bytes(), path.name), path.name))
        except (OSError, FormError):
            continue  # it has no verdict, and infimed evaluate refuses to go on with it
    return tuple(found)


def _count_lines(path: Path) -> int:
    """Return how many whole lines a file has; none where it is absent, or went while its run was finished."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def read_run(folder: Path, run: str) -> Run:
    """Return a complete run. Raises PredictionError if it is absent, incomplete, or changed after it was written."""
    files = RunFiles(folder, run)
    meta = read_meta(folder, run)
    if meta is None:
        state = "is not complete" if files.part.is_file() or files.started.is_file() else "does not exist"
        raise PredictionError(f"run {run!r} {state} in {folder}; make it with infimed evaluate")
    if meta.schema != SCHEMA:
        raise PredictionError(f"{files.meta} has schema {meta.schema!r}, not {SCHEMA!r}; evaluate again")
    if meta.identity.run != run:
        raise PredictionError(
            f"{files.meta} is of the run {meta.identity.run!r}: files were copied or renamed; remove the copy's files "
            f"and evaluate {run!r} itself"
        )
    if not files.rows.is_file() or sha256_file(files.rows) != meta.predictions_sha256:
        raise PredictionError(f"{files.rows} is missing or changed after it was written; evaluate again")
    rows = read_rows(files.rows)
    ids = {row.example_id for row in rows}
    if len(rows) != meta.items or len(ids) != len(rows):
        raise PredictionError(f"{files.rows} holds {len(ids)} different items, its meta says {meta.items}")
    return Run(meta, rows, _read_speed(files.speed))


def read_rows(path: Path) -> tuple[Prediction, ...]:
    """Return every row of a predictions file. Raises PredictionError naming the line that is none."""
    return rows_of(path.read_bytes(), str(path))


def rows_of(data: bytes, where: str) -> tuple[Prediction, ...]:
    """Return every row in a predictions file's bytes. where: names it in the PredictionError of a line that is none."""
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line:
            try:
                rows.append(from_json(Prediction, parse(line, "row"), "row"))
            except FormError as error:
                raise PredictionError(f"{where}:{number}: {error}; evaluate again") from None
    return tuple(rows)


def _read_speed(path: Path) -> float | None:
    """Return rows per second over the sessions that ended well enough to say so."""
    if not path.is_file():
        return None
    rows, seconds = 0, 0.0
    for line in path.read_bytes().splitlines():
        try:
            session = parse(line)
            rows, seconds = rows + int(session["rows"]), seconds + float(session["seconds"])
        except (FormError, ValueError, KeyError, TypeError):
            continue  # a torn line of a log beside the data
    return rows / seconds if seconds > 0 else None


def items_digest(predictions: Sequence[Prediction]) -> str:
    """Return one sha256 over the items of a run: equal for runs over the same questions, whatever was answered."""
    digest = hashlib.sha256()
    for row in sorted(predictions, key=lambda item: item.example_id):
        parts = (row.example_id, row.group, row.modality, row.task, row.wording, row.answer, *row.options)
        digest.update((json.dumps(parts, ensure_ascii=False) + "\n").encode())
    return digest.hexdigest()
