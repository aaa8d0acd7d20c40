from __future__ import annotations

from collections.abc import Callable

import pytest

from infimed.cli.app import run

Infimed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def infimed(capsys: pytest.CaptureFixture[str]) -> Infimed:
    """Return the command line as a function: words -> exit code, what went to stdout, what to stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call
