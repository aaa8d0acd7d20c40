"""The page of what was shown: in order, complete, and only of tests that passed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .support import HEAD, Shown, page

HOUSE = Path(__file__).resolve().parent.parent
LEVELS = ("gguf-f32", "gguf-q4", "onnx-int8")


def test_a_row_goes_as_text_and_comes_back() -> None:
    row = Shown("llama", "gguf-q4", "llama.cpp", "executed", 'says "so"')
    assert Shown.from_text(row.to_text()) == row


def test_levels_stand_in_their_order_and_what_no_test_ran_is_said() -> None:
    found = [
        Shown("qwen2", "every gguf level", "llama.cpp", "refused", "an image"),
        Shown("qwen2", "onnx-int8", "onnxruntime", "executed"),
        Shown("qwen2", "gguf-q4+imatrix", "llama.cpp", "executed"),
        Shown("qwen2", "gguf-q4", "llama.cpp", "executed"),
        Shown("llama", "gguf-f32", "llama.cpp", "executed"),
    ]
    made = page([*found, found[0]], LEVELS)
    assert made.startswith(HEAD) and made == page(reversed(found), LEVELS)
    rows = [
        line for line in made.removeprefix(HEAD).splitlines() if line.startswith(("##", "| gguf", "| onnx", "| every"))
    ]
    assert rows == [
        "## llama",
        "| gguf-f32 | llama.cpp | executed |  |",
        "| gguf-q4 |  | not shown |  |",
        "| onnx-int8 |  | not shown |  |",
        "## qwen2",
        "| gguf-f32 |  | not shown |  |",
        "| gguf-q4 | llama.cpp | executed |  |",
        "| gguf-q4+imatrix | llama.cpp | executed |  |",
        "| onnx-int8 | onnxruntime | executed |  |",
        "| every gguf level | llama.cpp | refused | an image |",
    ]


def test_the_page_of_this_house_speaks_of_every_family_and_level() -> None:
    from infimed.runtime.families import FAMILIES
    from infimed.runtime.levels import LEVELS as ROWS

    text = (HOUSE / "docs/support.md").read_text("utf-8")
    assert text.startswith(HEAD), "write it again: ./dev test --full --support docs/support.md"
    parts = {part.split("\n")[0]: part for part in text.removeprefix(HEAD).split("## ")[1:]}
    assert set(parts) == {family.name for family in FAMILIES}
    for part in parts.values():
        ran = {line.split("|")[1].strip() for line in part.splitlines() if "| executed |" in line}
        assert {row.name for row in ROWS} <= ran, "a level that no test ran"


TESTS = """
import pytest
from infimed.tests.support import Shown

def test_it_works(shown):
    shown(Shown("llama", "gguf-f32", "llama.cpp", "executed"))

def test_it_states_nothing():
    pass
"""
BROKEN = """
def test_it_breaks(shown):
    shown(Shown("llama", "gguf-f16", "llama.cpp", "executed"))
    assert False
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder that has the house's conftest."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def house(folder: Path) -> Path:
    """Return a folder whose pytest has our conftest and one test that states something."""
    tests = folder / "tests"
    tests.mkdir(parents=True)
    for name in ("conftest.py", "support.py"):
        (tests / name).write_text((HOUSE / "tests" / name).read_text("utf-8"), "utf-8")
    (tests / "__init__.py").touch()
    (folder / "docs").mkdir()
    (folder / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib\nmarkers = full\n"
    )
    (tests / "test_one.py").write_text(TESTS.replace("infimed.tests", "tests"))
    return folder


@pytest.mark.full
def test_the_page_is_written_by_what_states_and_held_by_a_whole_run(tmp_path: Path) -> None:
    place = house(tmp_path)
    written = run(place, "--full", "--support", "docs/support.md")
    assert written.returncode == 0 and "1 passed, 1 deselected" in written.stdout, written.stdout
    text = (place / "docs/support.md").read_text("utf-8")
    assert "| gguf-f32 | llama.cpp | executed |  |" in text and "| gguf-q4_k_m |  | not shown |  |" in text
    assert run(place, "--full").returncode == 0
    (place / "docs/support.md").write_text(text.replace("executed", "refused"), "utf-8")
    held = run(place, "--full")
    assert held.returncode == 1 and "docs/support.md is not what the tests did" in held.stdout
    assert run(place, "--full", "-k", "works").returncode == run(place).returncode == 0


@pytest.mark.full
def test_a_test_that_fails_states_nothing_and_a_choice_of_tests_writes_no_page(tmp_path: Path) -> None:
    place = house(tmp_path)
    (place / "tests/test_two.py").write_text("from tests.support import Shown\n" + BROKEN)
    for options in (["--full"], [], ["--full", "-k", "works"], ["--full", "tests/test_one.py"]):
        done = run(place, *options, "--support", "docs/support.md")
        assert done.returncode, options
    assert not list((place / "docs").iterdir())
