from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import rel_entr, softmax

from infimed.runtime.distance import distance, kl_rows, log_softmax
from infimed.runtime.engine import OptionScore, RequestError, Sampling, Scores
from infimed.runtime.sampling import pick_token, visible_text


def rows(seed: int, count: int = 5, vocab: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 4, (count, vocab)).astype(np.float32)


def test_log_softmax_and_kl_equal_scipy() -> None:
    p, q = rows(1), rows(2)
    assert np.allclose(log_softmax(p), scipy_log_softmax(p.astype(np.float64), axis=-1), atol=1e-12)
    expected = rel_entr(softmax(p.astype(float), axis=-1), softmax(q.astype(float), axis=-1)).sum(-1)
    assert np.allclose(kl_rows(p, q), expected, rtol=1e-9)


def test_top1_counts_only_where_the_reference_is_decided() -> None:
    reference = np.array([[5.0, 0.0], [1.0, 1.005]], dtype=np.float32)
    other = np.array([[4.0, 0.0], [1.005, 1.0]], dtype=np.float32)
    found = distance(reference, other, gap=0.01)
    assert (found.rows, found.top1, found.decided, found.top1_decided) == (2, 0.5, 1, 1.0)


def test_greedy_takes_the_likeliest_token() -> None:
    row = rows(3, 1)[0]
    token, logprob = pick_token(row, Sampling(), np.random.default_rng(0))
    assert token == int(row.argmax())
    assert np.isclose(logprob, log_softmax(row[None])[0].max())


def test_nucleus_sampling_draws_from_the_smallest_set_that_reaches_top_p() -> None:
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    random = np.random.default_rng(0)
    drawn = [pick_token(row, Sampling(temperature=1.0, top_p=0.79), random)[0] for _ in range(2000)]
    assert set(drawn) == {0, 1}
    assert abs(drawn.count(0) / 2000 - 0.5 / 0.8) < 0.04


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 1e-310, 5e-324])
def test_a_temperature_near_zero_is_nearly_greedy(temperature: float) -> None:
    random = np.random.default_rng(0)
    for seed in range(20):
        row = 100 * rows(seed, 1)[0]
        assert pick_token(row, Sampling(temperature=temperature), random)[0] == int(row.argmax())


def test_sampling_equals_the_softmax_at_its_temperature() -> None:
    row, random = rows(4, 1, vocab=4)[0] / 4, np.random.default_rng(0)
    drawn = np.bincount([pick_token(row, Sampling(temperature=1.7), random)[0] for _ in range(4000)], minlength=4)
    assert np.abs(drawn / 4000 - softmax(row.astype(float) / 1.7)).max() < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"max_tokens": -1},
        {"seed": -1},
    ],
)
def test_a_sampling_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_a_stop_string_ends_the_reply_and_its_beginning_is_held_back() -> None:
    assert visible_text("abc END", ("END",)) == ("abc ", True)
    assert visible_text("abc EN", ("END",)) == ("abc ", False)
    assert visible_text("abc EN", ("END",), final=True) == ("abc EN", False)
    assert visible_text("caf\ufffd", ()) == ("caf", False)


def test_option_scores_are_normalised_by_their_tokens() -> None:
    scores = Scores((OptionScore("a", -3.0, 3), OptionScore("b", -2.0, 1)), 10, 0)
    assert scores.choice() == "a" and scores.choice("raw sum") == "b"
    assert np.isclose(scores.probabilities().sum(), 1.0)
    assert np.isclose(scores.probabilities()[0], 1 / (1 + np.exp(-1)))
