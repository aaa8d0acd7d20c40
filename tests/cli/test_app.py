"""What a user sees when a command line is wrong, refused, interrupted or broken: one line and the right exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infimed import CheckFailed, InfimedError, MissingExtra
from infimed.cli import app as cli


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a function in the place of the verb `verify` and run it through the whole command line."""

    def run(function: Any, *arguments: str) -> int:
        real = cli.load

        def load(row: cli.Verb) -> Any:
            import typer

            if row.name != "verify":
                return real(row)
            single = typer.Typer(add_completion=False)
            single.command("verify")(function)
            return typer.main.get_command(single)

        monkeypatch.setattr(cli, "load", load)
        return cli.run([*arguments, "verify"])

    return run


def raising(error: BaseException) -> Any:
    def verify() -> None:
        raise error

    return verify


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err.strip()


def test_a_job_that_ends_well_exits_with_0(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def verify() -> None:
        print("seen")

    assert verb(verify) == 0
    assert capsys.readouterr().out == "seen\n"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InfimedError("level 'q9' is unknown"), 2, "error: level 'q9' is unknown"),
        (CheckFailed("model.gguf was\nchanged"), 1, "error: model.gguf was changed"),
        (
            MissingExtra("train", "torch"),
            2,
            "error: torch is not installed; in infimed's source folder run: pip install '.[train]'",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png"), 2, "error: a.png: No such file"),
        (OSError(errno.ENOSPC, "No space left on device", "b/x.part"), 2, "error: the disk is full for b/x.part;"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: the disk is full;"),
        (OSError(errno.EFBIG, "File too large"), 2, "error: a file would be larger than this process may write;"),
        (OSError(errno.EIO, "Input/output error"), 2, "error: the disk fails (input/output error);"),
        (OSError(errno.EROFS, "Read-only file system", "b"), 2, "error: the disk is read-only for b;"),
        (
            InfimedError("\x1b]0;owned\x07\u202egnp.exe \udcff \u00e9"),
            2,
            "error: \\x1b]0;owned\\x07\\u202egnp.exe \\udcff \u00e9",
        ),
        (MemoryError(), 2, "error: this machine has too little memory"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    verb: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, says: str
) -> None:
    assert verb(raising(error)) == code
    if says:
        assert one_line(capsys).startswith(says)


def test_an_internal_error_tells_its_kind_and_place_but_not_its_text(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(raising(KeyError("patient 4711"))) == 3
    line = one_line(capsys)
    assert line.startswith("internal error: KeyError in ") and "--debug" in line
    assert "4711" not in line


@pytest.mark.parametrize(
    "error",
    [
        CheckFailed("changed"),
        InfimedError("wrong"),
        MemoryError(),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EBADF, "Bad file descriptor"),
    ],
)
def test_debug_adds_a_trace_and_changes_neither_the_line_nor_the_exit_code(
    verb: Any, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    code = verb(raising(error))
    line = one_line(capsys)
    assert verb(raising(error), "--debug") == code
    told = capsys.readouterr().err
    assert told.startswith("Traceback") and told.strip().splitlines()[-1] == line


def test_debug_shows_the_trace_of_an_internal_error(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(raising(KeyError("some key")), "--debug") == 3
    said = capsys.readouterr().err
    assert "Traceback" in said and "some key" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verfy"], "No such command 'verfy'. Did you mean 'verify'?"),
        (["verify"], "Missing argument"),
        (["verify", "a", "b"], "extra argument"),
        (["verify", "--jsn", "a"], "--jsn"),
        (["--wrong"], "--wrong"),
    ],
)
def test_wrong_use_is_one_line_that_names_the_help(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert cli.run(arguments) == 2
    line = one_line(capsys)
    assert line.startswith("error: ") and says in line and "--help`" in line


def test_no_arguments_show_the_help_and_count_as_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    captured = capsys.readouterr()
    assert "Usage" in captured.out + captured.err


def test_a_folder_that_is_no_bundle_is_refused_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["verify", str(tmp_path)]) == 2
    assert "is no bundle" in one_line(capsys)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_early_is_no_error(tmp_path: Path, unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", "from infimed.cli.app import main; main()", "--version"],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_text_that_is_not_utf_8_gives_no_trace_in_or_out(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom infimed.cli import app\n"
        "app.run = lambda words: print(sys.stdin.read().strip(), words[0], '\\u00d7') or 0\napp.main()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for more in ({"PYTHONUTF8": "1"}, {}):
        done = subprocess.run(
            [sys.executable, "-c", code, b"a\xff"],
            input=b"fi\xe8vre",
            capture_output=True,
            timeout=60,
            env={**environment, **more},
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.startswith(b"fi\\udce8vre a\\udcff ")
