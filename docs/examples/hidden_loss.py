"""A level that lost 15 points in one modality of ten: a ratio of accuracies passes it, infimed fails it.

    python docs/examples/hidden_loss.py [--out FOLDER]

Needs no data and no model: the answers are planted, in the very files that `infimed evaluate` writes, and judged by the
code of `infimed drift`. --out keeps the runs and the report. docs/examples/hidden_loss.md says what comes out and why.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infimed.evaluation.drift import drift
from infimed.evaluation.drift_outcome import outcome
from infimed.evaluation.drift_report import DriftReport
from infimed.evaluation.example import YES_NO, Example, ImageRef, TextRef
from infimed.evaluation.journal import Journal
from infimed.evaluation.prediction import Identity, Prediction, Subject
from infimed.evaluation.report import write_report
from infimed.evaluation.report_text import percent, points

MODALITIES = (
    "xray", "ct", "mri", "ultrasound", "fundus", "oct", "dermoscopy", "endoscopy", "histopathology", "microscopy"
)  # fmt: skip
LOST_IN, LOST_POINTS = "fundus", 15
QUESTIONS, PER_PATIENT = 300, 2  # of each modality
REFERENCE, LEVEL = "gguf-f16", "gguf-q4_k_m"
RIGHT, BLIND = 0.85, 0.55  # the reference's accuracy with the image, and without looking
NOISE = 3  # answers that turn wrong, and as many that turn right, in each other modality
RATIO = 0.98  # the usual rule: at least 98 % of the reference's accuracy is "recovered"


def questions() -> list[Example]:
    """Return yes/no questions, as many of each modality, two of a patient, half of them answered with yes."""
    found = []
    for modality in MODALITIES:
        for index in range(QUESTIONS):
            patient = f"{modality}-{index // PER_PATIENT}"
            sha256 = hashlib.sha256(patient.encode()).hexdigest()
            found.append(
                Example(
                    id=f"{modality}-{index:03d}",
                    content=(
                        ImageRef(f"images/{sha256[:16]}.png", sha256),
                        TextRef("Is there a lesion?" if index % PER_PATIENT else "Is the finding on the left?"),
                    ),
                    answer=YES_NO[index // PER_PATIENT % 2],
                    options=YES_NO,
                    answer_type="yesno",
                    modality=modality,
                    task="finding",
                    source="planted",
                    license="CC0-1.0",
                    group=patient,
                    role="test",
                )
            )
    return found


def outcomes() -> tuple[np.ndarray, np.ndarray]:
    """Return which answers of the reference and of the level are right, (questions,) each."""
    draw = np.random.default_rng(0)
    before, after = [], []
    for modality in MODALITIES:
        right = draw.permutation(np.arange(QUESTIONS) < round(RIGHT * QUESTIONS))
        harmful, healing = (LOST_POINTS * QUESTIONS // 100, 0) if modality == LOST_IN else (NOISE, NOISE)
        level = right.copy()
        level[draw.permutation(np.flatnonzero(right))[:harmful]] = False
        level[draw.permutation(np.flatnonzero(~right))[:healing]] = True
        before.append(right)
        after.append(level)
    return np.concatenate(before), np.concatenate(after)


def write_run(folder: Path, run: str, examples: Sequence[Example], right: np.ndarray, weight_bytes: int = 0) -> None:
    """Write the files of one run, as `infimed evaluate` does."""
    kind, image = ("prior", "none") if run == "prior" else ("bundle", "grey" if run.endswith(".grey") else "own")
    level = run.removesuffix(".grey")
    subject = Subject(kind, level, hashlib.sha256(level.encode()).hexdigest(), weight_bytes)  # type: ignore[arg-type]
    dataset = hashlib.sha256(b"planted").hexdigest()
    sure = np.random.default_rng(1).uniform(0.6, 0.98, len(examples))
    with Journal(
        folder, Identity(run, subject, image, "planted", dataset, "test"), [one.id for one in examples]
    ) as kept:  # type: ignore[arg-type]
        for example, correct, confidence in zip(examples, right, sure, strict=True):
            choice = example.answer if correct else YES_NO[1 - YES_NO.index(example.answer)]
            shares = [float(confidence if option == choice else 1 - confidence) for option in YES_NO]
            row = Prediction.of(
                example, correct=bool(correct), score=float(correct), option_logprobs_nats=np.log(shares).tolist(),
                option_tokens=(1, 1), choice=choice, probabilities=shares,
            )  # fmt: skip
            kept.append(row, 0.0)
        kept.finish()


def judge(folder: Path) -> DriftReport:
    """Plant the runs, write the report and return it."""
    examples, (before, after) = questions(), outcomes()
    blind = np.random.default_rng(2).random(len(examples)) < BLIND
    write_run(folder / "runs", REFERENCE, examples, before, 4_000_000)
    write_run(folder / "runs", LEVEL, examples, after, 1_200_000)
    write_run(folder / "runs", f"{REFERENCE}.grey", examples, blind)
    write_run(folder / "runs", "prior", examples, ~blind)
    report = drift(folder / "runs", REFERENCE)
    write_report(report, folder / "report")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the rule of the ratio says, and what infimed says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keep the runs and the report in this folder")
    out = parser.parse_args(arguments).out
    with tempfile.TemporaryDirectory() as scratch:
        report = judge(out or Path(scratch))
    found = report.levels[0].overall
    ratio = found.level.value / found.reference.value
    ruled = "passes" if ratio >= RATIO else "fails"
    print(f"{REFERENCE} {percent(found.reference.value)}, {LEVEL} {percent(found.level.value)} of {found.items:,}")
    print(f"ratio of accuracies: {percent(ratio)}, the rule asks for {percent(RATIO)}: {ruled}")
    print(f"infimed: {outcome(report)}")
    for one in (found, *report.levels[0].cells):
        where = f"{one.modality} \u00d7 {one.task}" if one.modality else "all questions"
        named = ", named worse than the margin" if one.named_worse else ""
        print(f"  {where:24} {one.verdict:18} {points(one.delta)} [{points(one.lower)}, {points(one.upper)}]{named}")
    if out:
        print(f"report: {out / 'report' / 'drift.html'}")


if __name__ == "__main__":
    main()
