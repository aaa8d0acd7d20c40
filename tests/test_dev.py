"""`./dev` installs once: two calls at once take turns, and a wheel that lies there stands in for a compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="./dev needs Python 3.11")
HOUSE = Path(__file__).resolve().parent.parent
# Sourced, `dev help` gives its functions; a step then tells its name and waits for a line instead of working.
STUBS = """
source ./dev help >/dev/null
suitable() { return 0; }
find_compiler() { :; }
step() { echo "step: $1"; read -r _; }
"""
NO_FLOCK = 'command() { [ "$2" != flock ] && builtin command "$@"; }\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    for name in ("dev", "pyproject.toml", "constraints.txt"):
        shutil.copy(HOUSE / name, tmp_path / name)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path


def started(place: Path, more: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", f"{STUBS}{more}install"],
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_wheel_that_is_there_is_installed_without_a_compiler(place: Path) -> None:
    told, _ = started(place).communicate("\n" * 5, timeout=60)
    assert "no C++ compiler" in told and "llama" not in (place / ".dev/requirements.txt").read_text()
    found = re.search(r"^llama_cpp_python==(.*)$", (HOUSE / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    (place / f".dev/wheels/llama_cpp_python-{found[1]}-py3-none-any.whl").touch()
    told, _ = started(place).communicate("\n" * 5, timeout=60)
    assert "no C++ compiler" not in told and "compile llama.cpp" not in told
    assert "llama-cpp-python" in (place / ".dev/requirements.txt").read_text()
    told, _ = started(place).communicate("\n" * 5, timeout=60)
    assert told == ""


@pytest.mark.parametrize("more", ["", NO_FLOCK], ids=["flock", "no flock"])
def test_two_calls_at_once_install_once(place: Path, more: str) -> None:
    if not more and shutil.which("flock") is None:
        pytest.skip("flock is not installed")
    first = started(place, more)
    assert first.stdin is not None and first.stdout is not None
    while not first.stdout.readline().startswith("step: "):
        pass
    second = started(place, more)
    assert second.stdout is not None and second.stdout.readline().startswith("waiting for another ./dev")
    told, _ = first.communicate("\n" * 5, timeout=60)
    assert first.returncode == 0 and "Installed in" in told
    told, _ = second.communicate("\n" * 5, timeout=60)
    assert second.returncode == 0 and told == ""
    assert not (place / ".dev/install.lock.d").exists()
