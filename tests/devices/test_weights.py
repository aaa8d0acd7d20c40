"""Weights of a level: predicted from a checkpoint, read from a bundle, and compared with what export really writes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from infimed.devices.weights import PLANNED_LEVELS, PlanError, predict, read_planned
from infimed.runtime.bundle import write_manifest
from infimed.runtime.levels import LEVELS, level
from infimed.runtime.manifest import SHARED, LevelEntry, VerifyError
from infimed.runtime.prompt import read_json
from infimed.runtime.shape import ModelShape

from .checkpoints import write_bundle, write_checkpoint


def test_a_checkpoint_is_planned_at_every_level_from_its_headers(tmp_path: Path) -> None:
    planned = read_planned(write_checkpoint(tmp_path / "c"))
    assert [weights.level.name for weights in planned.levels] == [row.name for row in PLANNED_LEVELS]
    assert planned.source == "checkpoint" and planned.max_pixels == 112 * 112
    by_name = {weights.level.name: weights for weights in planned.levels}
    language = 100 * 64 + 128 * 64
    assert by_name["gguf-f16"].language_bytes == 2 * language
    assert by_name["gguf-f32"].vision_bytes == pytest.approx(2 * by_name["gguf-f16"].vision_bytes, rel=0.02)
    assert by_name["onnx-fp32"].language_bytes == 4 * language
    assert by_name["onnx-fp32"].embedding_bytes == 2 * 100 * 64
    assert not by_name["gguf-f16"].exact


def test_a_bundle_is_planned_by_the_sizes_of_its_files(tmp_path: Path) -> None:
    seen: list[str] = []
    planned = read_planned(write_bundle(tmp_path / "b"), lambda path, size_bytes: seen.append(path))
    by_name = {weights.level.name: weights for weights in planned.levels}
    gguf, onnx = by_name["gguf-q4_k_m"], by_name["onnx-int4"]
    assert (gguf.language_bytes, gguf.embedding_bytes, gguf.vision_bytes) == (1000, 0, 300)
    assert (onnx.language_bytes, onnx.embedding_bytes, onnx.vision_bytes) == (1000, 50, 300)
    assert gguf.exact and onnx.exact and planned.source == "bundle"
    assert "gguf-q4_k_m/model.gguf" in seen


def test_a_changed_bundle_is_refused_before_it_is_planned(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / "gguf-q4_k_m/model.gguf").write_bytes(bytes(999))
    with pytest.raises(VerifyError, match=r"model\.gguf was changed"):
        read_planned(folder)


def test_any_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="neither a checkpoint"):
        read_planned(tmp_path)
    with pytest.raises(PlanError, match="neither a checkpoint"):
        read_planned(tmp_path / "missing")


def exported_checkpoint(folder: Path, tied: bool) -> Path:
    from ..models import build_random_checkpoint

    return build_random_checkpoint(
        folder, hidden=512, ffn=1024, layers=4, vision_hidden=256, vision_ffn=512, vocabulary=4096, tied=tied
    )


SLOW = "gguf-iq3_xxs+imatrix"
GGUF_NAMES = [row.name for row in LEVELS if row.format == "gguf" and row.name != SLOW]


@pytest.mark.parametrize(
    ("tied", "names"),
    [
        (True, GGUF_NAMES),
        pytest.param(False, [*GGUF_NAMES, "gguf-q4_0+imatrix", "gguf-q8_0+vision-q8_0"], marks=pytest.mark.full),
        pytest.param(False, [SLOW], marks=pytest.mark.full),
    ],
)
def test_predicted_gguf_sizes_are_those_that_export_writes(tmp_path: Path, tied: bool, names: list[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from infimed.export.gguf_export import export_gguf

    checkpoint = exported_checkpoint(tmp_path / "c", tied)
    from infimed.export.gguf_model import text_model
    from infimed.training.checkpoint import Checkpoint

    from ..export.llama_oracle import random_activations

    activations = random_activations(text_model(Checkpoint.open(checkpoint)))
    entries = export_gguf(checkpoint, tmp_path / "b", names, activations=activations)
    compare(checkpoint, entries)
    bundle_of(checkpoint, tmp_path / "b", entries)
    shape = ModelShape.read(checkpoint)
    for one in read_planned(tmp_path / "b").levels:
        other = predict(shape, one.level)
        assert one.read_per_token_bytes == pytest.approx(other.read_per_token_bytes, rel=0.03), one.level.name
        assert one.embedding_bytes == pytest.approx(other.embedding_bytes, rel=0.001), one.level.name
        assert bool(one.embedding_bytes) != tied


def test_widths_that_a_type_cannot_store_are_predicted_as_llama_cpp_stores_them() -> None:
    pytest.importorskip("llama_cpp")
    # 896 values are no whole blocks of 256: Q6_K becomes Q8_0 in all but ffn_down.
    from .shapes import QWEN25_05B

    bits = 8 * predict(QWEN25_05B, level("gguf-q6_k")).language_bytes / QWEN25_05B.language_parameters
    assert 7.5 < bits < 8.5


def test_without_llama_cpp_the_usual_bits_of_a_level_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from infimed.devices import weights

    from .shapes import QWEN25_VL_3B

    asked = {row.name: predict(QWEN25_VL_3B, row).total_bytes for row in LEVELS if row.format == "gguf"}
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    weights._bits.cache_clear()
    for row in LEVELS:
        if row.format == "gguf":
            assert predict(QWEN25_VL_3B, row).total_bytes == pytest.approx(asked[row.name], rel=0.01), row.name
    weights._bits.cache_clear()


@pytest.mark.full
def test_predicted_onnx_sizes_are_those_that_export_writes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from ..onnx_levels import export_every

    checkpoint = exported_checkpoint(tmp_path / "c", tied=False)
    written = export_every(checkpoint, tmp_path / "b").entries
    assert {level(name).base for name in written} == {row.base for row in LEVELS if row.format == "onnx"}
    compare(checkpoint, written)


def bundle_of(checkpoint: Path, folder: Path, entries: Mapping[str, LevelEntry]) -> None:
    """Make a bundle of exported levels: the settings that planning reads, and a manifest."""
    names = ("config.json", "preprocessor_config.json")
    for name in names:
        shutil.copyfile(checkpoint / name, folder / SHARED / name)
    settings = tuple(f"{SHARED}/{name}" for name in names)
    levels = [replace(entry, shared=(*entry.shared, *settings)) for entry in entries.values()]
    rules = read_json(checkpoint / "preprocessor_config.json")
    write_manifest(
        folder,
        family="qwen2.5-vl",
        license="unknown",
        preprocessing=rules,
        levels=levels,
        provenance={"checkpoint_sha256": "0" * 64},
    )


def compare(checkpoint: Path, written: Mapping[str, LevelEntry]) -> None:
    shape = ModelShape.read(checkpoint)
    assert written
    for name, entry in written.items():
        assert predict(shape, level(name)).total_bytes == pytest.approx(entry.weight_bytes, rel=0.05), name
