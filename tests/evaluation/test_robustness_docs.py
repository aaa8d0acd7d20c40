"""docs/robustness.md names every probe with its key and what it does, and its pictures are there and small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infimed.evaluation.corruptions import BLUR_SHARE, GAMMA, JPEG_QUALITY, NOISE_SD, ROTATION_DEGREES, SCALE
from infimed.evaluation.probes import PROBES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "robustness.md").read_text("utf-8")
ROWS = {cells[1].strip(" `"): cells for cells in (line.split("|") for line in PAGE.splitlines()) if len(cells) == 7}


@pytest.mark.parametrize("name", PROBES)
def test_the_table_has_a_row_for_every_probe_with_its_key(name: str) -> None:
    assert ROWS[name][4].strip() == PROBES[name].key


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("noise", NOISE_SD),
        ("blur", [100 * share for share in BLUR_SHARE]),
        ("jpeg", JPEG_QUALITY),
        ("gamma", GAMMA),
        ("rotation", ROTATION_DEGREES),
        ("downscale", [100 * share for share in SCALE]),
    ],
)
def test_the_severities_are_those_of_the_code(name: str, values) -> None:  # type: ignore[no-untyped-def]
    told = ", ".join(f"{value:g}" for value in values)
    assert told in ROWS[name][2] and told in PROBES[name].says


def test_the_pictures_are_there_and_small() -> None:
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE)
    assert len(named) == 3
    assert sum((DOCS / path).stat().st_size for path in named) <= 300_000
    assert {path.name for path in (DOCS / "robustness").iterdir() if path.suffix in (".png", ".jpg")} == {
        Path(path).name for path in named
    }
