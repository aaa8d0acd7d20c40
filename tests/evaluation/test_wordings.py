"""Wordings: what means the same is exchanged, and what no form covers as a whole is left alone."""

from __future__ import annotations

import re

import pytest

from infimed.evaluation.phantom_questions import WORDINGS
from infimed.evaluation.wordings import FAMILIES, are_many, asked_presence, family_of, other_wordings

from .probing import phantom_examples

SAMPLES = {
    "one": "a pleural effusion", "mass": "free air", "many": "kidney stones", "any": "a mitotic cluster",
    "the": "the nodule",
    "where": "in the left lung", "half": "in the upper half of the image", "be": "is", "what": "imaging modality",
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_form_is_covered_and_leads_to_questions_that_are_covered_too(family) -> None:  # type: ignore[no-untyped-def]
    task = family.tasks[0] if family.tasks else "finding"
    texts = [form.format(**SAMPLES) for form in family.forms]
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert text[0].isupper() and text[-1] in "?." and "  " not in text
        others = other_wordings(text, task)
        assert others and text not in others
        assert all(family_of(other, task) for other in others)


def test_a_filled_slot_is_carried_over_word_by_word() -> None:
    for _, example in phantom_examples():
        for other in other_wordings(example.question, example.task):
            found = family_of(example.question, example.task)
            assert found is not None
            for slot in found[2].values():
                assert slot in other or slot in ("is", "are")


def test_the_wordings_of_phantoms_are_covered_but_for_those_of_large_and_small() -> None:
    left = {
        example.attributes["wording"]
        for _, example in phantom_examples()
        if not other_wordings(example.question, example.task)
    }
    assert left == {"{is_finding} large?", "{is_finding} small?"}
    assert left < set(WORDINGS)


@pytest.mark.parametrize(
    "text",
    [
        "Is there a nodule or a mass?",
        "Is there no effusion?",
        "Is there a nodule that is larger than 2 cm?",
        "Is this present?",
        "Which of the following is shown?",
        "What is wrong with this patient?",
        "Is it in the left lung?",
        "Is there a nodule? Explain.",
        "is there a nodule",
        "Is the patient in the supine position?",
        "Where is it?",
        "Is there free air under the left diaphragm?",
        "Is there contrast given?",
        "Does this image show more than one white blood cell?",
        "What kind of image is this?",  # only where the task is modality
    ],
)
def test_what_no_form_covers_as_a_whole_has_no_other_wording(text: str) -> None:
    assert other_wordings(text, "finding") == ()


def test_number_and_article_stay_right() -> None:
    for text in other_wordings("Does this image show kidney stones?", "finding"):
        assert not re.search(r"Is (?:there )?kidney stones", text)
    assert other_wordings("Are there any nodules?", "finding")[0] == "Are there any nodules in this image?"
    assert "Do the nodules lie on the left side of the image?" in other_wordings(
        "Are the nodules on the left side of the image?", "laterality"
    )


def test_what_a_question_asks_the_presence_of() -> None:
    assert asked_presence("Is there evidence of pleural effusion in this image?") == "pleural effusion"
    assert asked_presence("Does the image show a nodule?") == "nodule"
    assert asked_presence("Is there evidence of a polyp in this image?") == "polyp"
    assert asked_presence("Is there evidence of the lung?") == "lung"
    assert asked_presence("Are there any kidney stones?") == "kidney stones" and are_many(
        "Are there any kidney stones?"
    )
    assert asked_presence("How large is the nodule?") is None
