"""What a reply says: each rule in its order, and never a guess."""

from __future__ import annotations

import pytest

from infimed.evaluation.extraction import extract
from infimed.evaluation.reply_text import final_text

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
        ("<answer>C</answer> <ANSWER> (C) </ANSWER>", "effusion", "tag"),
        ("<answer>C", "effusion", "tag"),
        ('{"reason": "not A", "answer": "C"}', "effusion", "json"),
        ('```json\n{"answer": "C", "confid', "effusion", "json"),
        ("The answer is not clear. Answer: C", "effusion", "stated"),
        ("It may be A. Final answer: B. pleural effusion", "pleural effusion", "stated"),
        ("**Answer:** effusion.", "effusion", "stated"),
        ("the answer is A\nThe final answer is (D).", "no finding", "stated"),
        ("(A).", "pneumonia", "letter"),
        ("b", "pleural effusion", "letter"),
        ("C) it lies at the base\nAlso pneumonia", "effusion", "opening"),
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
        ("There is no lesion.", None),  # no to "is there a lesion?", yes to "is it free of lesions?"
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


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("C<|im_end|>\n<|im_start|>user", "effusion"),
        ("C</s></s>", "effusion"),
        ("C\nC\nC\nC", "effusion"),
        ("\uff23\u3002", "effusion"),
        ("C \u7684\u7684\u7684\u7684\u7684\u7684", "effusion"),
        (r"$\text{C}$", "effusion"),
        ("%%%%%%@@@@ C", None),
        ("!!!! The answer is C", "effusion"),
    ],
)
def test_control_tokens_noise_and_repetition_are_no_part_of_what_is_said(reply: str, answer: str | None) -> None:
    assert chosen(reply)[0] == answer


@pytest.mark.parametrize(
    "reply",
    [
        r"\boxed{A} or \boxed{C}",
        "<answer>A</answer> <answer>C</answer>",
        "Final answer: A\nFinal answer: C",
        "Final answer: A\nFinal answer: C\nFinal answer: A",
        "Answer: A. Answer: C",
        "<answer>A</answer> The answer is C.",
        "Answer: A. Wait.",
    ],
)
def test_two_statements_that_differ_are_no_answer(reply: str) -> None:
    assert chosen(reply) == (None, "invalid")


@pytest.mark.parametrize(
    "reply",
    [
        "Answer: A. Wait, the base is dark. Answer: C",
        r"\boxed{A}, no: \boxed{C}",
        "First guess: A. Final answer: C",
        "Answer: A\nI have to revise my answer: this is an effusion, not pneumonia.",
        "A. Wait, no, C.",
        "I'd go for A; no wait, C.",
    ],
)
def test_a_statement_that_corrects_or_is_final_replaces_the_one_before(reply: str) -> None:
    assert chosen(reply)[0] == "effusion"


def test_what_a_reply_concludes_outranks_what_it_mentions() -> None:
    assert chosen("Most likely C, though A is possible.")[0] == "effusion"
    assert chosen("Pneumonia would show air bronchograms. Blunting of the angle, therefore effusion.")[0] == "effusion"
    assert chosen("At first glance pneumonia, but the meniscus favors an effusion.")[0] == "effusion"
    assert chosen("I'm torn between A and C.")[0] is None
    assert chosen("I would say A, but then again C; I can't decide.")[0] is None


def test_verdicts_on_each_option_are_read() -> None:
    assert chosen("A: no\nB: no\nC: yes\nD: no")[0] == "effusion"
    assert chosen("A. pneumonia \u274c\nC. effusion \u2705")[0] == "effusion"
    assert chosen("A \u2717 B \u2717 C \u2713 D \u2717")[0] == "effusion"
    assert chosen("A: no\nB: yes\nC: yes\nD: no")[0] is None


