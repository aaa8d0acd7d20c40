"""Quantised rows against gguf-py's own quantiser and reader, and what is refused before libggml sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")

from infimed.runtime.ggml_rows import (  # noqa: E402
    RowsError,
    dequantise,
    halves,
    needs_importance,
    quantise,
    row_bytes,
    singles,
    tensor_rows,
)
from infimed.runtime.gguf_file import TENSOR_TYPES, read_gguf  # noqa: E402

# libggml takes seconds to build the tables of the IQ2 and IQ3 types.
TYPES = [
    pytest.param(kind.name, marks=[pytest.mark.full] if kind.name.startswith(("IQ2", "IQ3")) else [])
    for kind in TENSOR_TYPES.values()
]
WIDTH = 512


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    drawn = np.random.default_rng(3).standard_normal((6, WIDTH), np.float32)
    drawn[1] *= 1e-6
    drawn[2] = 0
    drawn[3, ::7] *= 300
    return drawn


def importance() -> NDArray[np.float32]:
    return np.square(np.random.default_rng(4).standard_normal(WIDTH)).astype(np.float32) + np.float32(0.01)


@pytest.mark.parametrize("name", TYPES)
def test_bytes_of_every_type_are_read_as_gguf_py_reads_them(name: str, rows: NDArray[np.float32]) -> None:
    stored = quantise(rows, name, importance())
    assert stored.shape == (6, row_bytes(name, WIDTH))
    kind = gguf.GGMLQuantizationType[name]
    theirs = gguf.quants.dequantize(stored.view(np.float32) if name == "F32" else stored, kind)
    ours = dequantise(stored, name, rows.size)
    assert np.array_equal(ours, np.asarray(theirs, np.float32).reshape(-1))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_rows_are_quantised_as_gguf_py_quantises_them(name: str, rows: NDArray[np.float32]) -> None:
    ours = quantise(rows, name)
    theirs = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[name])
    assert np.array_equal(ours, theirs.view(np.uint8).reshape(ours.shape))


def test_an_importance_makes_errors_small_where_it_is_large(rows: NDArray[np.float32]) -> None:
    weights = np.ones(WIDTH, np.float32)
    weights[::2] = 1000
    errors = {}
    for given in (None, weights):
        found = dequantise(quantise(rows, "Q2_K", given), "Q2_K", rows.size).reshape(rows.shape)
        errors[given is None] = float(np.mean((found - rows)[0, ::2] ** 2))
    assert errors[False] < 0.8 * errors[True]


def test_halves_are_numpys_to_the_bit() -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 50_000, np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([65519.9, 65520, -65520, 6e-8, 2e-8, -0.0])])
    values = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        assert np.array_equal(halves(values).view(np.uint16), values.astype(np.float16).view(np.uint16))
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[~np.isnan(every)]
    assert np.array_equal(singles(every), every.astype(np.float32))


@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0", "Q4_K"])
def test_a_tensor_of_a_file_is_read_in_blocks_of_rows(name: str, tmp_path: Path) -> None:
    values = np.random.default_rng(5).standard_normal((2, 5, WIDTH), np.float32)
    stored = quantise(values.reshape(10, WIDTH), name)
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "qwen2vl")
    writer.add_tensor("before.weight", np.ones(3, np.float32))
    kind = gguf.GGMLQuantizationType[name]
    writer.add_tensor("x.weight", stored.reshape(2, 5, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = read_gguf(tmp_path / "t.gguf").tensors[1]
    assert tensor.shape == (2, 5, WIDTH) and tensor.type == name
    whole = dequantise(stored, name, values.size).reshape(10, WIDTH)
    for block_values in (1, 3 * WIDTH, 1 << 20):
        found = list(tensor_rows(tmp_path / "t.gguf", tensor, block_values))
        assert np.array_equal(np.concatenate([block for _, block in found]), whole)
        assert [at for at, _ in found] == list(range(0, 10, max(1, min(block_values // WIDTH, 10))))


def test_what_libggml_would_end_the_process_for_is_refused(rows: NDArray[np.float32]) -> None:
    assert needs_importance("IQ2_XXS") and not needs_importance("Q2_K")
    with pytest.raises(RowsError, match="without an importance matrix"):
        quantise(rows, "IQ2_XXS")
    with pytest.raises(RowsError, match="'Q9_9' is no type"):
        quantise(rows, "Q9_9")
    with pytest.raises(RowsError, match="rows of 160 values cannot be Q4_K"):
        quantise(np.zeros((2, 160), np.float32), "Q4_K")
    with pytest.raises(RowsError, match="not one of 512 columns"):
        quantise(rows, "Q4_K", np.ones(100, np.float32))
    with pytest.raises(RowsError, match="contiguous float32"):
        quantise(rows.astype(np.float64), "Q8_0")  # type: ignore[arg-type]
    with pytest.raises(RowsError, match="contiguous float32"):
        quantise(rows[:, ::2], "Q8_0")
    with pytest.raises(RowsError, match="are not 512 values of Q8_0"):
        dequantise(np.zeros(100, np.uint8), "Q8_0", 512)


def test_numbers_that_no_scale_can_hold_are_refused() -> None:
    with pytest.raises(RowsError, match="no valid numbers"):
        quantise(np.full((1, WIDTH), 3e38, np.float32), "Q8_0")
    assert quantise(np.zeros((0, WIDTH), np.float32), "Q8_0").shape == (0, row_bytes("Q8_0", WIDTH))
