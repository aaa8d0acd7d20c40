"""Cross-modal phantoms: from one part alone the best guess is exactly at chance, from all parts it is always right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.parts import parts_of
from infimed.evaluation.phantom_canvas import HALF_PX
from infimed.evaluation.phantom_images import KINDS, PhantomError, generator
from infimed.evaluation.phantom_pairs import (
    APPEARED,
    APPEARED_SIZE,
    CELLS,
    CHANGED,
    CHANGES,
    RESOLVED,
    RESOLVED_SIZE,
    SIDES,
    SIZES,
    Cell,
    _exams,
    change_case,
    dealt,
)
from infimed.evaluation.phantom_reports import ASPECTS, report_case, written
from infimed.evaluation.phantom_reports import CELLS as REPORT_CELLS
from infimed.evaluation.phantoms import SINGLE, phantoms, write_phantoms

CT = KINDS["ct"]


def best_guess(seen: Iterable[tuple[Hashable, Hashable]]) -> Fraction:
    """Return what the best table from what is seen to an answer gets right, fitted on the very items it is asked."""
    table: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)
    for shown, answer in seen:
        table[shown][answer] += 1
    right = sum(max(answers.values()) for answers in table.values())
    return Fraction(right, sum(sum(answers.values()) for answers in table.values()))


def frozen(shown: dict[str, object]) -> Hashable:
    return tuple(sorted(shown.items(), key=str))


# wordings, how many answers are offered, the answer
ASKED = [
    (CHANGED, len(CHANGES), lambda cell: cell.change),
    (APPEARED, 2, lambda cell: cell.other),
    (RESOLVED, 2, lambda cell: cell.other),
    (APPEARED_SIZE, 2, lambda cell: cell.new.size),
    (RESOLVED_SIZE, 2, lambda cell: cell.gone.size),
]


@pytest.mark.parametrize(("wordings", "offered", "answer"), ASKED, ids=[one[0][0][:20] for one in ASKED])
def test_one_image_alone_tells_nothing_and_both_tell_all(wordings, offered, answer) -> None:  # type: ignore[no-untyped-def]
    chance = Fraction(1, offered)
    assert best_guess((frozen(cell.prior), answer(cell)) for cell in CELLS) == chance
    assert best_guess((frozen(cell.current), answer(cell)) for cell in CELLS) == chance
    assert best_guess(((frozen(cell.prior), frozen(cell.current)), answer(cell)) for cell in CELLS) == 1


def test_a_side_that_is_asked_about_is_no_hint() -> None:
    asked = [(cell, side) for cell in CELLS for side in SIDES]
    for part in (lambda cell: cell.prior, lambda cell: cell.current):
        seen = (((frozen(part(cell)), side), side == cell.other) for cell, side in asked)
        assert best_guess(seen) == Fraction(1, 2)


def test_a_single_finding_could_not_be_balanced_so_the_check_can_fail() -> None:
    states = ("none", *SIZES)
    pairs = list(product(states, repeat=2))
    said = [(before, after, (states.index(after) > states.index(before)) - (states.index(after) < states.index(before)))
            for before, after in pairs]  # fmt: skip
    assert best_guess((before, change) for before, _, change in said) > Fraction(1, 3)
    leaky = [cell for cell in CELLS if not (cell.change == "grown" and cell.side == "left")]
    assert best_guess((frozen(cell.prior), cell.change) for cell in leaky) > Fraction(1, 3)


def test_image_or_report_alone_tells_nothing_and_both_tell_all() -> None:
    half = Fraction(1, 2)
    assert best_guess((cell.image.seen, cell.agrees) for cell in REPORT_CELLS) == half
    assert best_guess((cell.report.seen, cell.agrees) for cell in REPORT_CELLS) == half
    assert best_guess(((cell.image.seen, cell.report.seen), cell.agrees) for cell in REPORT_CELLS) == 1
    wrong = [cell for cell in REPORT_CELLS if not cell.agrees and cell.aspect != "finding"]
    assert best_guess((cell.image.seen, cell.aspect) for cell in wrong) == Fraction(1, 3)
    assert best_guess((cell.report.seen, cell.aspect) for cell in wrong) == Fraction(1, 3)
    assert best_guess(((cell.image.seen, cell.report.seen), cell.aspect) for cell in wrong) == 1


def test_a_report_is_wrong_in_each_respect_equally_often() -> None:
    wrong = Counter(cell.aspect for cell in REPORT_CELLS if not cell.agrees)
    assert set(wrong) == set(ASPECTS) and len(set(wrong.values())) == 1
    for cell in REPORT_CELLS:
        if cell.agrees or cell.aspect == "finding":
            continue
        one, other = cell.image, cell.report
        differ = {
            "side": one.side != other.side,
            "size": one.size != other.size,
            "number": one.count != other.count,
        }
        assert [name for name, differs in differ.items() if differs] == [cell.aspect]


@pytest.mark.parametrize("cells", [CELLS, REPORT_CELLS], ids=["change", "agreement"])
def test_a_block_of_cases_holds_every_cell_once(cells) -> None:  # type: ignore[no-untyped-def]
    size = len(cells)
    first = [dealt(cells, 7, CT, index, 10) for index in range(size)]
    second = [dealt(cells, 7, CT, index, 10) for index in range(size, 2 * size)]
    assert Counter(first) == Counter(second) == Counter(cells) and first != second


def test_every_written_report_says_what_it_is_made_of() -> None:
    words = {0: ("no",), 1: ("1", "one"), 2: ("2", "two"), 3: ("3", "three")}
    for number, cell in enumerate(REPORT_CELLS):
        told = cell.report
        text = written(told, CT, generator(3, CT, number)).lower()
        said = text.replace(".", "").replace(",", "").split()
        assert any(word in said for word in words[told.count])
        assert (told.size in said) == (told.side in said) == bool(told.count)
        assert ("nodules" in said) == (told.count > 1)


@pytest.mark.parametrize("name", list(KINDS))
def test_the_pictures_show_what_the_cell_says(name: str) -> None:
    kind = KINDS[name]
    for index in range(12):
        cell = dealt(CELLS, 5, kind, index, 10)
        (before, prior), (after, current) = _exams(generator(5, kind, index, 11), kind, cell)
        assert before.scale == after.scale
        for shown, lesions in ((cell.prior, prior), (cell.current, current)):
            for lesion in lesions:
                side = "left" if lesion.x_px < HALF_PX else "right"
                assert ("upper" if lesion.y_px < HALF_PX else "lower") == shown[side].half
                assert (lesion.radius_px > 5) == (shown[side].size == "large")
        moved = [(new - old) for old, new in ((prior[0].x_px, current[0].x_px), (prior[0].y_px, current[0].y_px))]
        assert np.allclose(moved, [after.x - before.x, after.y - before.y]), "the common finding keeps its place"
        if cell.change == "unchanged":
            assert prior[0].radius_px == current[0].radius_px and prior[0].contrast == current[0].contrast
        assert np.hypot(prior[1].x_px - current[1].x_px, prior[1].y_px - current[1].y_px) > 12


def test_a_case_is_a_pure_function_and_its_answers_follow_from_what_is_true() -> None:
    one, again = change_case(CT, 3, 9), change_case(CT, 3, 9)
    assert all(np.array_equal(a, b) for a, b in zip(one.pictures, again.pictures, strict=True))
    assert one.asked == again.asked and one.attributes == again.attributes
    assert one.parts == ("Prior image:", 0, "Current image:", 1)
    cell = dealt(CELLS, 3, CT, 9, 10)
    assert isinstance(cell, Cell) and one.asked[0].answer == cell.change == one.attributes["change"]
    told = report_case(CT, 3, 4)
    assert (told.asked[0].answer == "yes") == told.attributes["agrees"] != (told.asked[1].answer == "yes")


def test_a_dataset_holds_single_and_cross_modal_items_side_by_side(tmp_path: Path) -> None:
    made = write_phantoms(
        tmp_path / "d", 18, 4, ("ct", "fundus"), families=(SINGLE, "change", "agreement"),
        roles={"train": 0.5, "test": 0.5},
    )  # fmt: skip
    opened = Dataset.open(made.folder)
    assert opened.examples == made.examples
    shown = Counter(len(parts_of(example)) for example in opened.examples)
    assert set(shown) == {1, 2}
    change = [example for example in opened.examples if example.task == "change"]
    assert {len(example.images) for example in change} == {2} and len({example.group for example in change}) == 6
    assert {part.name for part in parts_of(change[0])} == {"image-1", "image-2"}
    agreement = next(example for example in opened.examples if example.task == "agreement")
    assert [part.name for part in parts_of(agreement)] == ["image-1", "text-1"]
    groups = {example.group: example.role for example in opened.examples}
    assert Counter(groups.values()) == {"train": 9, "test": 9}
    single = write_phantoms(tmp_path / "single", 6, 4, ("ct", "fundus"), roles={"train": 0.5, "test": 0.5})
    assert {example.id for example in single.examples} <= {example.id for example in opened.examples}
    assert len(list(phantoms([CT], 3, 1))) == 3


@pytest.mark.parametrize("families", [("triple",), (), ("change", "change")])
def test_a_family_that_does_not_exist_is_refused(tmp_path: Path, families: tuple[str, ...]) -> None:
    with pytest.raises(PhantomError, match="family"):
        write_phantoms(tmp_path / "d", 4, 1, families=families)
    assert not (tmp_path / "d").exists()


@pytest.mark.full
@pytest.mark.parametrize("part", ["prior", "current"])
def test_the_pixels_of_one_image_tell_no_more_than_chance(part: str) -> None:
    """A logistic regression on thumbnails reads sizes and places well enough; of what happened it learns nothing."""
    linear = pytest.importorskip("sklearn.linear_model")
    cases = [change_case(kind, 31, index) for kind in (CT, KINDS["mri"]) for index in range(8 * len(CELLS))]
    thumbs = [case.pictures[part == "current"][:, :, 1].reshape(28, 4, 28, 4).mean((1, 3)).ravel() for case in cases]
    pixels = np.array(thumbs) / 255.0
    pixels -= pixels.mean(0)
    change = np.array([case.attributes["change"] for case in cases])
    large_left = np.array([case.attributes[part]["left"][1] == "large" for case in cases])
    train = np.arange(len(cases)) % 3 > 0
    for answer, chance, readable in ((change, 1 / 3, False), (large_left, 1 / 2, True)):
        fitted = linear.LogisticRegression(C=1.0, max_iter=2000).fit(pixels[train], answer[train])
        right = (fitted.predict(pixels[~train]) == answer[~train]).mean()
        spread = (chance * (1 - chance) / (~train).sum()) ** 0.5
        assert (right > chance + 4 * spread) if readable else abs(right - chance) < 3.5 * spread, (part, right)