def test_only_a_reply_that_rejects_all_but_one_leaves_that_one() -> None:
    sides = ("benign", "malignant")
    assert chosen("The mass is not malignant.", sides) == ("benign", "elimination")
    assert chosen("A, B and D can be ruled out.") == ("effusion", "elimination")
    assert chosen("A and B can be ruled out.")[0] is None
    assert chosen("Malignancy is not clearly benign", sides)[0] is None


def test_a_negation_reaches_over_its_list_and_not_over_the_next_clause() -> None:
    found = ("mass", "infarct", "hematoma")
    assert chosen("No infarct, mass or hematoma.", found)[0] is None
    assert chosen("No infarct or hematoma, but there is a mass.", found)[0] == "mass"
    assert chosen("An infarct is not seen and a mass is present.", found)[0] == "mass"
    assert chosen("The lesion is a mass rather than an infarct.", found)[0] == "mass"
    assert chosen("A mass cannot be excluded.", found)[0] is None
    assert chosen("Rule out hematoma.", found)[0] is None


def test_a_question_for_what_does_not_hold_is_answered_by_a_denial() -> None:
    def said(reply: str) -> str | None:
        question = "Which of these is NOT seen?"
        return extract(reply, answer_type="choice", options=OPTIONS[:3], question=question).answer

    assert said("There is no pneumonia.") == "pneumonia" and said("What is not seen is an effusion.") == "effusion"
    assert said("There is an effusion.") is None and said("No effusion, no pneumonia.") is None


def test_a_letter_and_a_text_that_disagree_are_no_answer() -> None:
    assert chosen("B. pneumonia")[0] is None and chosen("pneumonia (B)")[0] is None
    assert chosen("(A) pneumonia")[0] == chosen("pneumonia (A)")[0] == "pneumonia"


def test_an_echo_of_the_options_is_no_answer() -> None:
    assert chosen("A. pneumonia\nB. pleural effusion\nC. effusion\nD. no finding")[0] is None
    assert chosen("A) pneumonia B) pleural effusion C) effusion D) no finding")[0] is None
    assert chosen("A. B. C. D.")[0] is None and chosen("ABCDABCDABCD")[0] is None


def test_an_article_a_name_and_a_measure_are_no_letters_and_no_counts() -> None:
    assert chosen("A chest X-ray")[0] is None and chosen("vitamin C")[0] is None and chosen("type B")[0] is None
    counts = ("1", "2", "3")
    assert chosen("There are 2 nodules.", counts)[0] == "2" and chosen("two", counts)[0] == "2"
    for reply in ("The largest is 3 cm", "segment 3", "at least 2", "2 or 3", "3 weeks old"):
        assert chosen(reply, counts)[0] is None


def test_lengths_are_equal_in_any_unit_and_initials_stand_for_their_option() -> None:
    assert chosen("about 12 mm", ("1.2 cm", "12 cm", "1.2 mm"))[0] == "1.2 cm"
    scans = ("Computed tomography", "Magnetic resonance imaging")
    assert chosen("MRI", scans)[0] == "Magnetic resonance imaging"
    assert chosen("CT or MRI", scans)[0] is None
    assert chosen("it isn't the upper tube; it's the lower one", ("upper tube", "lower tube"))[0] == "lower tube"


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I cannot diagnose pneumonia from an image.",
        "As an AI I am unable to view images; pneumonia is common.",
        "It is difficult to tell whether this is pneumonia.",
        "No image was provided.",
        "Answer:",
        "The correct option is",
        "pneumonia?",
        "Melanoma",
        "\u65e0\u6cd5\u5224\u65ad",
    ],
)
def test_refusals_doubt_and_broken_sentences_say_nothing(reply: str) -> None:
    assert chosen(reply) == (None, "invalid")
    assert extract(reply, answer_type="yesno", question="Is there pneumonia?").answer is None


