"""No level, tower or type of weight is without a bound: NOT RUN for want of one cannot come back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infimed.export.certificate_limits import (
    EXACT_SHARE,
    KERNEL_LIMITS,
    TOWER_LIMITS,
    WEIGHT_LIMITS,
    KernelLimit,
    kernel_limit,
    tower_limit,
)
from infimed.export.sketch import SLACK
from infimed.runtime.levels import LEVELS, VISION_TYPES, QuantLevel, UnknownLevel, level
from infimed.runtime.tensors import TextSizes


def every_level() -> list[QuantLevel]:
    """Return every level that there is, by trying all names: level() says which of them mean one."""
    rows = []
    for row in LEVELS:
        for imatrix in ("", "+imatrix"):
            for vision in ("", *(f"+vision-{type}" for type in VISION_TYPES[row.format])):
                try:
                    rows.append(level(f"{row.base}{imatrix}{vision}"))
                except UnknownLevel:
                    continue
    return rows


def test_every_level_that_can_be_asked_for_has_a_bound_on_its_kernels_and_on_its_tower() -> None:
    rows = every_level()
    towers = {f"{format}-{type}" for format, types in VISION_TYPES.items() for type in types}
    assert {row.base for row in rows} == {row.base for row in LEVELS} and {row.tower for row in rows} == towers
    assert not [row.name for row in rows if kernel_limit(row) is None or tower_limit(row) is None]
    assert {row.text for row in rows} == set(KERNEL_LIMITS) and towers == set(TOWER_LIMITS)


def test_a_bound_is_of_the_kind_that_its_level_asks_for() -> None:
    for row in every_level():
        bound = kernel_limit(row)
        assert bound is not None and 0 < bound.kl_nats < 0.1
        floating = row.storage in ("F32", "F16", "BF16", "fp32", "fp16")
        sharp = row.vision in ("f32", "f16", "fp32", "fp16")
        assert (bound.share is None) == (floating and sharp), row.name
        if bound.share is not None:
            assert 0 < bound.share < 50 and bound.weight_error * EXACT_SHARE > 1e-4


def test_a_level_with_another_tower_may_do_what_the_laxer_of_its_parts_may() -> None:
    text, tower = KernelLimit(0.16, 1e-4, 0.09), KernelLimit(1.9, 5e-4, 0.008)
    assert text.beside(tower) == tower.beside(text) == KernelLimit(1.9, 1e-4 + 5e-4, 0.09)
    assert KernelLimit(None, 1e-9).beside(tower) == KernelLimit(1.9, 1e-9 + 5e-4, 0.008, 1e-9)
    assert KernelLimit(None, 1e-9).beside(KernelLimit(None, 1e-4)).share is None
    assert text.beside(KernelLimit(None, 1e-4)).floor_nats == 1e-4
    assert kernel_limit(level("onnx-int4")) == KERNEL_LIMITS["onnx-int4"]
    assert kernel_limit(replace(level("onnx-int4"), vision="int9")) is None


def test_every_type_that_an_onnx_or_tensorrt_level_stores_has_a_limit() -> None:
    from infimed.export.onnx_schemes import SCHEMES
    from infimed.export.tensorrt_export import ROUNDED

    schemes = [storage for scheme in SCHEMES.values() for storage in (scheme.matrices, *scheme.named.values())]
    names = {storage.name for storage in (*schemes, *ROUNDED.values()) if storage is not None}
    kinds = {name.partition(",")[0].partition(" by ")[0] for name in names}
    assert len(kinds) > 5 and not kinds - WEIGHT_LIMITS.keys()


def test_every_type_that_llama_cpp_may_choose_has_a_limit() -> None:
    """Its own choice, asked for: of rows that fill blocks of 256, of 32 alone (0.5B), and of neither."""
    pytest.importorskip("llama_cpp")
    from infimed.runtime.llama_mix import choose_types, mix_keys

    found = set()
    for hidden, ffn, layers in ((2048, 11008, 36), (896, 4864, 24), (1024, 3420, 8)):
        sizes = TextSizes(layers, hidden, ffn, hidden, 256, 4096, tied=False, biases=True)
        ones = {name: np.ones(shape[-1], np.float32) for name, shape in sizes.shapes().items()}
        rows = {row.text: row for row in every_level() if row.format == "gguf"}
        asked = {name: (row.storage, ones if row.imatrix else None) for name, row in rows.items()}
        for mix in choose_types("qwen2vl", mix_keys(sizes, 16, 2), sizes.shapes(), asked).values():
            found |= set(mix.types.values())
    assert {"Q4_K", "IQ3_XXS", "IQ4_NL", "Q5_0", "Q5_1"} <= found and not found - WEIGHT_LIMITS.keys()


def test_a_limit_is_well_below_what_another_tensor_is() -> None:
    """A zeroed tensor is one norm away, another one 1.41: what is rounded most must not be taken for it."""
    assert all(0 < limit * SLACK < 1.0 for limit in WEIGHT_LIMITS.values())
