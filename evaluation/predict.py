"""Asks an engine every question of a dataset and writes the predictions, an image's questions one after another.

Sees the engine only through its protocol. The order of the rows is the dataset's, with the questions of one image
drawn together at its first one: the engine encodes an image once and the order depends on nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import InfimedError
from ..runtime.engine import Engine, Sampling
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.likelihood import Likelihood, log_shares, option_values
from ..runtime.messages import ImagePart, Message
from .answer_tokens import AnswerRule
from .dataset import Dataset
from .example import Content, Example
from .journal import Journal
from .prediction import Identity, ImageKind, Prediction, RunMeta, Subject
from .prompting import messages_for
from .scoring import score_choice, score_reply

GREY = 128
GREY_SUFFIX = ".grey"


class EvaluateError(InfimedError):
    """Nothing to evaluate, or an example that this engine cannot be asked."""


@dataclass(frozen=True)
class Asking:
    """How questions are put. Everything here changes the rows, so a run is only gone on with under equal settings.

    grey: every image becomes mid grey of its own size. generate_all: generate a reply for choices and yes/no too.
    likelihood: how an option's log-likelihood is normalised before options are compared. answers: what is done with the
    reference's reply, nothing by default.
    """

    grey: bool = False
    generate_all: bool = False
    max_tokens: int = 48
    likelihood: Likelihood = "per token"
    answers: AnswerRule | None = None

    def settings(self) -> dict[str, str | int | bool]:
        """Return the settings as the run's identity keeps them."""
        return {"generate_all": self.generate_all, "max_tokens": self.max_tokens, "likelihood": self.likelihood}


def identity_of(
    dataset: Dataset,
    run: str,
    subject: Subject,
    role: str,
    asking: Asking = Asking(),
    computed_by: Mapping[str, str | int | bool] | None = None,
    plan: str = "",
) -> Identity:
    """Return what makes this run itself; a grey run's name ends in ".grey"."""
    name = f"{run}{GREY_SUFFIX}" if asking.grey else run
    image: ImageKind = "grey" if asking.grey else "own"
    settings = asking.settings()
    mark = asking.answers.mark if asking.answers else ""
    return Identity(name, subject, image, dataset.label, dataset.sha256, role, settings, computed_by or {}, plan, mark)


def by_image(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Return the examples in the order they are asked: what is shown before the question stands together."""
    groups: dict[tuple[Content, ...], list[Example]] = {}
    for example in examples:
        groups.setdefault(example.content[:-1], []).append(example)
    return tuple(example for group in groups.values() for example in group)


def predict(
    engine: Engine | Callable[[], Engine],
    dataset: Dataset,
    out: Path,
    run: str,
    *,
    subject: Subject,
    role: str = "test",
    asking: Asking = Asking(),
    computed_by: Mapping[str, str | int | bool] | None = None,
    plan: str = "",
    on_event: OnEvent = ignore,
) -> RunMeta:
    """Predict every example of a role and write RUNS/<run>.jsonl; rows that are there already are kept.

    engine: an engine, or what opens one (called only when there is something left to ask; the opened one is closed).
    computed_by: the engine's library, version and device by name, which a resumed run must share. plan: the sha256 of
    the plan that it is made under; it stands in the run's files before the first answer.
    Returns the meta of the complete run.
    """
    identity = identity_of(dataset, run, subject, role, asking, computed_by, plan)
    examples = by_image(dataset.in_role(role))
    if not examples:
        raise EvaluateError(f"{dataset.folder} has no example in the role {role!r}; divide it with infimed data curate")
    stage = f"evaluate {identity.run}"
    with Journal(out, identity, [example.id for example in examples]) as journal:
        on_event(Event(stage, journal.done, len(examples), "questions", "resumed" if journal.done else ""))
        if journal.done < len(examples):
            opened = engine() if callable(engine) else engine
            try:
                right = 0
                for count, row, seconds in _ask_all(opened, dataset, examples[journal.done :], asking):
                    journal.append(row, seconds)
                    right += row.correct
                    figures = {"accuracy": right / count}
                    on_event(Event(stage, journal.done, len(examples), "questions", figures=figures))
            finally:
                if callable(engine):
                    opened.close()
        return journal.finish()


def _ask_all(
    engine: Engine, dataset: Dataset, examples: Sequence[Example], asking: Asking
) -> Iterator[tuple[int, Prediction, float]]:
    """Yield (how many, row, seconds) for each example; the images of one group are read once."""
    shown: tuple[Content, ...] | None = None
    images: tuple[ImagePart, ...] = ()
    for count, example in enumerate(examples, 1):
        began_s = time.perf_counter()
        if example.content[:-1] != shown:
            shown = example.content[:-1]
            images = tuple(
                ImagePart(np.full_like(rgb, GREY) if asking.grey else rgb) for rgb in dataset.images(example)
            )
        row = ask(engine, example, messages_for(example, images), asking)
        yield count, row, time.perf_counter() - began_s


def ask(engine: Engine, example: Example, messages: tuple[Message, ...], asking: Asking = Asking()) -> Prediction:
    """Return one prediction: options by likelihood, open questions by greedy generation."""
    closed = bool(example.options)
    scores = engine.score(messages, example.options) if closed else None
    for option in scores.options if scores else ():
        if not math.isfinite(option.logprob_nats):
            raise EvaluateError(
                f"{engine.level} gives the option {option.option!r} of example {example.id!r} the log-likelihood "
                f"{option.logprob_nats}: its numbers overflow or its files are damaged; check it with infimed verify "
                "--parity, or export the level again"
            )
    completion = generated = extracted = None
    correct, value = False, 0.0
    if asking.generate_all or not closed:
        completion = engine.generate(messages, Sampling(max_tokens=asking.max_tokens))
        generated = completion.text
        reply = score_reply(
            generated, example.answer,
            answer_type=example.answer_type, options=example.options, aliases=example.aliases,
            question=example.question,
        )  # fmt: skip
        extracted, correct, value = reply.extraction.answer, reply.correct, reply.value
    choice, shares = None, []
    if scores:
        values = option_values(
            [option.logprob_nats for option in scores.options], [option.tokens for option in scores.options],
            example.options, asking.likelihood,
        )  # fmt: skip
        choice, shares = example.options[int(values.argmax())], np.exp(log_shares(values)).tolist()
    if choice is not None:
        correct = score_choice(choice, example.answer)
        value = float(correct)
    kept = forced = None
    if asking.answers:
        kept, forced = asking.answers.take(engine, example.id, messages, completion, asking.max_tokens)
    return Prediction.of(
        example,
        option_logprobs_nats=[option.logprob_nats for option in scores.options] if scores else (),
        option_tokens=[option.tokens for option in scores.options] if scores else (),
        choice=choice,
        probabilities=shares,
        generated=generated,
        extracted=extracted,
        correct=correct,
        score=value,
        kept=kept,
        forced=forced,
    )
