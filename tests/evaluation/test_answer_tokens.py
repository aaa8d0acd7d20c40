"""A reference's answer kept token by token: the measured divergence and its bound hold the divergence of whole rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from infimed.evaluation.answer_tokens import (
    ENTRIES,
    TAIL,
    AnswerError,
    KeepAnswers,
    KeptAnswer,
    Place,
    divergence,
    force_answer,
    keep_answer,
)
from infimed.evaluation.jsonform import FormError, from_json, parse, to_json
from infimed.runtime.distance import token_logprobs
from infimed.runtime.engine import Completion, TokenLogprobs

stats = pytest.importorskip("scipy.stats")


@dataclass
class Rows:
    """An engine whose rows of logits are given; it reduces them by the function that engines use."""

    rows: np.ndarray

    def continuation_logprobs(
        self, messages: object, continuation: Sequence[int], at: int | Sequence[Sequence[int]]
    ) -> tuple[TokenLogprobs, ...]:
        assert len(continuation) == len(self.rows)
        places = [at] * len(self.rows) if isinstance(at, int) else at
        return tuple(token_logprobs(row, place) for row, place in zip(self.rows, places, strict=True))


def drawn(seed: int, places: int, vocabulary: int = 5000, sharp: float = 4.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sharp, (places, vocabulary)).astype(np.float32)


def said(rows: np.ndarray) -> Completion:
    return Completion("", tuple(int(row.argmax()) for row in rows), (), "length", 1, 0)


def kept_of(rows: np.ndarray) -> KeptAnswer:
    return keep_answer(Rows(rows), (), said(rows))  # type: ignore[arg-type]


def whole(reference: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return KL of whole rows by SciPy."""
    p, q = (np.exp(rows.astype(np.float64) - rows.max(-1, keepdims=True)) for rows in (reference, level))
    return np.asarray(stats.entropy(p, q, axis=-1))


@pytest.mark.parametrize("sharp", [0.3, 2.0, 4.0, 9.0])
@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
def test_the_divergence_of_whole_rows_lies_between_what_is_measured_and_its_bound(sharp: float, noise: float) -> None:
    reference = drawn(1, 30, sharp=sharp)
    level = reference + np.random.default_rng(2).normal(0, noise, reference.shape).astype(np.float32)
    answer = kept_of(reference)
    found = force_answer(Rows(level), (), answer)  # type: ignore[arg-type]
    truth = whole(reference, level)
    low, high = np.array(found.kl_nats), np.array(found.kl_nats) + found.missed_nats
    assert (low <= truth + 2e-6).all() and (truth <= high + 2e-6).all()
    assert found.same == tuple(reference.argmax(-1) == level.argmax(-1))


def test_for_a_short_reply_of_a_sharp_model_the_two_ends_are_close() -> None:
    reference = drawn(1, 2, sharp=9.0)
    level = reference + np.random.default_rng(2).normal(0, 0.3, reference.shape).astype(np.float32)
    answer = kept_of(reference)
    found = force_answer(Rows(level), (), answer)  # type: ignore[arg-type]
    assert max(answer.tail) <= TAIL  # so far the rule reaches where the reply is short
    assert np.mean(found.missed_nats) < 0.1 * np.mean(found.kl_nats)


def test_where_everything_is_kept_the_divergence_is_that_of_whole_rows() -> None:
    reference, level = drawn(3, 7, 30, sharp=0.5), drawn(4, 7, 30, sharp=0.5)
    found = force_answer(Rows(level), (), kept_of(reference))  # type: ignore[arg-type]
    assert found.kl_nats == pytest.approx(whole(reference, level), abs=1e-6)
    assert found.missed_nats == found.drawn_nats == (0.0,) * 7


def test_a_level_equal_to_its_reference_lies_at_zero() -> None:
    rows = drawn(5, 20)
    found = force_answer(Rows(rows), (), kept_of(rows))  # type: ignore[arg-type]
    assert max(found.kl_nats) < 1e-9 and all(found.same)


def test_a_loss_that_lies_among_the_tokens_not_kept_is_within_the_bound() -> None:
    reference = np.zeros((1, 1000), np.float32)
    reference[0, 0] = 19.0  # the others hold 6e-6 together: only the first is kept
    level = reference.copy()
    level[0, 1:500] -= 12.0  # half of them become e^12 less likely
    answer = kept_of(reference)
    assert answer.kept == (1,) and answer.tail[0] == pytest.approx(999 * np.exp(-19.0), rel=1e-4)
    found = force_answer(Rows(level), (), answer)  # type: ignore[arg-type]
    truth = whole(reference, level)[0]
    assert found.kl_nats[0] < truth * 0.2  # as if one token, the others hide most of it
    assert truth <= found.kl_nats[0] + found.missed_nats[0] < 3 * truth


