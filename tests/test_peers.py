"""The tools that exports are held against: where one cannot be had, the run ends with a sentence and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from infimed.benchmarks.peers import imatrix_command, llama_cpp_source

pytest.importorskip("llama_cpp")


def test_a_folder_that_is_no_llama_cpp_is_refused_by_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFIMED_LLAMA_CPP_SOURCE", str(tmp_path))
    with pytest.raises(SystemExit, match=r"has no convert_hf_to_gguf.py; name llama.cpp's own folder"):
        llama_cpp_source()


def test_a_registry_that_has_no_source_ends_the_run_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFIMED_LLAMA_CPP_SOURCE", raising=False)
    monkeypatch.setenv("INFIMED_BENCHMARK_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit, match="pip cannot download llama-cpp-python=="):
        llama_cpp_source()
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_without_a_compiler_the_importance_matrix_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFIMED_LLAMA_CPP_SOURCE", str(llama_cpp_source()))
    monkeypatch.setenv("INFIMED_BENCHMARK_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SystemExit, match="no C\\+\\+ compiler"):
        imatrix_command()
    assert not list(tmp_path.iterdir())
