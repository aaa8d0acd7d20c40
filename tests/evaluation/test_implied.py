"""What answers a yes/no question by implication: a number, a side, a name, an opposite; and what must not."""

from __future__ import annotations

import pytest

from infimed.evaluation.equivalents import AXES, named_members, other_names
from infimed.evaluation.extraction import extract


def said(question: str, reply: str) -> str | None:
    return extract(reply, answer_type="yesno", question=question).answer


@pytest.mark.parametrize(
    ("question", "replies"),
    [
        (
            "Is the mass larger than 3 cm?",
            {
                "The mass measures 45 mm in diameter.": "yes",
                "The mass measures 1.8 x 4.5 cm.": "yes",
                "It measures 1.8 cm (normal < 3 cm).": "no",
                "The mass is at least 2 cm.": None,
                "The mass measures about 2.9 cm.": None,
                "The mass measures 3.0 cm.": None,
                "The mass was 2 cm before and is 4 cm now.": None,
                "The mass could be 4 cm.": None,
                "The liver measures 15 cm.": None,
                "A mass larger than 3 cm.": None,
            },
        ),
        (
            "Are there more than two nodules?",
            {
                "There are three nodules in the right lung.": "yes",
                "I see a single nodule.": "no",
                "There are two nodules in the right lung and three nodules in the left lung.": None,
                "There are up to 5 nodules.": None,
                "Three masses are seen.": None,
            },
        ),
        ("Are there at least two nodules?", {"I see 2 nodules.": "yes", "There is 1 nodule.": "no"}),
        ("Is the ejection fraction above 50%?", {"The ejection fraction is 35%.": "no"}),
    ],
)
def test_a_number_answers_against_the_bound_asked(question: str, replies: dict[str, str | None]) -> None:
    assert {reply: said(question, reply) for reply in replies} == replies


def test_the_other_side_answers_where_the_thing_asked_is_one() -> None:
    assert said("Is the lesion on the left side?", "The lesion is on the right.") == "no"
    assert said("Is the mass in the left lung?", "The mass is in the right lung.") == "no"
    assert said("Is the mass in the left lung?", "The mass is in the right kidney.") is None
    assert said("Is the lesion on the left side?", "The lesion is on the right side of the image.") is None
    assert said("Is the lesion on the left side?", "There are lesions on both sides.") is None
    assert said("Is there an effusion on the left?", "There is an effusion on the right.") is None


def test_members_of_an_axis_exclude_each_other() -> None:
    assert said("Is this a CT?", "This is an MRI.") == said("Is this a lateral view?", "This is a PA view.") == "no"
    assert said("Is this image T1 weighted?", "This is a T2-weighted image.") == "no"
    for reply in ("This could be an MRI.", "This is a PET-CT.", "An MRI would be better.", "This is an axial image."):
        assert said("Is this a CT?", reply) is None


def test_an_opposite_answers_for_the_same_thing_only() -> None:
    assert said("Is the heart size normal?", "The heart is enlarged.") == "no"
    assert said("Is the trachea midline?", "The trachea is shifted to the left.") == "no"
    for reply in (
        "The heart is displaced.", "The heart may be enlarged.", "The right heart is enlarged.",
        "The aorta is dilated.", "The heart is not enlarged.",
    ):  # fmt: skip
        assert said("Is the heart size normal?", reply) is None
    assert said("Is the lesion solid?", "The lesion is cystic with solid components.") is None
    assert said("Is the heart enlarged?", "The heart size is normal.") is None


def test_a_condition_a_doubt_and_two_words_are_no_answer() -> None:
    for reply in (
        "If the angle is blunted, yes.", "Yes, if the angle is blunted.", "I doubt there is a fracture.",
        "Yes, there is. No, there isn't.", "Knee. No. Yes. Maybe", "It is hard to see a fracture.",
    ):  # fmt: skip
        assert said("Is there a fracture?", reply) is None


def test_a_statement_that_names_the_thing_asked_is_read_by_the_question() -> None:
    for reply in ("<answer>No fracture</answer>", "Answer: there is no fracture", '{"answer": "no fracture"}', "None."):
        assert said("Is there a fracture?", reply) == "no"
    for reply in ("Fracture: present", "Answer: fracture present"):
        assert said("Is there a fracture?", reply) == "yes"
    assert said("Was contrast used?", "This is a non-contrast CT.") == "no"


def test_names_of_one_member_are_the_same_and_no_name_has_two_members() -> None:
    assert ["sonography"] in other_names(["ultrasound"]) and other_names(["pneumonia"]) == []
    assert other_names(["both", "lungs"]) == [["bilateral"], ["bilaterally"]]
    assert named_members(["axial", "computed", "tomography", "scan"], "modality") == [("ct", 1)]
    for members in AXES.values():
        names = [name for spelt in members.values() for name in spelt]
        assert len(names) == len(set(names))


def choice(reply: str, options: tuple[str, ...]) -> str | None:
    return extract(reply, answer_type="choice", options=options, question="What is the diagnosis?").answer


def test_synonyms_of_a_modality_choose_it_and_two_rejections_in_a_list_leave_the_last() -> None:
    scans = ("CT", "MRI", "X-ray", "Ultrasound")
    assert choice("Sonography", scans) == "Ultrasound" and choice("plain radiograph", scans) == "X-ray"
    assert choice("PET/CT", scans) is None
    assert choice("Bilateral", ("Left lung", "Right lung", "Both lungs")) == "Both lungs"
    found = ("pneumonia", "edema", "pneumothorax", "effusion")
    assert choice("I would rule out A, B, and D.", found) == "pneumothorax"
    assert choice("Pneumonia? No. Pneumothorax? Yes.", found) == "pneumothorax"
    assert (
        choice("C. Pneumothorax\n\nIncorrect options:\nA. Pneumonia - no\nD. Effusion - angles sharp", found)
        == found[2]
    )
    assert choice("Why the others are wrong:\nA. Pneumonia\nB. Edema", found) is None
    assert choice("Answer: A. However, I cannot make a diagnosis.", found) == "pneumonia"
    assert choice("Answer: A. I cannot tell whether A or C.", found) is None
    assert choice("A\nB\nC\nD", found) is None and choice("La respuesta correcta es C.", found) == "pneumothorax"
