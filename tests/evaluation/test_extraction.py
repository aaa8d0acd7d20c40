"""What a reply says: each rule in its order, and never a guess."""

from __future__ import annotations

import pytest

from infimed.evaluation.extraction import extract, final_text

OPTIONS = ("pneumonia", "pleural effusion", "effusion", "no finding")


def chosen(reply: str, options: tuple[str, ...] = OPTIONS) -> tuple[str | None, str]:
    found = extract(reply, answer_type="choice", options=options)
    return found.answer, found.rule


def yes_no(reply: str) -> str | None:
    return extract(reply, answer_type="yesno", options=("yes", "no")).answer


@pytest.mark.parametrize(
    ("reply", "answer", "rule"),
    [
        (r"First \boxed{A}, no: \boxed{\text{pleural effusion}}", "pleural effusion", "boxed"),
        (r"<answer>B</answer> so \boxed{A}", "pneumonia", "boxed"),
        ("The answer is B. <answer>pneumonia</answer>", "pneumonia", "tag"),
        ("<answer>A</answer> <ANSWER> (C) </ANSWER>", "effusion", "tag"),
        ("It may be A. Final answer: B. pleural effusion", "pleural effusion", "stated"),
        ("**Answer:** effusion.", "effusion", "stated"),
        ("the answer is A\nThe final answer is (D).", "no finding", "stated"),
        ("(A).", "pneumonia", "letter"),
        ("b", "pleural effusion", "letter"),
        ("C) it lies at the base\nAlso pneumonia", "effusion", "leading letter"),
        ("There is a large pleural effusion on the left.", "pleural effusion", "option text"),
        ("<think>effusion? no</think>Pneumonia is seen", "pneumonia", "option text"),
    ],
)
def test_the_first_rule_whose_pattern_occurs_decides(reply: str, answer: str, rule: str) -> None:
    assert chosen(reply) == (answer, rule)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "   \n",
        "I cannot tell from this image.",
        "pneumonia or effusion",
        r"\boxed{E} although pneumonia is possible",
        "<answer></answer> pneumonia",
        "The answer is not A.",
        "This is not pneumonia",
        "There is no sign of pneumonia",
        "An effusion is unlikely; pneumonia isn't seen",
        "unlikely to be pneumonia",
        "E. tuberculosis",
        "<think>It must be pneumonia, because",
        "pneumoniae",
        "(A) (B)",
        "A: no finding",
        "A) or B)",
        "A. and also C.",
        "Pneumonia: no. Effusion: yes.",
        "Pneumonia: none",
        "pneumonia? no",
    ],
)
def test_a_reply_that_names_no_option_is_invalid_and_never_guessed(reply: str) -> None:
    assert chosen(reply) == (None, "invalid")


def test_an_empty_reply_is_not_the_first_option() -> None:
    assert extract("", answer_type="choice", options=("A", "B")).answer is None
    assert extract("", answer_type="yesno").answer is None
    assert extract(" ", answer_type="open").answer is None


def test_the_longest_option_wins_over_one_inside_it() -> None:
    assert chosen("a pleural effusion")[0] == "pleural effusion"
    assert chosen("lobe: left lower lung", ("lower lung", "left lower lung", "left"))[0] == "left lower lung"


def test_a_denied_option_leaves_the_one_that_is_affirmed() -> None:
    assert chosen("Not pneumonia: I see an effusion")[0] == "effusion"
    assert chosen("no convincing pneumonia, but there is an effusion")[0] == "effusion"
    # four words away the negation no longer reaches
    assert chosen("not that I would mind pneumonia")[0] == "pneumonia"


def test_a_no_that_begins_the_next_clause_denies_what_follows_it() -> None:
    assert chosen("There is a pleural effusion. No pneumonia.")[0] == "pleural effusion"
    assert chosen("effusion, no pneumonia")[0] == "effusion"


