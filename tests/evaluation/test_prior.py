"""The text-only prior: the majority answer by wording and options, and what it falls back to."""

from __future__ import annotations

from pathlib import Path

import pytest

from infimed.evaluation.dataset import write_dataset
from infimed.evaluation.example import Example, TextRef
from infimed.evaluation.prediction import read_run
from infimed.evaluation.prior import PriorError, fit, predict_prior


def asked(question, answer, options=(), *, task="finding", key="", role="train"):  # type: ignore[no-untyped-def]
    kind = "open" if not options else "yesno" if options == ("yes", "no") else "choice"
    return Example(
        id=key or f"{role}-{question}-{answer}-{asked.count}", content=(TextRef(question),), answer=answer,
        options=options, answer_type=kind, modality="ct", task=task, source="made", license="CC0-1.0",
        group=f"group-{role}-{asked.count}", role=role,
    )  # fmt: skip


asked.count = 0  # type: ignore[attr-defined]
LMR = ("left", "middle", "right")


def many(number: int, *arguments, **named):  # type: ignore[no-untyped-def]
    rows = []
    for _ in range(number):
        asked.count += 1  # type: ignore[attr-defined]
        rows.append(asked(*arguments, **named))
    return rows


TRAINING = [
    *many(3, "Which side?", "right", LMR),
    *many(2, "Which side?", "left", LMR),
    *many(5, "Which side?", "left", ("left", "right"), task="laterality"),
    *many(4, "Is it broken?", "no", ("yes", "no")),
    *many(1, "Is it broken?", "yes", ("yes", "no")),
    *many(2, "What is seen?", "Effusion"),
    *many(1, "What is seen?", "a mass"),
    *many(9, "Which organ?", "liver", ("liver", "spleen"), task="anatomy"),
]


@pytest.mark.parametrize(
    ("question", "options", "task", "answer"),
    [
        ("Which side?", LMR, "finding", "right"),  # the wording with these options, not the wording alone
        ("which SIDE", ("right", "left", "middle"), "finding", "right"),  # another order is no other question
        ("Which side?", ("left", "right"), "finding", "left"),
        ("Which side?", ("left", "right", "both"), "finding", "left"),  # the wording, among what is offered
        ("On which side is it?", LMR, "finding", "right"),  # the task with these options
        ("On which side is it?", ("up", "left"), "laterality", "left"),  # the task, among what is offered
        ("Which one?", ("kidney", "spleen", "liver"), "location", "liver"),  # anything, among what is offered
        ("Which one?", ("kidney", "lung"), "location", "kidney"),  # nothing known: the first
        ("Is there air?", ("yes", "no"), "finding", "no"),
        ("What is seen?", (), "finding", "effusion"),
        ("What now?", (), "finding", "effusion"),
        ("What now?", (), "count", "effusion"),
    ],
)
def test_the_majority_answer_and_its_way_back(question, options, task, answer) -> None:  # type: ignore[no-untyped-def]
    key = options[0] if options else "mass"
    assert fit(TRAINING).answer(asked(question, key, options, task=task)) == answer


def test_an_answer_not_offered_is_never_given_and_ties_go_to_the_first_option() -> None:
    prior = fit([*many(3, "Q?", "middle", LMR), *many(1, "Q?", "left", LMR), *many(1, "Q?", "right", LMR)])
    assert prior.answer(asked("Q?", "right", ("right", "left"))) == "right"
    assert prior.answer(asked("Q?", "right", ("left", "right"))) == "left"


def test_the_prior_is_fitted_on_the_train_role_alone_and_written_as_a_run(tmp_path: Path) -> None:
    test = [
        *many(4, "Which side?", "left", LMR, role="test"),
        *many(6, "Which side?", "right", LMR, role="test"),
        *many(3, "What is seen?", "the effusion", role="test"),
    ]
    dataset = write_dataset(tmp_path / "set", [*TRAINING, *test], {}, name="made")
    meta = predict_prior(dataset, dataset, tmp_path / "runs")
    run = read_run(tmp_path / "runs", "prior")
    assert (meta.items, meta.identity.image, meta.identity.subject.kind) == (13, "none", "prior")
    assert meta.identity.subject.digest == dataset.sha256
    assert run.items_per_second is None
    by_answer = {row.answer: row for row in run.predictions}
    assert by_answer["right"].choice == by_answer["left"].choice == "right"  # not the test role's majority for left
    assert by_answer["right"].correct and not by_answer["left"].correct
    assert by_answer["right"].probabilities == pytest.approx((3 / 8, 1 / 8, 4 / 8))
    assert by_answer["the effusion"].correct and by_answer["the effusion"].extracted == "effusion"


def test_a_training_set_without_a_train_role_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", many(2, "Q?", "left", LMR, role="test"), {}, name="made")
    with pytest.raises(PriorError, match="no example in the role 'train'"):
        predict_prior(dataset, dataset, tmp_path / "runs")
