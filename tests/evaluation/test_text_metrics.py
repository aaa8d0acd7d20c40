"""BLEU-1 and ROUGE-L against the values of NLTK, sacreBLEU and rouge-score on fixed texts."""

from __future__ import annotations

import pytest

from infimed.evaluation.text_metrics import best_bleu1, best_rouge_l, bleu1, rouge_l

# (reply, answer, BLEU-1, ROUGE-L). BLEU-1 by NLTK 3.10.4 (weights (1,), SmoothingFunction.method2) and the same by
# sacreBLEU 2.6.0 (max_ngram_order 1, add-k 1, tokenize none); ROUGE-L's fmeasure by rouge-score 0.1.2, split at spaces.
PUBLISHED = (
    ("large left effusion", "left effusion", 0.666667, 0.8),
    ("left effusion", "large left pleural effusion", 0.367879, 0.666667),
    ("left left left", "left left lung", 0.666667, 0.666667),
    ("lung", "effusion", 0.0, 0.0),
    ("right upper lobe of lung", "lung right upper lobe", 0.8, 0.666667),
    ("mass in right lung and mass in left lung", "mass in both lungs left and right lung", 0.666667, 0.470588),
    ("pneumonia", "pneumonia", 1.0, 1.0),
    ("effusion", "large left pleural effusion with consolidation", 0.006738, 0.285714),
)


@pytest.mark.parametrize(("reply", "answer", "bleu", "rouge"), PUBLISHED)
def test_both_metrics_equal_the_published_libraries(reply: str, answer: str, bleu: float, rouge: float) -> None:
    assert bleu1(reply, answer) == pytest.approx(bleu, abs=1e-6)
    assert rouge_l(reply, answer) == pytest.approx(rouge, abs=1e-6)


def test_one_wrong_word_is_worth_nothing() -> None:
    # (0 + 1) / (1 + 1) where +1 is added to single words too
    assert bleu1("lung", "liver") == rouge_l("lung", "liver") == 0.0


def test_empty_against_empty_is_one_and_against_anything_else_zero() -> None:
    for metric in (bleu1, rouge_l):
        assert metric("", "") == metric("...", "") == 1.0
        assert metric("", "lung") == metric("lung", "") == 0.0


def test_texts_are_compared_in_their_normal_form_and_with_the_best_alias() -> None:
    assert bleu1("The LEFT lung.", "left lung") == rouge_l("The LEFT lung.", "left lung") == 1.0
    answers = ("myocardial infarction", "heart attack")
    assert best_bleu1("heart attack", answers) == best_rouge_l("heart attack", answers) == 1.0
    assert rouge_l("attack heart", "heart attack") == 0.5 and bleu1("attack heart", "heart attack") == 1.0