@pytest.mark.parametrize("sharp", [0.3, 3.0, 9.0])
def test_tokens_are_kept_to_a_tail_or_to_the_likeliest_of_all_places(sharp: float) -> None:
    rows = drawn(6, 48, sharp=sharp)
    answer = kept_of(rows)
    assert sum(answer.kept) <= ENTRIES and min(answer.kept) >= 1
    chances = np.exp(rows.astype(np.float64))
    chances = np.sort(chances / chances.sum(-1, keepdims=True), axis=-1)[:, ::-1]
    for place, count in enumerate(answer.kept):
        assert answer.tail[place] == pytest.approx(chances[place, count:].sum(), rel=1e-5)
        left = chances[place, count:] / chances[place, count:].sum()
        assert answer.tail_entropy_nats[place] == pytest.approx(stats.entropy(left), rel=1e-4)
        assert count == 1 or chances[place, count - 1 :].sum() > TAIL  # no token more than is needed
    if sum(answer.kept) == ENTRIES:  # then no token that was left out is likelier than one that was kept
        least = min(chances[place, count - 1] for place, count in enumerate(answer.kept) if count > 1)
        most = max(chances[place, count] for place, count in enumerate(answer.kept))
        assert most <= least
    else:
        assert max(answer.tail) <= TAIL * 1.0001


def test_the_token_that_ended_the_reply_is_part_of_the_answer() -> None:
    rows = drawn(7, 3)
    tokens = said(rows).token_ids
    ended = replace(said(rows[:2]), finish="stop", end_id=tokens[2])
    assert keep_answer(Rows(rows), (), ended).token_ids == tokens  # type: ignore[arg-type]
    nothing = replace(ended, token_ids=(), end_id=9)
    assert keep_answer(Rows(rows[:1]), (), nothing).token_ids == (9,)  # type: ignore[arg-type]


def test_an_answer_goes_through_json_and_float32_without_a_change() -> None:
    answer = kept_of(drawn(8, 5))
    import json

    again = from_json(KeptAnswer, parse(json.dumps(to_json(answer))))
    assert again == answer and again.digest() == answer.digest()
    assert tuple(float(str(value)) for value in np.float32(answer.top_logprobs_nats)) == answer.top_logprobs_nats
    assert kept_of(drawn(9, 5)).digest() != answer.digest()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kept": (1,)}, "2 tokens has 1"),
        ({"kept": (2, 2)}, "keeps 4 tokens and names 3"),
        ({"kept": (0, 3)}, "keeps 3 tokens"),
        ({"drawn": (1, 1)}, "draws 2 tokens and names 3"),
        ({"top_ids": (4, 4, 7)}, "twice at one place"),
        ({"drawn_ids": (5, 8, 9)}, "twice at one place"),
        ({"tail": (0.0, 0.01)}, "where none is left"),
        ({"top_ids": (4, -5, 7)}, "below 0"),
        ({"tail": (0.1, 1.5)}, "above 1"),
        ({"top_logprobs_nats": (0.2, -1.0, -1.0)}, "above 1"),
        ({"token_ids": (), "kept": (), "tail": (), "tail_entropy_nats": (), "drawn": ()}, "0 tokens"),
    ],
)
def test_a_damaged_answer_is_refused(change: dict[str, Any], told: str) -> None:
    numbers = ((2, 1), (4, 5, 7), (-0.1, -3.0, -0.01), (0.05, 0.01), (1.0, 2.0))
    whole_one = KeptAnswer((4, 7), *numbers, (1, 2), (9, 8, 8), (-4.0, -5.0, -5.0))
    assert [place.named for place in whole_one.places()] == [(4, 5, 9), (7, 8)]
    with pytest.raises(FormError, match=told):
        replace(whole_one, **change)


def test_a_level_without_a_token_beside_the_references_is_refused() -> None:
    found = token_logprobs(np.zeros(2), 2)
    place = Place((0, 1), np.log([0.5, 0.4]), 0.1, 1.0, (), np.empty(0))
    with pytest.raises(AnswerError, match="other vocabularies"):
        divergence(place, found)


@pytest.mark.parametrize(("sharp", "noise"), [(0.3, 0.3), (0.3, 2.0), (2.0, 0.5)])
def test_the_drawn_tokens_tell_on_average_what_the_kept_ones_miss(sharp: float, noise: float) -> None:
    rng = np.random.default_rng(4)
    reference = np.random.default_rng(3).normal(0, sharp, (900, 1000)).astype(np.float32)
    level = reference + rng.normal(0, noise, reference.shape).astype(np.float32)
    measured, told = [], []
    for first in range(0, 900, 3):
        rows = slice(first, first + 3)
        found = force_answer(Rows(level[rows]), (), kept_of(reference[rows]))  # type: ignore[arg-type]
        measured += found.kl_nats
        told += found.drawn_nats
    truth = whole(reference, level)
    missed = truth.mean() - np.mean(measured)
    error = np.std(np.array(told) - (truth - measured)) / 30  # of a mean over 900
    assert missed > 5 * error and np.mean(told) == pytest.approx(missed, abs=3.5 * error)


def test_a_grey_run_keeps_no_answers() -> None:
    assert KeepAnswers().for_run(".grey") is None and KeepAnswers().for_run(".blur-3") is not None
