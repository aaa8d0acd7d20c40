"""What fits, which level is best, and what is said where nothing fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infimed.devices.memory import Use, memory_need
from infimed.devices.plan import advice, best, bounded, plan
from infimed.devices.profiles import GB, device
from infimed.devices.weights import PLANNED_LEVELS, PlanError, Planned, predict
from infimed.runtime.levels import level
from infimed.runtime.shape import ModelShape

from .shapes import QWEN3_VL_2B, QWEN3_VL_8B, QWEN25_VL_3B

USE = Use(context_tokens=4096, image_pixels=448 * 448)


def planned(shape: ModelShape) -> Planned:
    return Planned("checkpoint", shape, tuple(predict(shape, row) for row in PLANNED_LEVELS), 10**7, 131072)


@pytest.mark.parametrize(("name", "published_gb"), [("gguf-f16", 6.18), ("gguf-q8_0", 3.28), ("gguf-q4_k_m", 1.93)])
def test_predicted_weights_equal_the_measured_files_of_the_3b_shape(name: str, published_gb: float) -> None:
    predicted = predict(QWEN25_VL_3B, level(name))
    assert predicted.language_bytes / GB == pytest.approx(published_gb, rel=0.01)
    assert predicted.vision_bytes == pytest.approx(2 * QWEN25_VL_3B.vision.parameters, rel=0.001)


def test_the_kv_cache_of_the_3b_shape_is_36_kib_per_token() -> None:
    need = memory_need(QWEN25_VL_3B, predict(QWEN25_VL_3B, level("gguf-q4_k_m")), USE)
    assert need.kv_cache_bytes == 4096 * 36 * 1024


def test_a_3b_model_fits_an_8_gb_jetson_at_4_bits_and_a_16_gb_one_at_16() -> None:
    fits = {fit.level: fit for fit in plan(planned(QWEN25_VL_3B), device("orin-nano-8gb"), USE)}
    assert fits["gguf-q4_k_m"].fits and not fits["gguf-f16"].fits and not fits["gguf-f32"].fits
    assert fits["gguf-q4_k_m"].gpu_layers == 37 and fits["gguf-q4_k_m"].backend == "cuda"
    assert fits["onnx-int4"].gpu_layers == 0
    fits = {fit.level: fit for fit in plan(planned(QWEN25_VL_3B), device("orin-nx-16gb"), USE)}
    assert fits["gguf-q8_0"].fits and fits["gguf-f16"].fits and not fits["gguf-f32"].fits


def test_the_best_level_has_the_most_bits_that_fit_and_full_precision_is_not_chosen_for_its_own_sake() -> None:
    found = best(plan(planned(QWEN25_VL_3B), device("orin-nano-8gb"), USE))
    assert found is not None and found.level == "gguf-q6_k"
    found = best(plan(planned(QWEN25_VL_3B), device("agx-orin-64gb"), USE))
    assert found is not None and found.level == "gguf-f16"


def test_a_wanted_rate_moves_the_best_level_down_and_an_impossible_one_leaves_none() -> None:
    fits = plan(planned(QWEN25_VL_3B), device("agx-orin-64gb"), USE)
    found = best(fits, min_tokens_per_s=20)
    assert found is not None and found.level == "gguf-q8_0"
    assert best(fits, min_tokens_per_s=1000) is None


def test_a_model_that_does_not_fit_is_refused_with_how_much_is_missing_and_what_would_help() -> None:
    small = device("orin-nano-4gb")
    fits = plan(planned(QWEN25_VL_3B), small, USE)
    assert best(fits) is None
    text = advice(planned(QWEN25_VL_3B), fits, small, USE)
    assert "no level fits orin-nano-4gb: gguf-q2_k needs" in text and "GB short" in text
    assert "gguf-q2_k fits orin-nano-8gb" in text


def test_a_shorter_context_is_offered_where_it_is_enough_and_then_really_fits() -> None:
    machine = device("orin-nano-8gb")
    use = replace(USE, context_tokens=65536)
    model = planned(QWEN25_VL_3B)
    fits = plan(model, machine, use)
    assert best(fits) is None
    text = advice(model, fits, machine, use)
    tokens = int(text.split("--context ")[1].split()[0])
    assert best(plan(model, machine, replace(use, context_tokens=tokens))) is not None
    assert best(plan(model, machine, replace(use, context_tokens=tokens + 256))) is None


def test_a_model_too_large_for_every_device_of_a_kind_is_told_so() -> None:
    giant = replace(QWEN3_VL_8B, language_parameters=400 * 10**9)
    pi = device("raspberry-pi-5-8gb")
    text = advice(planned(giant), plan(planned(giant), pi, USE), pi, USE)
    assert text.endswith("the model is too large for this kind of device")


def test_more_context_and_larger_images_never_need_less_memory() -> None:
    for row in PLANNED_LEVELS:
        weights = predict(QWEN3_VL_2B, row)
        needs = [memory_need(QWEN3_VL_2B, weights, Use(n, 448**2)).total_bytes for n in (256, 1024, 4096, 16384)]
        assert needs == sorted(needs) and len(set(needs)) == 4
        needs = [memory_need(QWEN3_VL_2B, weights, Use(4096, n**2)).total_bytes for n in (0, 224, 448, 1344)]
        # onnxruntime gives an image's working space back, so a small one may not raise the peak at all.
        assert needs == sorted(needs) and len(set(needs)) >= (4 if row.format == "gguf" else 2)


def test_an_image_is_planned_no_larger_than_the_models_own_rules_allow() -> None:
    model = replace(planned(QWEN3_VL_2B), max_pixels=448**2)
    machine = device("agx-orin-64gb")
    large = plan(model, machine, Use(4096, 4000**2))
    assert large == plan(model, machine, USE)


def test_no_more_context_is_planned_or_advised_than_the_model_takes() -> None:
    short = replace(planned(QWEN25_VL_3B), max_tokens=2048)
    machine = device("agx-orin-64gb")
    for tokens in (2048, 32768, 10**400):
        assert plan(short, machine, Use(tokens, 448**2)) == plan(short, machine, Use(2048, 448**2))
    assert bounded(short, Use(10**400, 1)) == Use(2048, 1)
    small = device("orin-nano-4gb")
    text = advice(short, plan(short, small, Use(10**400, 448**2)), small, Use(10**400, 448**2))
    assert text == advice(short, plan(short, small, Use(2048, 448**2)), small, Use(2048, 448**2))
    # With the 65,536 tokens that the model does not take, a shorter context was advised that it does not take either.
    long = replace(planned(QWEN25_VL_3B), max_tokens=1024)
    nano = device("orin-nano-8gb")
    assert best(plan(long, nano, Use(65536, 448**2))) is not None


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(PlanError, match="tokens per second is none"):
        best(plan(planned(QWEN25_VL_3B), device("agx-orin-64gb"), USE), rate)


def test_a_use_that_cannot_be_is_refused() -> None:
    for use in (Use(0, 0), Use(4096, -1)):
        with pytest.raises(PlanError, match="give at least 1 and 0"):
            plan(planned(QWEN3_VL_2B), device("orin-nano-8gb"), use)
