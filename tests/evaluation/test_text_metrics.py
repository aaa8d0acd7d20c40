"""Token F1, BLEU-1 and ROUGE-L against the values of NLTK, sacreBLEU and rouge-score on fixed texts."""

from __future__ import annotations

import pytest

from infimed.evaluation.scoring import token_overlap
from infimed.evaluation.text_metrics import best_bleu1, best_rouge_l, bleu1, rouge_l

# (reply, answer, token F1, BLEU-1, ROUGE-L), to twelve digits. Token F1 is the fmeasure of ROUGE-1, ROUGE-L that of
# ROUGE-L, by rouge-score 0.1.2, split at spaces; BLEU-1 by NLTK 3.10.4 (weights (1,), SmoothingFunction.method2) and
# the same by sacreBLEU 2.6.0 (max_ngram_order 1, add-k 1, tokenize none). Eight were thought of, the others drawn.
PUBLISHED = (
    ("large left effusion", "left effusion", 0.8, 0.666666666667, 0.8),
    ("left effusion", "large left pleural effusion", 0.666666666667, 0.367879441171, 0.666666666667),
    ("left left left", "left left lung", 0.666666666667, 0.666666666667, 0.666666666667),
    ("lung", "effusion", 0, 0, 0),
    ("right upper lobe of lung", "lung right upper lobe", 0.888888888889, 0.8, 0.666666666667),
    (
        "mass in right lung and mass in left lung",
        "mass in both lungs left and right lung",
        0.705882352941,
        0.666666666667,
        0.470588235294,
    ),
    ("pneumonia", "pneumonia", 1, 1, 1),
    ("effusion", "large left pleural effusion with consolidation", 0.285714285714, 0.00673794699909, 0.285714285714),
    ("effusion effusion cm effusion cm", "3", 0, 0, 0),
    ("no cm right upper", "lobe right", 0.333333333333, 0.25, 0.333333333333),
    ("left lung lung cm", "lobe effusion left no upper right cm", 0.363636363636, 0.236183276371, 0.363636363636),
    ("lung", "cm right", 0, 0, 0),
    ("lung cm mass", "no right cm right cm lobe", 0.222222222222, 0.12262648039, 0.222222222222),
    ("lobe", "cm lung", 0, 0, 0),
    ("lobe no left no lobe lobe", "lobe no right upper right lung cm", 0.307692307692, 0.282160574964, 0.307692307692),
    ("3 left effusion lobe mass left", "effusion", 0.285714285714, 0.166666666667, 0.285714285714),
    ("right lung 3 upper", "lobe mass effusion right effusion", 0.222222222222, 0.194700195768, 0.222222222222),
    ("3 left cm left lobe no", "lobe cm", 0.5, 0.333333333333, 0.25),
    ("left no lobe effusion no effusion lobe upper effusion", "cm", 0, 0, 0),
    ("cm left effusion lobe lung no right cm no", "upper 3 right effusion cm no effusion", 0.5, 0.444444444444, 0.375),
)


@pytest.mark.parametrize(("reply", "answer", "f1", "bleu", "rouge"), PUBLISHED)
def test_the_metrics_equal_the_published_libraries(
    reply: str, answer: str, f1: float, bleu: float, rouge: float
) -> None:
    assert token_overlap(reply, answer).f1 == pytest.approx(f1, abs=1e-11)
    assert bleu1(reply, answer) == pytest.approx(bleu, abs=1e-11)
    assert rouge_l(reply, answer) == pytest.approx(rouge, abs=1e-11)


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
