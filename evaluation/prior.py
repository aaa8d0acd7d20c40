"""The text-only prior: what can be answered without looking, from the answers of a training set.

The majority answer per question wording and options. For a wording never seen with these options it backs off, each
time to the most frequent answer among those offered: by wording, task and options, task, all; then the first option.
Knows no image and no engine.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .. import InfimedError
from .dataset import Dataset
from .example import Example
from .journal import Journal
from .predict import EvaluateError, by_image
from .prediction import Identity, Prediction, RunMeta, Subject
from .scoring import best_overlap, exact_match, normalise, score_choice

PRIOR = "prior"


class PriorError(InfimedError):
    """A training set from which no prior can be fitted."""


@dataclass
class Prior:
    """Counts of training answers under each key; see `fit`."""

    counts: dict[tuple[Hashable, ...], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def ranking(self, example: Example) -> Counter[str]:
        """Return the counts that decide for an example: of the first key that has seen an answer it may give."""
        for key in _keys(example):
            seen = self.counts.get(key, Counter())
            offered = Counter(
                {option: seen[normalise(option)] for option in example.options if seen[normalise(option)]}
            )
            if not example.options:
                offered = seen
            if offered:
                return offered
        return Counter(example.options[:1])

    def answer(self, example: Example) -> str:
        """Return the most frequent answer; of equals the first option, or the first in the alphabet."""
        ranked = self.ranking(example)
        order = {option: index for index, option in enumerate(example.options)}
        return min(ranked, key=lambda text: (-ranked[text], order.get(text, len(order)), text), default="")


def fit(examples: Iterable[Example]) -> Prior:
    """Count the answers of training examples under every key of the back-off."""
    prior = Prior()
    for example in examples:
        for key in _keys(example):
            prior.counts[key][normalise(example.answer)] += 1
    return prior


def _keys(example: Example) -> tuple[tuple[Hashable, ...], ...]:
    wording = normalise(example.question)
    options = frozenset(normalise(option) for option in example.options)
    kind = example.answer_type
    return (
        (kind, "wording and options", wording, options),
        (kind, "wording", wording),
        (kind, "task and options", example.task, options),
        (kind, "task", example.task),
        (kind, "all"),
    )


def predict_prior(training: Dataset, dataset: Dataset, out: Path, *, role: str = "test", plan: str = "") -> RunMeta:
    """Fit the prior on the train role of one dataset and write RUNS/prior.jsonl for a role of another (or the same).

    plan: the sha256 of the plan that it is made under.
    """
    fitted_on = training.in_role("train")
    if not fitted_on:
        raise PriorError(
            f"{training.folder} has no example in the role 'train'; the text-only prior is fitted on those"
        )
    examples = by_image(dataset.in_role(role))
    if not examples:
        raise EvaluateError(f"{dataset.folder} has no example in the role {role!r}; divide it with infimed data curate")
    prior = fit(fitted_on)
    subject = Subject("prior", PRIOR, training.sha256, 0)
    identity = Identity(PRIOR, subject, "none", dataset.label, dataset.sha256, role, plan=plan)
    with Journal(out, identity, [example.id for example in examples]) as journal:
        for example in examples[journal.done :]:
            journal.append(_row(prior, example), 0.0)
        return journal.finish()


def _row(prior: Prior, example: Example) -> Prediction:
    answer = prior.answer(example)
    ranked = prior.ranking(example)
    weights = [ranked[option] + 1 for option in example.options]  # one more each: no option is impossible
    shares = tuple(weight / sum(weights) for weight in weights)
    answers = (example.answer, *example.aliases)
    correct = score_choice(answer, example.answer) if example.options else exact_match(answer, answers)
    return Prediction.of(
        example,
        option_logprobs_nats=tuple(math.log(share) for share in shares),
        option_tokens=(1,) * len(shares),
        choice=answer if example.options else None,
        probabilities=shares,
        generated=None if example.options else answer,
        extracted=None if example.options else (answer or None),
        correct=correct,
        score=float(correct) if example.options else best_overlap(answer, answers).f1,
    )
