"""Mirroring: sides are exchanged, nothing else is, and what has no mirror image is left out with the reason."""

from __future__ import annotations

import pytest

from infimed.evaluation.example import YES_NO, TextRef
from infimed.evaluation.mirror import mirror_text, mirrored
from infimed.evaluation.phantom_canvas import SIZE_PX
from infimed.evaluation.probe import LeftOut, Picture, Setting

from .probing import phantom_examples, question


def probed(example):  # type: ignore[no-untyped-def]
    found = mirrored(example, Setting())
    assert not isinstance(found, LeftOut), found
    (row,) = found
    assert row.picture == Picture("mirror", 0, 0) and row.key == "mirrored" and row.example.id == "q~mirrored"
    return row.example


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("Is the Left lung clear?", "Is the Right lung clear?"),
        ("RIGHT side, left-sided, leftmost, rightward", "LEFT side, right-sided, rightmost, leftward"),
        ("upper left; lower right", "upper right; lower left"),
        ("A bright, upright cleft; copyright leftover", "A bright, upright cleft; copyright leftover"),
        ("\u5de6\u80ba", "\u53f3\u80ba"),
        ("both sides", "both sides"),
    ],
)  # fmt: skip
def test_whole_words_of_side_are_exchanged_and_back(text: str, turned: str) -> None:
    assert mirror_text(text) == turned
    assert mirror_text(turned) == text


def test_the_key_of_a_side_flips_and_the_text_does_not_change() -> None:
    example = question("Which side is affected?", "left", ("left", "right"), task="laterality")
    turned = probed(example)
    assert (turned.question, turned.options, turned.answer) == (example.question, example.options, "right")


def test_options_without_their_counterparts_are_mirrored_where_they_stand() -> None:
    turned = probed(question("Where is it?", "right hilum", ("left apex", "right hilum", "trachea"), task="location"))
    assert turned.options == ("right apex", "left hilum", "trachea") and turned.answer == "left hilum"


def test_a_yes_no_question_is_mirrored_in_words_and_keeps_its_key() -> None:
    turned = probed(question("Is there an opacity in the left lung?", "yes", YES_NO))
    assert turned.question == "Is there an opacity in the right lung?" and turned.answer == "yes"


def test_what_names_no_side_keeps_every_word() -> None:
    example = question("How many nodules are there?", "2", ("0", "1", "2"), task="count")
    turned = probed(example)
    assert (turned.content, turned.options, turned.answer) == (example.content, example.options, example.answer)


def test_texts_before_the_question_and_open_answers_are_mirrored_too() -> None:
    example = question("Which lung?", "left lung", aliases=("the left one",))
    shown = (example.content[0], TextRef("Pain on the right."), example.content[-1])
    turned = probed(question("Which lung?", "left lung", aliases=("the left one",), content=shown))
    assert turned.texts == ("Pain on the left.", "Which lung?")
    assert (turned.answer, turned.aliases) == ("right lung", ("the right one",))


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (question("Is the left ventricle enlarged?", "no", YES_NO), "its side by nature"),
        (question("Is the right middle lobe clear?", "no", YES_NO), "its side by nature"),
        (question("Is there dextrocardia?", "no", YES_NO), "other words than left and right"),
        (question("Is the lesion at 3 o'clock?", "no", YES_NO), "hour of the clock"),
        (question("What does the letter on the film say?", "L"), "writing"),
        (question("Is there an opacity in the RUL?", "no", YES_NO), "abbreviates a side"),
        (question("Which eye?", "OD", ("OD", "OS")), "abbreviates a side"),
        (question("Is this a normal chest?", "yes", YES_NO), "is normal"),
        (question("What is seen?", "no abnormality"), "is normal"),
        (question("That is on the left, right?", "yes", YES_NO), "something else than a side"),
        (question("\u5de6\u53f3\u4e24\u4fa7?", "yes", YES_NO), "in one word"),
        (question("Which side?", "left", ("left", "right"), content=(TextRef("Which side?"),)), "no picture"),
    ],
)
def test_what_cannot_be_mirrored_is_left_out_with_the_reason(example, reason: str) -> None:  # type: ignore[no-untyped-def]
    found = mirrored(example, Setting())
    assert isinstance(found, LeftOut) and reason in found.reason


def test_the_left_lateral_ventricle_and_a_normal_eye_have_a_mirror_image() -> None:
    assert probed(question("Is the left lateral ventricle wide?", "no", YES_NO)).question.startswith("Is the right")
    assert probed(question("Is this a normal eye?", "no", YES_NO, modality="fundus")).answer == "no"


def test_mirrored_keys_of_phantoms_are_those_of_the_lesions_places_in_the_mirror() -> None:
    checked = 0
    for phantom, example in phantom_examples():
        found = mirrored(example, Setting())
        if isinstance(found, LeftOut) or example.task not in ("laterality", "location"):
            continue
        turned = found[0].example
        side = {"left" if SIZE_PX - lesion.x_px < SIZE_PX / 2 else "right" for lesion in phantom.lesions}.pop()
        if turned.answer_type == "choice":
            assert turned.answer == (side if example.task == "laterality" else f"{phantom.half} {side}")
        elif example.task == "laterality":
            asked = "left" if "left" in turned.question else "right"
            assert turned.answer == ("yes" if asked == side else "no")
        checked += 1
    assert checked > 60
