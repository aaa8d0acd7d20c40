"""Leaving a part out: each image and report in turn, with its label; and what a run's fall to chance looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from infimed.evaluation.example import YES_NO, TextRef
from infimed.evaluation.parts import is_cross_modal, parts_of
from infimed.evaluation.probe import LeftOut, Setting
from infimed.evaluation.probe_parts import LEAVE_OUT
from infimed.evaluation.probes import PROBES
from infimed.evaluation.report_robustness import tables
from infimed.evaluation.robustness import robustness

from .planted_probes import row, varied, write_clean, write_probe
from .probing import image, question

PRIOR, CURRENT = TextRef("Prior image:"), TextRef("Current image:")
ASKED = TextRef("Has it grown?")
PAIR = question(
    "Has it grown?", "yes", YES_NO, content=(PRIOR, image("one"), CURRENT, image("two"), ASKED), task="change"
)
REPORTED = question("Is it right?", "no", YES_NO, content=(image("one"), TextRef("Report: no mass."), ASKED))


def without(example):  # type: ignore[no-untyped-def]
    found = PROBES[LEAVE_OUT].ask(example, Setting())
    assert not isinstance(found, LeftOut), found
    return {one.variant: one.example for one in found}


def test_each_image_is_left_out_in_turn_with_its_label() -> None:
    rows = without(PAIR)
    assert rows["image-1"].content == (CURRENT, image("two"), ASKED)
    assert rows["image-2"].content == (PRIOR, image("one"), ASKED)
    assert {one.answer for one in rows.values()} == {"yes"} and len(rows) == 2


def test_the_report_and_the_image_are_left_out_in_turn() -> None:
    rows = without(REPORTED)
    assert rows["text-1"].content == (image("one"), ASKED)
    assert rows["image-1"].content == (TextRef("Report: no mass."), ASKED)


@pytest.mark.parametrize(
    "content",
    [(image("one"), ASKED), (TextRef("Image:"), image("one"), ASKED), (TextRef("A"), TextRef("B"), ASKED), (ASKED,)],
)
def test_an_item_of_one_part_or_without_an_image_is_not_covered(content) -> None:  # type: ignore[no-untyped-def]
    single = question("Has it grown?", "yes", YES_NO, content=content)
    assert isinstance(PROBES[LEAVE_OUT].ask(single, Setting()), LeftOut)
    assert not is_cross_modal(len(single.images), len(parts_of(single)))


def test_a_colon_that_stands_before_no_image_is_a_text_of_its_own() -> None:
    asked = question("Q", "yes", YES_NO, content=(image("one"), TextRef("Report:"), TextRef("no mass"), ASKED))
    assert [part.name for part in parts_of(asked)] == ["image-1", "text-1", "text-2"]


def test_a_run_that_needs_both_parts_relies_on_both_and_falls_to_chance(tmp_path: Path) -> None:
    rows = [row(f"g{number}/1", ("yes", "no"), ("yes", "no")[number % 2]) for number in range(200)]
    clean = write_clean(tmp_path, "gguf-f16", rows, lambda number: ("yes", "no")[number % 2])
    write_clean(tmp_path, "gguf-q2_k", rows, lambda number: ("yes", "no")[number % 2])
    probed = [varied(one, "image-1", "yes") for one in clean]  # says yes to all without the first image
    probed += [varied(one, "image-2", one.answer) for one in clean]  # and does not need the second
    for run in ("gguf-f16", "gguf-q2_k"):
        write_probe(tmp_path, run, LEAVE_OUT, probed)
    found = robustness(tmp_path, "gguf-f16", 0.05)
    assert found is not None
    reliance = {one.name: one for one in found.reliance if one.run == "gguf-f16"}
    first, second = reliance["image 1 reliance"], reliance["image 2 reliance"]
    assert first.value == pytest.approx(0.5) and first.lower > 0.4 and first.upper < 0.6
    assert second.value == 0 and second.lower < 0 < second.upper
    figures = next(one for one in found.figures if one.run == "gguf-f16")
    named = {one.name: one.share for one in figures.named}
    assert named["right without image 1 (chance 50.0%)"].value == pytest.approx(0.5)
    assert named["right without image 2 (chance 50.0%)"].value == 1
    written = "\n".join(cell for table in tables(found) for line in table.rows for cell in line)
    assert "+50.0 [" in written and not found.contrasts
