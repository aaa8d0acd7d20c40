"""Which TensorRT a build takes, and what is told where there is none; the building itself is in tests/export."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from infimed import MissingExtra
from infimed.runtime.tensorrt_build import MODULES, TensorrtError, find_tensorrt


@pytest.fixture(autouse=True)
def none_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)


def test_without_any_the_line_names_what_the_asked_gpu_needs() -> None:
    with pytest.raises(MissingExtra, match=r"'\.\[tensorrt\]'"):
        find_tensorrt()
    with pytest.raises(TensorrtError, match="pip install --no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"):
        find_tensorrt(for_another_gpu=True)


def test_for_another_gpu_that_for_rtx_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert find_tensorrt().__name__ == "tensorrt"
    assert find_tensorrt(for_another_gpu=True).__name__ == "tensorrt_rtx"