def test_a_letter_followed_by_its_own_option_is_one_opening() -> None:
    assert chosen("A. B. fragilis", ("B. fragilis", "E. coli"))[0] == "B. fragilis"
    assert chosen("B) no finding (see C) below)", ("a", "no finding", "c"))[0] == "no finding"
    assert chosen("C: effusion; A: no")[0] == "effusion"


def test_signs_belong_to_what_is_said() -> None:
    sizes = ("< 2 cm", "> 2 cm")
    assert chosen("> 2 cm", sizes)[0] == "> 2 cm" and chosen("It is <2 cm wide.", sizes)[0] == "< 2 cm"
    assert chosen("2 cm", sizes)[0] is None and chosen("The answer is >2 cm", sizes)[0] == "> 2 cm"
    assert chosen("> 2 cm", ("2 cm", "< 2 cm"))[0] is None and chosen("2 cm", (*sizes, "2 cm"))[0] == "2 cm"
    assert chosen("about >= 3 mm", ("\u2264 3 mm", "\u2265 3 mm"))[0] == "\u2265 3 mm"
    assert chosen("IgG-", ("IgG+", "IgG-"))[0] == "IgG-" and chosen("it is IgG+.", ("IgG+", "IgG-"))[0] == "IgG+"
    assert chosen("HIV", ("HIV +", "HIV -"))[0] is None and chosen("HIV -", ("HIV +", "HIV -"))[0] == "HIV -"
    assert chosen("IgG+", ("IgG", "IgM"))[0] is None
    assert chosen("effusion + pneumonia")[0] is None and chosen("effusion - left")[0] == "effusion"


def test_an_option_that_starts_with_no_is_its_own_text() -> None:
    assert chosen("no finding")[0] == "no finding"
    assert chosen("There is no finding.")[0] == "no finding"


def test_options_that_look_like_letters_or_end_in_one_keep_their_meaning() -> None:
    assert chosen("b", ("c", "b", "a"))[0] == "b"
    assert chosen("E. coli", ("S. aureus", "E. coli", "candida", "d", "e"))[0] == "E. coli"
    hepatitis = ("hepatitis A", "hepatitis B")
    assert chosen("This is hepatitis C", hepatitis)[0] is None
    assert chosen("the answer is hepatitis b", hepatitis)[0] == "hepatitis B"
    assert chosen("A left lung", ("the left lung", "the right lung"))[0] == "the left lung"


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Yes, it is abnormal", "yes"),
        ("No. Yes would need a lesion", "no"),
        ("There is no lesion.", "no"),
        ("I believe so: yes!", "yes"),
        (r"no lesion at first, but \boxed{Yes}", "yes"),
        ("Is it yes or no? It is yes.", None),
        ("Yes and no", None),
        ("yes/no", None),
        ("Abnormal, nothing known", None),
        ("maybe", None),
        ("<think>no</think> yes", "yes"),
        ("The answer is yes. There is no doubt", "yes"),
        ("The answer is not yes", None),
        ("Not yes", None),
        ("It isn't a clear yes", None),
        ("I do not see one: no", "no"),
        ("Not seen. Yes, elsewhere", "yes"),
    ],
)
def test_yes_and_no_are_read_as_words(reply: str, answer: str | None) -> None:
    assert yes_no(reply) == answer


def test_an_open_reply_is_what_was_stated_or_the_whole() -> None:
    def said(reply: str) -> str | None:
        return extract(reply, answer_type="open").answer

    assert said("left lower lobe\n") == "left lower lobe"
    assert said("The answer is the left lung. It is dark.") == "the left lung"
    assert said("It measures much. Answer: 3.5 cm") == "3.5 cm"
    assert said(r"<think>a</think> \boxed{the spleen}") == "the spleen"


def test_only_what_follows_the_thought_counts() -> None:
    assert final_text("<think>a</think>b<think>c</think> d") == " d"
    assert final_text("b <think> never ended") == "b "
