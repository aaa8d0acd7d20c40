"""The first gates: licence, image, text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from infimed.evaluation.dataset import image_ref
from infimed.evaluation.example import Example
from infimed.training.curate_fingerprints import Fingerprint, fingerprint
from infimed.training.curate_gates import image_gate, licence_gate, text_gate
from infimed.training.curate_recipe import ImageRules, LicenceRules, TextRules

from .curation_rows import example, pictures, png

IMAGE = image_ref(png(pictures(1)[0]))


def choice(question: str, answer: str, *options: str) -> Example:
    return example("q", None, question, answer=answer, options=options, answer_type="choice")


def open_question(question: str, answer: str) -> Example:
    return example("q", None, question, answer=answer, options=(), answer_type="open")


@pytest.mark.parametrize(
    ("licence", "passes"),
    [("CC0-1.0", True), ("cc-by-4.0", True), ("MIT", True), ("CC-BY-NC-4.0", False), ("CC0-1.0 (unverified)", False)],
)
def test_only_listed_licences_pass(licence: str, passes: bool) -> None:
    left_out = list(licence_gate([example("q", license=licence)], LicenceRules()))
    assert (not left_out) == passes
    assert list(licence_gate([example("q", license="ours")], LicenceRules(allow=("ours",)))) == []


@pytest.mark.parametrize(
    ("rgb", "reason"),
    [
        (np.full((100, 100, 3), 128, np.uint8), "image is nearly constant"),
        (np.random.default_rng(0).integers(0, 255, (40, 100, 3), dtype=np.uint8), "image is too small"),
        (np.random.default_rng(0).integers(0, 255, (70, 300, 3), dtype=np.uint8), "image is too long for its width"),
    ],
)
def test_images_that_carry_nothing_are_left_out(rgb: np.ndarray[Any, Any], reason: str) -> None:
    ref = image_ref(png(rgb))
    (row,) = image_gate([example("q", ref)], {ref.path: fingerprint(rgb)}, ImageRules())
    assert (row.stage, row.reason, row.evidence["image"]) == ("image", reason, ref.path)


def test_an_image_that_cannot_be_opened_is_left_out_with_the_error() -> None:
    ref = image_ref(png(pictures(1)[0]))
    (row,) = image_gate([example("q", ref)], {ref.path: "truncated"}, ImageRules())
    assert row.reason == "image cannot be opened" and row.evidence["error"] == "truncated"


def test_blur_is_judged_within_a_modality_that_has_enough_images() -> None:
    rgbs = pictures(30)
    rgbs[7] = np.asarray(Image.fromarray(rgbs[7]).filter(ImageFilter.GaussianBlur(4)))
    refs = [image_ref(png(rgb)) for rgb in rgbs]
    prints: dict[str, Fingerprint | str] = {ref.path: fingerprint(rgb) for ref, rgb in zip(refs, rgbs, strict=True)}
    rows = [example(f"q{number}", ref) for number, ref in enumerate(refs)]
    found = list(image_gate(rows, prints, ImageRules(blur_min_images=30)))
    assert [(row.id, row.reason) for row in found] == [("q7", "image is blurred for its modality")]
    assert list(image_gate(rows, prints, ImageRules(blur_min_images=31))) == []
    assert list(image_gate(rows, prints, ImageRules(blur_min_images=1, blur_percentile=0))) == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (example("q", None, "Mass?"), "question is too short"),
        (example("q", IMAGE, "mass " * 200), "question is too long"),
        (example("q", None, "Is it\ufffds there?"), "text has unreadable characters"),
        (example("q", None, "Is there a \x07mass here?"), "text has unreadable characters"),
        (choice("Where is the tumour of the left lung?", "left lung", "left lung", "heart"), "its answer away"),
        (open_question("Is the trachea midline?", "Midline"), "its answer away"),
    ],
)
def test_questions_that_cannot_be_meant_are_left_out(row: Example, reason: str) -> None:
    (found,) = text_gate([row], TextRules())
    assert found.stage == "text" and reason in found.reason


@pytest.mark.parametrize(
    "row",
    [
        example("q", None, "mass " * 200),
        choice("Is this the left or the right eye?", "left eye", "left eye", "right eye"),
        choice("Is this a CT, MRI, X-ray image?", "CT", "CT", "MRI", "X-ray"),
        choice("A woman of 5 weeks. What is the score?", "5", "3", "5"),
        open_question("Is it CT or MRI?", "MRI"),
        open_question("Which lobe\nis\taffected\u00a0here?\u200b", "the upper\u2009one"),
        example("q", None, "Does the yes-man say yes?"),
    ],
)
def test_questions_that_can_be_meant_stay(row: Example) -> None:
    assert list(text_gate([row], TextRules())) == []
