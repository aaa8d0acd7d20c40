"""Makes runs with planted outcomes, in the very files that infimed evaluate writes. Knows no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from infimed.evaluation.journal import Journal
from infimed.evaluation.prediction import Identity, Prediction, RunMeta, Subject

OPTIONS = ("left", "right", "both", "none")


def items(cells: Mapping[tuple[str, str], int], per_group: int = 1) -> list[Prediction]:
    """Return unanswered rows: `cells` maps (modality, task) to a number of items."""
    rows = []
    for (modality, task), count in cells.items():
        for index in range(count):
            key = f"{modality}-{task}-{index:04d}"
            rows.append(
                Prediction(
                    example_id=key,
                    group=f"{modality}-{task}-{index // per_group}",
                    modality=modality,
                    task=task,
                    answer_type="choice",
                    images=1,
                    wording="Which side?",
                    answer="left",
                    options=OPTIONS,
                    option_logprobs_nats=(),
                    option_tokens=(1, 1, 1, 1),
                    choice=None,
                    probabilities=(),
                    generated=None,
                    extracted=None,
                    correct=False,
                    score=0.0,
                )
            )
    return rows


def answered(row: Prediction, right: bool, confidence: float = 0.7) -> Prediction:
    """Return the row answered with its key, or with another option."""
    rest = (1 - confidence) / 3
    shares = [rest] * 4
    shares[0 if right else 1] = confidence
    return Prediction(
        **{
            **vars(row),
            "choice": OPTIONS[0 if right else 1],
            "correct": bool(right),
            "score": float(right),
            "probabilities": tuple(shares),
            "option_logprobs_nats": tuple(float(np.log(share)) for share in shares),
        }
    )


def write_run(
    folder: Path,
    run: str,
    rows: Sequence[Prediction],
    right: Sequence[bool],
    *,
    dataset_sha256: str = "d" * 64,
    confidence: float = 0.7,
    weight_bytes: int = 1_000_000,
    seconds: float = 0.01,
    plan: str = "",
    level: str = "",
) -> RunMeta:
    """Write one run whose outcomes are `right`. level: of its subject, where the run's name is not its own."""
    kind = {"prior": "prior", "checkpoint": "checkpoint", "adapter": "adapter"}.get(run.removesuffix(".grey"), "bundle")
    image = "none" if kind == "prior" else "grey" if run.endswith(".grey") else "own"
    subject = Subject(kind, level or run.removesuffix(".grey"), "e" * 64, weight_bytes)  # type: ignore[arg-type]
    identity = Identity(run, subject, image, "planted", dataset_sha256, "test", plan=plan)  # type: ignore[arg-type]
    with Journal(folder, identity, [row.example_id for row in rows]) as journal:
        for row, correct in zip(rows, right, strict=True):
            journal.append(answered(row, bool(correct), confidence), seconds)
        return journal.finish()


def pattern(share: float, count: int, seed: int) -> np.ndarray:
    """Return exactly round(share * count) right answers in a seeded order."""
    flags = np.arange(count) < round(share * count)
    return np.random.default_rng(seed).permutation(flags)
