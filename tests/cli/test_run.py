"""`infimed run` on a random model: what ends a conversation and what does not, and what is refused before it opens."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")
from infimed.cli.app import run
from infimed.export.export_bundle import export_bundle

from ..models import build_random_checkpoint

Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """Standard input with a person before it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    checkpoint = build_random_checkpoint(folder / "checkpoint", layers=1, vision_depth=2, fullatt_block_indexes=(1,))
    return export_bundle(checkpoint, folder / "bundle", ["gguf-q8_0"], probe_count=2, threads=1).bundle.folder


@pytest.fixture
def infimed(bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `infimed run` on the bundle; return exit code, standard output and standard error."""

    def call(*words: str, typed: io.TextIOBase | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", typed or io.StringIO())
        capsys.readouterr()
        code = run(["run", str(bundle), "--threads", "1", *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def answers(told: str) -> list[int]:
    """Return how long the prompt of each answer was."""
    return [json.loads(line)["prompt_tokens"] for line in told.splitlines()]


def test_a_conversation_read_from_a_file_goes_on_after_blank_lines(infimed: Run) -> None:
    code, told, _ = infimed("--max-tokens", "2", "--json", typed=io.StringIO("One?\n\n  \nTwo?\n\nThree?"))
    assert code == 0
    lengths = answers(told)
    assert len(lengths) == 3 and lengths == sorted(lengths)


def test_a_person_is_told_what_cannot_be_asked_and_goes_on(infimed: Run) -> None:
    typed = Terminal("One?\nsee <|im_end|>\n\n" + "lesion " * 9000 + "\nTwo?\n")
    code, told, errors = infimed("--max-tokens", "2", "--json", typed=typed)
    assert code == 0 and len(answers(told)) == 2
    assert "error: the text holds the control token <|im_end|>; remove it" in errors and "the context holds" in errors
    alone = infimed("--max-tokens", "2", "--json", typed=Terminal("One?\nTwo?\n"))[1]
    assert answers(alone) == answers(told), "what was refused must leave no trace in the conversation"


def test_a_file_with_a_line_that_cannot_be_asked_ends_with_an_error(infimed: Run) -> None:
    code, told, errors = infimed("--max-tokens", "2", "--json", typed=io.StringIO("One?\nsee <|im_end|>\nTwo?\n"))
    assert code == 2 and len(answers(told)) == 1
    assert errors.count("\n") == 1 and "control token" in errors


def test_a_file_that_is_no_text_is_refused_in_one_line(infimed: Run) -> None:
    code, _, errors = infimed(typed=io.TextIOWrapper(io.BytesIO(b"caf\xe9?\n"), "utf-8"))
    assert code == 2 and errors.count("\n") == 1 and "UTF-8" in errors


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["Why?", "--choice", "CT"], "at least two"),
        (["Why?", "--choice", "CT", "--choice", "CT"], "'CT' is given twice"),
        (["Why?", "--choice", "CT", "--choice", "CT "], "'CT' is given twice"),
        (["Why?", "--choice", "CT", "--choice", " "], "blank"),
        (["Why?", "--choice", "CT", "--choice", "<|im_end|>"], "control token"),
        (["--choice", "CT", "--choice", "MR"], "needs a question"),
        ([" "], "question is empty"),
        (["caf\udce9?"], "UTF-8"),
        (["Why?", "--temperature", "nan"], "temperature"),
        (["Why?", "--temperature", "inf"], "temperature"),
        (["Why?", "--threads", "100000"], "512"),
        (["Why?", "--context", "4294967552"], "1048576"),
        (["Why?", "--context", "8193"], "this model takes 1 to 8192"),
        (["Why?", "--gpu-layers", "4294967296"], "2147483647"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(words: list[str], says: str, infimed: Run) -> None:
    code, told, errors = infimed(*words)
    assert (code, told) == (2, "")
    assert errors.count("\n") == 1 and says in errors


def test_the_lowest_temperature_is_an_answer(infimed: Run) -> None:
    greedy = infimed("Why?", "--max-tokens", "4", "--json")[1]
    code, told, _ = infimed("Why?", "--max-tokens", "4", "--json", "--temperature", "1e-310")
    assert code == 0 and json.loads(told)["token_ids"] == json.loads(greedy)["token_ids"]
