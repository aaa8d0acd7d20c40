"""Names of levels: each is written in one way, and what says nothing in it is refused with what could stand there."""

from __future__ import annotations

import pytest

from infimed.runtime.levels import LEVELS, UnknownLevel, full_precision_of, level


def test_every_row_is_found_by_its_name() -> None:
    for row in LEVELS:
        assert level(row.name) == row
        needed = "+imatrix" if row.importance == "required" else ""
        assert row.name == row.base + needed and row.base == f"{row.format}-{row.base.partition('-')[2]}"
    assert len({row.name for row in LEVELS}) == len(LEVELS)


def test_each_format_has_one_level_of_full_precision() -> None:
    for format in dict.fromkeys(row.format for row in LEVELS):
        assert full_precision_of(format).full_precision


def test_additions_are_read_and_written_in_one_order() -> None:
    both = level("gguf-q4_k_m+imatrix+vision-q8_0")
    assert (both.base, both.imatrix, both.vision) == ("gguf-q4_k_m", True, "q8_0")
    assert both.name == "gguf-q4_k_m+imatrix+vision-q8_0"
    assert level("gguf-q8_0+vision-f32").vision == "f32"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gguf-q9", "levels: gguf-f32"),
        ("gguf-q8_0+imatrix", "ask for gguf-q8_0"),
        ("gguf-iq3_xxs", "ask for gguf-iq3_xxs+imatrix, and add --calibration DATASET"),
        ("gguf-iq3_xxs+vision-q8_0", "ask for gguf-iq3_xxs+imatrix+vision-q8_0, and"),
        ("gguf-q4_k_m+vision-int8", "can be f32, f16, q8_0"),
        ("gguf-q4_k_m+vision-f16", "is gguf-q4_k_m"),
        ("gguf-q4_k_m+vision-q8_0+imatrix", "'imatrix' says nothing there"),
        ("gguf-q4_k_m+imatrix+imatrix", "'imatrix' says nothing there"),
        ("gguf-q4_k_m+", "says nothing there"),
        ("", "is unknown"),
    ],
)
def test_other_names_are_refused_with_what_could_stand_there(name: str, said: str) -> None:
    with pytest.raises(UnknownLevel, match=said.replace("+", r"\+")):
        level(name)
