"""Recipes: what is written is what is done, and a slip of the pen is refused with the key that was meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from infimed.training.curate_recipe import CurateRecipe
from infimed.training.recipe import RecipeError, find_recipe, parse_recipe, read_recipe
from infimed.training.sft_recipe import SftRecipe

GOOD = "[train]\nlearning_rate = 1e-3\nsteps = 10\n"


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[Literal["a", "b"], ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate = {self.rate:g}; above 0 and up to 1 is allowed")


@dataclass(frozen=True)
class Outer:
    count: int
    title: str = "none"
    quick: bool = False
    limit: int | None = None
    shares: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


def test_tables_numbers_and_lists_are_read_into_their_types() -> None:
    text = 'count = 3\nlimit = 7\nquick = true\n[shares]\nct = 1\n[inner]\nrate = 1\nnames = ["b", "a"]\n'
    read = parse_recipe(text, Outer)
    assert read == Outer(3, quick=True, limit=7, shares={"ct": 1.0}, inner=Inner(1.0, ("b", "a")))
    assert isinstance(read.inner.rate, float) and isinstance(read.inner.names, tuple)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("count = 1\ntitel = 'x'\n", "unknown key 'titel'; did you mean 'title'?"),
        ("count = 1\n[inner]\nrat = 0.1\n", "[inner] unknown key 'rat'; did you mean 'rate'?"),
        ("count = 1\nzzzz = 1\n", "unknown key 'zzzz'; valid keys: count, title"),
        ("count = '1'\n", "count = '1' is not a whole number"),
        ("count = 1.0\n", "count = 1.0 is not a whole number"),
        ("count = true\n", "count = True is not a whole number"),
        ("count = 1\nquick = 1\n", "quick = 1 is not true or false"),
        ("count = 1\ntitle = 3\n", "title = 3 is not a text in quotes"),
        ("count = 1\nlimit = 'a'\n", "limit = 'a' is not a whole number"),
        ("count = 1\n[inner]\nrate = nan\n", "inner.rate = nan is not a finite number"),
        ("count = 1\n[inner]\nrate = 2\n", "[inner] rate = 2; above 0 and up to 1 is allowed"),
        ("count = 1\n[inner]\nnames = 'a'\n", "inner.names = 'a' is not a list"),
        ("count = 1\n[inner]\nnames = ['c']\n", "inner.names[0] = 'c'; choose one of 'a', 'b'"),
        ("count = 1\ninner = 3\n", "inner = 3 is not a table"),
        ("count = 1\n[shares]\nct = 'x'\n", "shares.ct = 'x' is not a number"),
        ("title = 'x'\n", "key 'count' is missing"),
        ("count = \n", "not valid TOML"),
        (f"count = {'9' * 400}\n", "count is a number of 400 digits; TOML allows 64 bits"),
        (f"count = 1\n[inner]\nrate = {'9' * 400}\n", "inner.rate is a number of 400 digits; TOML allows 64 bits"),
        (f"count = 1\nzzzz = {'9' * 400}\n", "unknown key 'zzzz'; valid keys: count, title"),
        (f"count = {'9' * 5000}\n", "not valid TOML"),
        (f"count = {'[' * 5000}{']' * 5000}\n", "nested too deeply"),
        (f"count = {'[' * 90}{']' * 90}\n", "is not a whole number"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, Outer)
    assert str(caught.value).startswith(f"{path}: ") and says in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        read_recipe(tmp_path / "binary.toml", Outer)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "absent.toml", Outer)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[train]\nlearning_rate = 1e-3\n", "set exactly one of epochs and steps"),
        (GOOD + "epochs = 2\n", "set exactly one of epochs and steps"),
        (GOOD + "[data]\nroles = ['test']\n", "data.roles[0] = 'test'; choose one of"),
        (GOOD + "[lora]\npart = ['vision']\n", "[lora] unknown key 'part'; did you mean 'parts'?"),
        (GOOD + "[lora]\nrank = 0\n", "[lora] rank = 0"),
        (GOOD + "[images]\nmax_pixels = 10\n", "[images] max_pixels = 10"),
        ("[train]\nlearning_rate = 0\nsteps = 1\n", "[train] learning_rate = 0"),
        (GOOD + "warmup = 0.8\ndecay = 0.3\n", "[train] warmup = 0.8, decay = 0.3"),
        (GOOD + "b_rate_ratio = 0.5\n", "[train] b_rate_ratio"),
        (GOOD + "schedule = 'cosin'\n", "train.schedule = 'cosin'; choose one of"),
        (GOOD + "[augment]\nmirror = ['laterality']\n", "[augment] mirror = ['laterality']"),
    ],
)
def test_the_recipe_of_fine_tuning_refuses_what_cannot_be_done(text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, SftRecipe, "sft.toml")
    assert says in str(caught.value)


@pytest.mark.parametrize("key", ["min_side_pixels", "max_aspect"])
def test_a_huge_number_in_a_recipe_of_curation_is_one_line(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"images\.{key} is a number of 400 digits"):
        parse_recipe(f"[images]\n{key} = {'9' * 400}\n", CurateRecipe)
    with pytest.raises(RecipeError, match=f"{key} = 9.22337e\\+18 is outside"):
        parse_recipe(f"[images]\n{key} = {(1 << 63) - 1}\n", CurateRecipe)


def test_a_shipped_recipe_is_found_by_name_and_a_file_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(GOOD, "utf-8")
    assert find_recipe(str(tmp_path / "own.toml")) == tmp_path / "own.toml"
    assert find_recipe("real_images").name == "real_images.toml"
    with pytest.raises(RecipeError, match="real_images"):
        find_recipe("no_such_recipe")


@pytest.mark.parametrize("name", ["demo", "real_images"])
def test_every_shipped_recipe_of_fine_tuning_reads(name: str) -> None:
    assert read_recipe(find_recipe(name), SftRecipe).lora.parts