def test_chinese_statements_are_read() -> None:
    organs = ("\u5de6\u80ba", "\u53f3\u80ba", "\u5fc3\u810f")
    assert chosen("\u7b54\u6848\u662f\uff1aB\u3001\u53f3\u80ba", organs)[0] == "\u53f3\u80ba"
    assert chosen("\u9009C\uff0c\u4e0d\u662f\u5de6\u80ba\u3002", organs)[0] == "\u5fc3\u810f"
    assert chosen("\u9009A\u6216B", organs)[0] is None
    assert extract("\u4e0d\u662f\u3002", answer_type="yesno").answer == "no"


@pytest.mark.parametrize(
    ("question", "reply", "answer"),
    [
        ("Is there a pleural effusion?", "There is no evidence of pleural effusion.", "no"),
        ("Is there a pleural effusion?", "A pleural effusion is seen.", "yes"),
        ("Is there a pleural effusion?", "It is not true that there is no effusion.", "yes"),
        ("Is there a pleural effusion?", "There is a pericardial effusion.", None),
        ("Is there a pleural effusion?", "A pleural effusion cannot be excluded.", None),
        ("Is there a pleural effusion?", "Yes, there is no pleural effusion.", None),
        ("Is there a pleural effusion?", "The lungs are clear.", None),
        ("Is there a fracture?", "No displaced fracture.", None),
        ("Is there a fracture of the radius?", "There is no fracture of the ulna.", None),
        ("Is there a fracture?", "Negative.", "no"),
        ("Is there a fracture?", "Present", "yes"),
        ("Are the lungs free of nodules?", "No nodules are seen.", "yes"),
        ("Are the lungs free of nodules?", "There are nodules in both lungs.", "no"),
        ("Is the study normal?", "No abnormality is seen.", "yes"),
        ("Is the study normal?", "Negative", None),
        ("Is the heart normal?", "The lungs are normal.", None),
        ("Is the heart normal?", "The heart is not normal.", "no"),
        ("Is this a CT scan?", "This is not a CT scan.", "no"),
        ("Is this a CT scan?", "This is an MRI.", "no"),
        ("Is the mass larger than 3 cm?", "It measures 1.8 cm.", "no"),
        ("Is this a melanoma?", "Answer: Yes. Therefore this is not a melanoma.", None),
        ("Is a cavity present?", '{"cavity_present": false}', "no"),
        ("Is a cavity present?", '{"nodule_present": false}', None),
        ("Is it there?", "No. Actually, looking again, there is a faint line, so yes.", "yes"),
    ],
)
def test_a_reply_on_the_very_thing_asked_answers_by_the_polarity_of_the_question(
    question: str, reply: str, answer: str | None
) -> None:
    assert extract(reply, answer_type="yesno", question=question).answer == answer


@pytest.mark.parametrize(
    ("question", "reply", "answer"),
    [
        ("What is the diagnosis?", "The diagnosis is **tinea corporis**, see a doctor.", "tinea corporis"),
        ("What is the diagnosis?", "Most likely osteosarcoma, although Ewing sarcoma is possible.", "osteosarcoma"),
        ("Where is the lesion?", "The lesion is located in the right upper lobe.", "the right upper lobe"),
        ("Which side?", "Not the right but the left.", "the left"),
        ("How large is it?", "It measures 3 x 4 cm in all.", "3 x 4 cm"),
        ("What is seen?", "aorta, vena cava and portal vein", "aorta, vena cava and portal vein"),
        ("What is the finding?", "The heart is enlarged.", "The heart is enlarged"),
        ("What is the diagnosis?", "The most likely diagnosis is", None),
        ("What is the diagnosis?", "It could be lymphoma or tuberculosis.", None),
        ("What is the diagnosis?", "I'm not able to provide a diagnosis.", None),
    ],
)
def test_a_short_answer_is_taken_only_where_a_rule_says_which_words_it_is(
    question: str, reply: str, answer: str | None
) -> None:
    assert extract(reply, answer_type="open", question=question).answer == answer
