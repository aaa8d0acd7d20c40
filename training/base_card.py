"""Measures a base model on phantoms it never saw and writes its card: accuracy per task x modality, priors, digests.

Every figure comes from predictions made as in any evaluation; none is written by hand. Knows no training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .. import CheckFailed, InfimedError
from ..evaluation.dataset import Dataset
from ..evaluation.example import ANSWER_TYPES, JSON
from ..evaluation.intervals import Interval, wilson
from ..evaluation.phantom_images import KINDS
from ..evaluation.phantom_questions import TASKS
from ..evaluation.phantoms import write_phantoms
from ..evaluation.predict import GREY_SUFFIX, Asking, predict
from ..evaluation.prediction import Prediction, read_run
from ..evaluation.prior import PRIOR, predict_prior
from ..runtime.events import OnEvent, ignore
from ..runtime.files import write_bytes
from .checkpoint import Checkpoint
from .provenance import PROVENANCE_FILE
from .targets import torch_target

LOOKED_AT = ("finding", "laterality", "count", "size")  # tasks that nobody can answer without looking
LEAST_MEAN = 0.90
Key = TypeVar("Key")


class BaseModelTooWeak(CheckFailed):
    """A base model that does not reach what is asked of it."""


class StaleRuns(InfimedError):
    """A folder of runs that was made for other phantoms than are asked for now."""


@dataclass(frozen=True)
class Tally:
    """Right answers among items."""

    right: int
    items: int

    @property
    def value(self) -> float:
        return self.right / self.items if self.items else 0.0

    @property
    def interval(self) -> Interval:
        return wilson(self.right, self.items)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.interval.lower:.3f} to {self.interval.upper:.3f})"


@dataclass(frozen=True)
class Measured:
    """What was found. images: asked about. own, majority, grey: task -> share.

    cells: (task, modality) -> share. answer_types: (task, answer type) -> share.
    """

    checkpoint_sha256: str
    dataset_sha256: str
    seed: int
    images: int
    modalities: tuple[str, ...]
    cells: Mapping[tuple[str, str], Tally]
    answer_types: Mapping[tuple[str, str], Tally]
    own: Mapping[str, Tally]
    majority: Mapping[str, Tally]
    grey: Mapping[str, Tally]

    @property
    def mean(self) -> float:
        """The mean of the cells' accuracies."""
        return sum(share.value for share in self.cells.values()) / len(self.cells)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is asked of a base model and not reached; empty for a good one."""
        found = [] if self.mean >= LEAST_MEAN else [f"mean over task x modality {self.mean:.3f}, below {LEAST_MEAN}"]
        for task in LOOKED_AT:
            prior = max(self.majority[task].interval.upper, self.grey[task].interval.upper)
            if self.own[task].interval.lower <= prior:
                found.append(f"{task} {self.own[task]} is not clear of the text-only prior, which reaches {prior:.3f}")
        return tuple(found)


def measure(
    checkpoint: Path, runs: Path, modalities: Sequence[str], *, images: int, seed: int, threads: int = 1,
    on_event: OnEvent = ignore,
) -> Measured:  # fmt: skip
    """Ask the checkpoint, and the same model of grey images, about unseen phantoms; fit the prior on the other half.

    runs: keeps the dataset and the predictions, so that a broken measurement goes on. images: half of them fit the
    prior, half are asked about.
    """
    folder = runs / "phantoms"
    if not folder.is_dir():
        write_phantoms(folder, images, seed, modalities, roles={"train": 0.5, "test": 0.5})
    dataset = Dataset.open(folder)
    asked: dict[str, JSON] = {"seed": seed, "images": images, "modalities": list(modalities)}
    held = {name: dataset.manifest.details.get(name) for name in asked}
    if held != asked:
        raise StaleRuns(
            f"{folder} holds phantoms of {_listed(held)}; asked for are {_listed(asked)}: name other --runs"
        )
    target = torch_target(checkpoint, threads)
    predict_prior(dataset, dataset, runs)
    for grey in (False, True):
        predict(
            target.open, dataset, runs, target.run,
            subject=target.subject, asking=Asking(grey=grey), computed_by=target.computed_by, on_event=on_event,
        )  # fmt: skip
    own = read_run(runs, target.run).predictions
    return Measured(
        target.subject.digest,
        dataset.sha256,
        seed,
        len({row.group for row in own}),
        tuple(modalities),
        _shares(own, lambda row: (row.task, row.modality)),
        _shares(own, lambda row: (row.task, row.answer_type)),
        _shares(own, lambda row: row.task),
        _shares(read_run(runs, PRIOR).predictions, lambda row: row.task),
        _shares(read_run(runs, target.run + GREY_SUFFIX).predictions, lambda row: row.task),
    )


def _listed(facts: Mapping[str, JSON]) -> str:
    told = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in facts.items()}
    return "; ".join(f"{name} {value}" for name, value in told.items())


def _shares(rows: Iterable[Prediction], key: Callable[[Prediction], Key]) -> dict[Key, Tally]:
    found: dict[Key, list[bool]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row.correct)
    return {name: Tally(sum(right), len(right)) for name, right in found.items()}


def card_text(measured: Measured, checkpoint: Checkpoint) -> str:
    """Return the card in Markdown."""
    provenance = checkpoint.provenance
    made = "" if provenance is None else f"recipe sha256 `{provenance.recipe_sha256}`, seed {provenance.seed}; "
    numbers = sum(math.prod(spec.shape) for spec in checkpoint.tensors.values())
    weights = sum(path.stat().st_size for path in checkpoint.files)
    lines = [
        "# The embedded base model",
        "",
        "A tiny Qwen2.5-VL trained from nothing on procedural phantoms (evaluation/phantom_images.py). It knows",
        "phantoms and nothing of medicine: **not a medical device**, not for any use on patients. Written by",
        "`infimed train card`; every figure is measured.",
        "",
        f"- made by `infimed train base` from recipe.toml: {made}losses in log.csv, libraries in {PROVENANCE_FILE}",
        f"- {numbers:,} parameters, {weights:,} bytes with all settings files",
        f"- checkpoint sha256 `{measured.checkpoint_sha256}`",
        f"- measured on {measured.images:,} unseen phantoms of seed {measured.seed}, dataset sha256",
        f"  `{measured.dataset_sha256}`",
        f"- left out of its training: {_left_out(measured)}",
        f"- yes/no questions that it only guesses: {_guessed(measured)}",
        "- licence of weights and phantoms: Apache-2.0",
        "",
        f"## Accuracy: mean over task x modality {measured.mean:.3f}",
        "",
        "Choices and yes/no by likelihood, open questions by exact match of the greedy reply. In brackets 95 %",
        "intervals (Wilson, questions taken as independent). The text-only prior is the better of two: the majority",
        "answer per wording and options, fitted on as many other phantoms, and the same model given a grey image.",
        "",
        "| task | questions | base model | majority answer | grey image |",
        "|---|---|---|---|---|",
    ]
    for task in (name for name in TASKS if name in measured.own):
        own = measured.own[task]
        lines.append(f"| {task} | {own.items} | {own} | {measured.majority[task]} | {measured.grey[task]} |")
    lines += _table([task for task in TASKS if task in measured.own], measured.modalities, measured.cells)
    lines += _table([task for task in TASKS if task in measured.own], ANSWER_TYPES, measured.answer_types)
    return "\n".join(lines) + "\n"


def _guessed(measured: Measured) -> str:
    """Return the tasks whose yes/no questions are not clear of a coin's one half."""
    yes_no = {task: share for (task, kind), share in measured.answer_types.items() if kind == "yesno"}
    return ", ".join(f"{task} {share}" for task, share in yes_no.items() if share.interval.lower <= 0.5) or "none"


def _table(tasks: Sequence[str], columns: Sequence[str], shares: Mapping[tuple[str, str], Tally]) -> list[str]:
    """Return a table of shares, "none" where nothing was asked."""
    lines = ["", "| task | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for task in tasks:
        lines.append(f"| {task} | " + " | ".join(str(shares.get((task, column), "none")) for column in columns) + " |")
    return lines


def write_card(out: Path, checkpoint: Path, measured: Measured) -> None:
    """Write the card, and raise BaseModelTooWeak after it where the model does not reach what is asked of it."""
    write_bytes(out, card_text(measured, Checkpoint.open(checkpoint)).encode())
    if measured.faults:
        raise BaseModelTooWeak("the base model is too weak: " + "; ".join(measured.faults))


def _left_out(measured: Measured) -> str:
    left = [f"{name} ({kind.finding})" for name, kind in KINDS.items() if name not in measured.modalities]
    return ", ".join(left) or "nothing"
