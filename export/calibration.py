"""Takes rows for export from a dataset's calibration rows, and from no others: as golden prompts, or to calibrate by.

A row marked test must never shape a level, nor the prompts it is accepted by. Knows datasets and probes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import InfimedError
from ..evaluation.dataset import Dataset
from ..evaluation.example import Example
from ..evaluation.prompting import messages_for, target_for
from ..runtime.messages import ImagePart, Message, assistant
from .probes import Probe


class CalibrationError(InfimedError):
    """The dataset offers no row that export may use, or the model cannot take one."""


@dataclass(frozen=True)
class CalibrationRow:
    """A row to calibrate by. weight: its share of the mean; those of all rows sum to 1."""

    example: Example
    weight: float


def calibration_probes(dataset: Dataset, count: int, seed: int = 0) -> tuple[Probe, ...]:
    """Return up to `count` prompts of a dataset's calibration rows, drawn without replacement by `seed`.

    Raises CalibrationError if the dataset marks no row "calibration": other rows, test above all, are refused.
    """
    rows = _rows(dataset)
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    probes = []
    for index in sorted(order.tolist()):
        example = rows[index]
        images = [ImagePart(dataset.image(reference)) for reference in example.images]
        probes.append(Probe(f"calibration-{example.id}", "calibration", messages_for(example, images)))
    return tuple(probes)


def calibration_rows(dataset: Dataset) -> tuple[CalibrationRow, ...]:
    """Return the dataset's calibration rows in their order, weighted so that every cell of them counts alike.

    A row of a cell (modality x task) with n rows, of C cells, weighs 1 / (C n). Raises CalibrationError as above.
    """
    rows = _rows(dataset)
    of_cell = Counter(example.cell for example in rows)
    return tuple(CalibrationRow(example, 1 / (len(of_cell) * of_cell[example.cell])) for example in rows)


def rows_sha256(rows: Sequence[CalibrationRow]) -> str:
    """Return the sha256 of the rows, which name their images by hash: that of the lines they are stored as."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update((json.dumps(row.example.to_json(), sort_keys=True, ensure_ascii=False) + "\n").encode())
    return digest.hexdigest()


def answered(dataset: Dataset, example: Example, images: bool = True) -> tuple[Message, ...]:
    """Return the question and, as the assistant's reply, the answer: what a model computes while it answers counts.

    images: False leaves the images out, and nothing else.
    """
    shown = [ImagePart(dataset.image(reference)) for reference in example.images]
    asked = messages_for(example, shown)
    if not images:
        asked = tuple(
            Message(message.role, tuple(part for part in message.parts if not isinstance(part, ImagePart)))
            for message in asked
        )
    return (*asked, assistant(target_for(example)))


def _rows(dataset: Dataset) -> tuple[Example, ...]:
    rows = dataset.in_role("calibration")
    if not rows:
        counts = Counter(example.role for example in dataset.examples)
        roles = ", ".join(f"{number} {role or 'without a role'}" for role, number in sorted(counts.items()))
        raise CalibrationError(
            f"{dataset.folder} marks no row calibration ({roles}); export takes no other: divide it with infimed data "
            "curate"
        )
    return rows
