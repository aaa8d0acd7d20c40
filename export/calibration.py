"""Takes prompts for export from a dataset's calibration rows, and from no others.

A row marked test must never shape a level, nor the prompts it is accepted by. Knows datasets and probes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from .. import InfimedError
from ..evaluation.dataset import Dataset
from ..evaluation.prompting import messages_for
from ..runtime.messages import ImagePart
from .probes import Probe


class CalibrationError(InfimedError):
    """The dataset offers no row that export may use."""


def calibration_probes(folder: Path, count: int, seed: int = 0) -> tuple[Probe, ...]:
    """Return up to `count` prompts of a dataset's calibration rows, drawn without replacement by `seed`.

    Raises CalibrationError if the dataset marks no row "calibration": other rows, test above all, are refused.
    """
    dataset = Dataset.open(folder)
    rows = [example for example in dataset.examples if example.role == "calibration"]
    if not rows:
        roles = ", ".join(f"{number} {role or 'without a role'}" for role, number in sorted(_roles(dataset).items()))
        raise CalibrationError(
            f"{folder} marks no row calibration ({roles}); export takes no other: divide it with infimed data curate"
        )
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    probes = []
    for index in sorted(order.tolist()):
        example = rows[index]
        images = [ImagePart(dataset.image(reference)) for reference in example.images]
        probes.append(Probe(f"calibration-{example.id}", "calibration", messages_for(example, images)))
    return tuple(probes)


def _roles(dataset: Dataset) -> Counter[str]:
    return Counter(example.role for example in dataset.examples)
