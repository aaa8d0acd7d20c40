"""Phantoms: same seed same bytes, balanced questions, stated ranges, and attributes that agree with the picture."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.example import MODALITIES
from infimed.evaluation.example import TASKS as EXAMPLE_TASKS
from infimed.evaluation.phantom_canvas import HALF_PX, SIZE_PX
from infimed.evaluation.phantom_images import (
    CENTRES_PX,
    CONTRAST_SHARE,
    GAP_PX,
    KINDS,
    RADIUS_PX,
    Phantom,
    PhantomError,
    kinds_named,
    phantom,
)
from infimed.evaluation.phantom_questions import MARGIN_PX, NOTHING, TASKS, caption, questions
from infimed.evaluation.phantoms import phantoms, png_bytes, write_phantoms
from infimed.runtime.images import open_image

NAMES = tuple(KINDS)


@pytest.fixture(scope="module")
def series() -> list[Phantom]:
    return list(phantoms(tuple(KINDS.values()), 720, 5))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = write_phantoms(tmp_path / "first", 12, 7)
    again = write_phantoms(tmp_path / "again", 12, 7)
    other = write_phantoms(tmp_path / "other", 12, 8)
    assert first.manifest.to_bytes() == again.manifest.to_bytes()
    assert first.sha256 != other.sha256
    assert not set(first.manifest.images) & set(other.manifest.images)


def test_a_phantom_depends_on_kind_seed_and_index_alone() -> None:
    kinds = kinds_named(("mri", "fundus"))
    in_a_series = list(phantoms(kinds, 6, 3))[5]
    alone = phantom(KINDS["fundus"], 3, 2)
    assert np.array_equal(in_a_series.rgb, alone.rgb) and in_a_series.lesions == alone.lesions


def test_pixels_are_those_of_the_first_release() -> None:
    digest = hashlib.sha256(b"".join(phantom(kind, 1, 0).rgb.tobytes() for kind in KINDS.values())).hexdigest()
    assert digest == GOLDEN, "phantoms changed: the base model must be trained and measured again"


def test_an_image_file_gives_its_pixels_back() -> None:
    one = phantom(KINDS["histopathology"], 2, 4)
    assert np.array_equal(open_image(png_bytes(one.rgb)), one.rgb)


def test_every_lesion_lies_within_the_stated_ranges(series: list[Phantom]) -> None:
    for one in series:
        assert one.rgb.shape == (SIZE_PX, SIZE_PX, 3) and one.rgb.dtype == np.uint8
        assert (one.size is None) == (one.side is None) == (not one.lesions)
        for number, lesion in enumerate(one.lesions):
            low, high = RADIUS_PX[one.size]
            assert low <= lesion.radius_px <= high
            weak, strong = one.kind.contrast
            share = CONTRAST_SHARE[one.size]
            assert weak * share <= lesion.contrast <= strong * share
            assert (lesion.x_px < HALF_PX) == (one.side == "left")
            assert abs(lesion.x_px - HALF_PX) > lesion.radius_px, "a lesion crosses the middle line"
            for other in one.lesions[:number]:
                apart = np.hypot(lesion.x_px - other.x_px, lesion.y_px - other.y_px)
                assert apart >= max(CENTRES_PX, lesion.radius_px + other.radius_px + GAP_PX)


def test_counts_sides_and_sizes_are_balanced(series: list[Phantom]) -> None:
    counts = Counter(len(one.lesions) for one in series)
    assert [round(counts[number] / len(series), 1) for number in range(4)] == [0.4, 0.2, 0.2, 0.2]
    affected = [one for one in series if one.lesions]
    for value in (
        np.mean([one.side == "left" for one in affected]),
        np.mean([one.size == "large" for one in affected]),
    ):
        assert abs(value - 0.5) < 3 * 0.5 / len(affected) ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_lesions_stand_out_in_the_picture_where_the_attributes_say(name: str) -> None:
    inside, around = [], []
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX] + 0.5
    for index in range(40):
        one = phantom(KINDS[name], 21, index)
        green = one.rgb[:, :, 1].astype(float)
        for lesion in one.lesions:
            distance = np.hypot(columns - lesion.x_px, rows - lesion.y_px)
            inside.append(green[distance < lesion.radius_px - 1].mean())
            around.append(np.median(green[(distance > lesion.radius_px + 1.5) & (distance < lesion.radius_px + 4)]))
    difference = np.array(inside) - np.array(around)
    brighter = name in ("ct", "mri", "xray", "ultrasound")
    assert ((difference > 0) == brighter).mean() > 0.9
    assert abs(difference.mean()) > 20


def test_closed_questions_are_balanced_so_that_words_alone_tell_nothing() -> None:
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    positions: Counter[int] = Counter()
    for kind in KINDS.values():
        for index in range(500):
            for question in questions(phantom(kind, 77, index)):
                if question.task in ("modality", "anatomy"):
                    positions[question.options.index(question.answer) if question.options else -1] += 1
                elif question.answer_type != "open":
                    answers[question.task, question.wording][question.answer] += 1
                else:
                    answers[question.task, ""]["none" if question.answer == NOTHING else "some"] += 1
    assert {task for task, _ in answers} == set(TASKS) - {"modality", "anatomy"}
    for key, found in answers.items():
        items, chance = sum(found.values()), 1 / len(found)
        spread = 4 * (chance * (1 - chance) / items) ** 0.5
        for answer, number in found.items():
            assert abs(number / items - chance) < spread, (key, answer, found)
    offered = [positions[place] for place in range(4)]
    assert min(offered) > 0.9 * sum(offered) / 4


def test_answers_follow_from_the_phantom(series: list[Phantom]) -> None:
    for one in series[:120]:
        for question in questions(one):
            match question.task:
                case "count":
                    assert question.answer == str(len(one.lesions))
                case "laterality" if question.answer_type == "choice":
                    assert question.answer == one.side
                case "laterality":
                    assert question.answer == ("yes" if f"{one.side} side" in question.text else "no")
                case "size" if question.answer_type == "choice":
                    assert question.answer == one.size
                case "location" if question.answer_type == "choice":
                    assert question.answer == f"{one.half} {one.side}"
                    assert all(abs(lesion.y_px - HALF_PX) >= MARGIN_PX for lesion in one.lesions)
                case "finding":
                    assert question.answer == ("yes" if one.lesions else "no")
                case "open":
                    assert question.answer == (one.kind.finding if one.lesions else NOTHING)


def test_a_caption_names_every_lesion(series: list[Phantom]) -> None:
    for one in series[:60]:
        said = caption(one)
        places = said.count("upper") + said.count("lower")
        assert places == len(one.lesions) and one.kind.said in said


def test_a_dataset_of_phantoms_opens_and_keeps_what_is_true(tmp_path: Path) -> None:
    made = write_phantoms(
        tmp_path / "d",
        10,
        4,
        ("ultrasound",),
        tasks=("count", "finding"),
        per_image=2,
        roles={"train": 0.6, "test": 0.4},
    )
    opened = Dataset.open(made.folder)
    assert opened.examples == made.examples
    assert {example.modality for example in opened.examples} == {"ultrasound"}
    assert {example.task for example in opened.examples} <= {"count", "finding"}
    groups = Counter(example.group for example in opened.examples)
    assert max(groups.values()) <= 2 and len(groups) == 10
    assert Counter(dict(opened.manifest.roles).values()) == {"train": 6, "test": 4}
    for example in opened.examples:
        assert example.task in EXAMPLE_TASKS and example.modality in MODALITIES
        if example.task == "count":
            assert int(example.answer) == len(example.attributes["lesions"])
        assert opened.images(example)[0].shape == (SIZE_PX, SIZE_PX, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"images": 0}, "0 images"),
        ({"modalities": ("mri", "pet")}, "'pet'"),
        ({"tasks": ("grading",)}, "grading"),
        ({"per_image": 0}, "0 questions"),
        ({"seed": -1}, "seed -1"),
        ({"roles": {"train": -1.0}}, "shares"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(
    tmp_path: Path, arguments: dict[str, object], said: str
) -> None:
    with pytest.raises(PhantomError, match=said):
        write_phantoms(tmp_path / "d", **({"images": 6, "seed": 1} | arguments))
    assert not (tmp_path / "d").exists()


GOLDEN = "e27d6067a13680e8af052538c316bd51f9da73f398c2dbc14a44f536a3dfe2c0"
