"""Predicted decode rates against published ones: never above, and only where an engine's own figures support them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infimed.devices.profiles import GB, device
from infimed.devices.rate import SHARES, backend_for, decode_rate
from infimed.devices.weights import predict
from infimed.runtime.levels import LEVELS, level
from infimed.runtime.shape import ModelShape

from .shapes import (
    LLAMA32_3B,
    PHI35_3B,
    QWEN3_VL_2B,
    QWEN3_VL_4B,
    QWEN3_VL_8B,
    QWEN25_05B,
    QWEN25_7B,
    QWEN25_VL_3B,
)

# TensorRT-Edge-LLM 0.10.0 benchmark page, INT4 AWQ, batch 1; Qwen2.5-VL-3B from a user's report (its issue 60).
TENSORRT_INT4 = [
    (QWEN3_VL_2B, "orin-nano-8gb", 36.1),
    (QWEN3_VL_2B, "orin-nx-16gb", 58.5),
    (QWEN3_VL_2B, "agx-orin-64gb", 98.9),
    (QWEN3_VL_2B, "thor-t5000", 151.1),
    (QWEN3_VL_4B, "orin-nx-16gb", 31.7),
    (QWEN3_VL_4B, "agx-orin-64gb", 54.7),
    (QWEN3_VL_4B, "thor-t5000", 82.8),
    (QWEN3_VL_8B, "orin-nx-16gb", 18.4),
    (QWEN3_VL_8B, "agx-orin-64gb", 32.1),
    (QWEN3_VL_8B, "thor-t5000", 48.5),
    (QWEN25_VL_3B, "agx-orin-64gb", 71.8),
]
# jetson-ai-lab, MLC, INT4.
MLC_INT4 = [
    (LLAMA32_3B, "orin-nano-8gb", 27.7),
    (LLAMA32_3B, "orin-nano-8gb-super", 43.1),
    (QWEN25_7B, "orin-nano-8gb", 14.2),
    (QWEN25_7B, "orin-nano-8gb-super", 21.8),
    (PHI35_3B, "orin-nano-8gb", 24.7),
    (PHI35_3B, "orin-nano-8gb-super", 38.1),
]
LLAMA_CPP_Q4 = [(QWEN3_VL_2B, "orin-nano-8gb-super", 38.0)]


def predicted(shape: ModelShape, level_name: str, device_name: str) -> float:
    row = level(level_name)
    rate = decode_rate(device(device_name), row, predict(shape, row).read_per_token_bytes)
    assert rate.tokens_per_s is not None
    return rate.tokens_per_s


@pytest.mark.parametrize(("shape", "name", "published"), LLAMA_CPP_Q4)
def test_llama_cpp_is_predicted_at_most_as_fast_as_published_and_not_absurdly_slower(
    shape: ModelShape, name: str, published: float
) -> None:
    rate = predicted(shape, "gguf-q4_k_m", name)
    assert 0.8 * published < rate <= published


@pytest.mark.parametrize(("shape", "name", "published"), TENSORRT_INT4 + MLC_INT4)
def test_no_prediction_is_above_what_a_faster_engine_was_published_to_reach_at_four_bits(
    shape: ModelShape, name: str, published: float
) -> None:
    assert predicted(shape, "gguf-q4_k_m", name) <= published


@pytest.mark.parametrize(("shape", "name", "published"), TENSORRT_INT4)
def test_the_bound_by_bandwidth_explains_the_published_rates(shape: ModelShape, name: str, published: float) -> None:
    # AWQ: 4 bits and one 16-bit scale per 128 weights; the head stays in 16 bits.
    embeddings = 1 if shape.tied_embeddings else 2
    body = shape.language_parameters - embeddings * shape.embedding_parameters
    read_bytes = (body * 4.125 + shape.embedding_parameters * 16) / 8
    bound = decode_rate(device(name), level("gguf-q4_k_m"), read_bytes).bound_tokens_per_s
    assert 0.60 <= published / bound <= 0.90


@pytest.mark.parametrize(
    ("shape", "level_name", "measured"),
    [
        (QWEN25_VL_3B, "gguf-f16", 4.1),
        (QWEN25_VL_3B, "gguf-q4_k_m", 10.0),
        (QWEN25_05B, "onnx-fp32", 14.0),
        (QWEN25_05B, "onnx-int8-acc4", 39.0),
        (QWEN25_05B, "onnx-int4", 34.0),
    ],
)
def test_processors_are_predicted_at_most_as_fast_as_measured(
    shape: ModelShape, level_name: str, measured: float
) -> None:
    # Two x86-64 cores that read 29 GB/s.
    machine = replace(device("cpu-workstation-ddr4-16gb"), read_bandwidth_bytes_per_s=29 * GB)
    row = level(level_name)
    rate = decode_rate(machine, row, predict(shape, row).read_per_token_bytes).tokens_per_s
    assert rate is not None and 0.6 * measured < rate <= measured


def test_a_raspberry_pi_is_counted_by_what_it_reads_and_not_by_its_peak() -> None:
    weights = predict(QWEN25_05B, level("gguf-q8_0")).read_per_token_bytes
    rate = predicted(QWEN25_05B, "gguf-q8_0", "raspberry-pi-5-8gb")
    assert rate <= 0.84 * 11.6e9 / weights


def test_an_engine_without_figures_on_a_device_gets_no_rate_and_the_reason() -> None:
    for name in ("orin-nano-8gb", "agx-orin-64gb", "thor-t5000"):
        row = level("onnx-int4")
        rate = decode_rate(device(name), row, 1e9)
        assert rate.tokens_per_s is None and "onnxruntime" in rate.basis
        assert backend_for(device(name), row) == "cpu"


def test_a_model_too_small_for_memory_to_be_the_limit_is_capped_at_what_was_ever_published() -> None:
    row = level("gguf-q8_0")
    rate = decode_rate(device("orin-nano-8gb"), row, 5e6)
    assert rate.tokens_per_s == 150 and rate.bound_tokens_per_s > 10_000 and "capped" in rate.basis


def test_every_share_is_below_one_and_names_a_storage_that_exists() -> None:
    storages = {row.storage for row in LEVELS}
    for share in SHARES:
        assert 0 < share.share < 1 and share.basis
        assert set(share.storages) <= storages
