"""Scores of replies, and the opposite of what other harnesses are known to get wrong."""

from __future__ import annotations

import numpy as np
import pytest

from infimed.evaluation.scoring import (
    best_overlap,
    exact_match,
    normalise,
    score_choice,
    score_reply,
    token_overlap,
)
from infimed.runtime.likelihood import LIKELIHOODS, LikelihoodError, likelihood_of, log_shares, option_values


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  The LEFT lung. ", "left lung"),
        ("an X-ray of the chest", "x-ray of chest"),
        ("\uff34\uff12-weighted", "t2-weighted"),
        ("3.5 cm.", "3.5 cm"),
        ("and/or (both)", "and/or both"),
        ("Two lesions, twenty-one days", "2 lesions 21 days"),
        ("- none -", "none"),
        ("hepatitis A", "hepatitis a"),
        ("a", "a"),
        ("snake_case; 'quoted'", "snake case quoted"),
        ("...", ""),
        ("<5 mm", "< 5 mm"),
        (">= 5 mm.", "\u2265 5 mm"),
        ("IgG+", "igg +"),
        ("HIV -", "hiv -"),
        ("+", "+"),
        ("mild - left", "mild left"),
        ("-1.5 D", "1.5 d"),
    ],
)
def test_texts_are_compared_in_one_normal_form(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal


def test_overlap_names_its_parts_so_that_no_order_can_be_wrong() -> None:
    overlap = token_overlap("large left effusion seen", "left effusion")
    assert overlap.precision == pytest.approx(2 / 4)
    assert overlap.recall == pytest.approx(2 / 2)
    assert overlap.f1 == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_overlap_counts_repeated_words_once_each() -> None:
    overlap = token_overlap("left left left", "left left lung")
    assert (overlap.precision, overlap.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_empty_against_empty_is_one_and_against_anything_else_zero() -> None:
    assert token_overlap("", "the").f1 == 0.0  # a last article stays
    assert token_overlap("", "").f1 == 1.0
    assert token_overlap("", "lung").f1 == token_overlap("lung", "").f1 == 0.0


def test_the_best_alias_counts() -> None:
    assert best_overlap("heart attack", ("myocardial infarction", "heart attack")).f1 == 1.0
    assert exact_match("The Heart attack.", ("myocardial infarction", "heart attack"))
    assert not exact_match("", ("", "."))


def test_a_sign_makes_another_answer() -> None:
    for said, key in (("<5 mm", ">5 mm"), ("5 mm", "> 5 mm"), ("IgG+", "IgG-"), ("HIV", "HIV -"), ("+", "-")):
        assert not exact_match(said, [key]) and exact_match(key, [key])
    assert exact_match("< 5mm", ["<5mm"]) and exact_match("<= 5 mm", ["\u2264 5 mm"])


def test_yes_it_is_abnormal_is_a_yes() -> None:
    score = score_reply("Yes, it is abnormal", "yes", answer_type="yesno", options=("yes", "no"))
    assert score.correct and score.value == 1.0


def test_an_empty_reply_is_wrong_when_the_key_is_the_first_option() -> None:
    score = score_reply("", "A", answer_type="choice", options=("A", "B", "C"))
    assert score.invalid and not score.correct and score.value == 0.0


def test_a_reply_that_says_nothing_clear_scores_the_same_every_time() -> None:
    scores = {
        score_reply("hard to say", "b", answer_type="choice", options=("a b", "b", "c")).correct for _ in range(50)
    }
    assert scores == {False}


def test_a_closed_item_is_scored_once_and_never_as_an_open_one() -> None:
    # the wrong option shares words with the key: a choice is right or wrong, not partly right
    score = score_reply("left lower lobe", "left upper lobe", answer_type="choice",
                        options=("left lower lobe", "left upper lobe"))  # fmt: skip
    assert (score.correct, score.value) == (False, 0.0)


def test_open_answers_are_right_by_exact_match_and_worth_their_overlap() -> None:
    score = score_reply("lower left lung", "left lung", answer_type="open", aliases=("lung on the left",))
    assert not score.correct and score.value == pytest.approx(0.8)
    assert score_reply("Answer: lung on left", "left lung", answer_type="open", aliases=("lung on the left",)).correct


def test_a_choice_by_likelihood_is_right_only_when_it_is_the_answer() -> None:
    assert score_choice("left", "left") and not score_choice("Left", "left")


def test_the_three_normalisations_choose_by_token_by_sum_and_by_character() -> None:
    options, logprobs, tokens = ("no", "a pneumothorax", "effusion"), (-2.0, -6.0, -3.6), (1, 4, 2)
    values = {how: option_values(logprobs, tokens, options, how) for how in LIKELIHOODS}
    assert values["per token"].tolist() == pytest.approx([-2.0, -1.5, -1.8])
    assert values["raw sum"].tolist() == pytest.approx([-2.0, -6.0, -3.6])
    assert values["per character"].tolist() == pytest.approx([-1.0, -6 / 14, -3.6 / 8])
    chosen = {how: options[int(found.argmax())] for how, found in values.items()}
    assert chosen == {"per token": "a pneumothorax", "raw sum": "no", "per character": "a pneumothorax"}
    shares = np.exp(log_shares(values["raw sum"]))
    assert shares.sum() == pytest.approx(1) and shares[0] / shares[2] == pytest.approx(np.exp(1.6))
    assert np.isfinite(log_shares(np.array([-4000.0, -3000.0]))).all()


def test_an_unknown_normalisation_is_refused_with_the_names_that_there_are() -> None:
    assert [likelihood_of(name) for name in LIKELIHOODS] == list(LIKELIHOODS)
    with pytest.raises(LikelihoodError, match="'per token', 'raw sum', 'per character', not 'mean'"):
        likelihood_of("mean")


def test_precision_is_of_the_reply_and_recall_of_the_answer() -> None:
    wordy = token_overlap("left lung base with some fluid", "left lung")
    terse = token_overlap("left lung", "left lung base with some fluid")
    assert (wordy.precision, wordy.recall) == (pytest.approx(1 / 3), 1.0)
    assert (terse.precision, terse.recall) == (1.0, pytest.approx(1 / 3))
    assert list(vars(wordy)) == ["precision", "recall", "f1"] and wordy.f1 == terse.f1 == pytest.approx(0.5)


def test_no_yes_in_a_longer_word_and_no_word_with_no_in_it_counts() -> None:
    for reply in ("abnormal", "nodule noted", "yesterday's eyes", "unknown"):
        assert (
            score_reply(reply, "no", answer_type="yesno").invalid
            and score_reply(reply, "yes", answer_type="yesno").invalid
        )


def test_the_question_decides_what_a_denial_answers() -> None:
    said = "No nodules are seen."
    assert score_reply(said, "no", answer_type="yesno", question="Are there nodules?").correct
    assert score_reply(said, "yes", answer_type="yesno", question="Are the lungs free of nodules?").correct
    assert score_reply(said, "no", answer_type="yesno").invalid


@pytest.mark.parametrize("key", ["a mass", "a cyst", "neither"])
def test_a_reply_that_names_every_option_is_right_for_no_key(key: str) -> None:
    options = ("a mass", "a cyst", "neither")
    assert score_reply("a mass, a cyst, neither", key, answer_type="choice", options=options).invalid
