"""Planted faults: each is refused at full precision and at 4 bits, in GGUF, ONNX and TensorRT, with its stage named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infimed.export.certificate import Certificate, Finding
from infimed.export.certificate_checks import check_headers, check_prompts_of
from infimed.export.certificate_examine import examine
from infimed.export.dequantised_level import Level
from infimed.export.probe_store import read_probes
from infimed.runtime import prompt as prompt_module
from infimed.runtime.bundle import Bundle

from .parity_bundles import LEVELS, build_bundle, changed_checkpoint, changed_copy, clean_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_checkpoint(tmp_path_factory.mktemp("certificate") / "checkpoint")


@pytest.fixture(scope="module")
def clean(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(checkpoint, tmp_path_factory.mktemp("clean") / "bundle", LEVELS)


# What is wrong of a prompt is wrong at every level: without --full such faults are planted in three of them.
SOME = [pytest.param(level, marks=[pytest.mark.full] if level in LEVELS[2::2] else []) for level in LEVELS]


def planted(
    checkpoint: Path,
    level: str,
    factory: pytest.TempPathFactory,
    weights: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    config: Callable[[dict[str, Any]], None] = lambda config: None,
) -> Certificate:
    """Certify a level of a checkpoint with a fault in it, in a bundle whose probes and config are the clean one's."""
    folder = factory.mktemp("planted")
    wrong = changed_checkpoint(checkpoint, folder / "wrong", weights, config)
    return taken(build_bundle(wrong, folder / "bundle", [level], checkpoint), level)


def taken(bundle: Bundle, level: str) -> Certificate:
    return examine(bundle.folder, level, probes=None, threads=1)


def verdicts(certificate: Certificate) -> dict[str, str]:
    return {statement.kind: statement.verdict for statement in certificate.statements}


@pytest.mark.parametrize("level", LEVELS)
def test_a_clean_level_is_certified(clean: Bundle, level: str) -> None:
    found = taken(clean, level)
    told = {"checks": "held", "graph": "held", "kernel": "held", "drift": "stated"}
    if level in ("gguf-f32", "onnx-fp32"):
        told["drift"] = "held"
    assert verdicts(found) == told and found.held and found.failure is None, found
    assert found.probes == {"conversation": 1, "long": 1, "ragged": 1, "square": 1, "text": 1, "two images": 1}
    assert Certificate.from_json(found.to_json()) == found
    graph = found.finding("graph", "prompt logits")
    assert graph.value is not None and graph.value <= 1e-6
    total, weights, kernels = (
        found.finding("drift", stage).value for stage in ("logits", "weights' part", "kernels' part")
    )
    assert total is not None and weights is not None and kernels is not None
    if level in ("gguf-q4_k_m", "onnx-int4", "tensorrt-int4"):
        assert weights > 1e-3 > kernels and 0.5 * total < weights + kernels < 2 * total


TOWERS = ("gguf-f32+vision-q8_0", "onnx-fp16+vision-int4", "onnx-int8+vision-fp16")


@pytest.fixture(scope="module")
def towers(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(checkpoint, tmp_path_factory.mktemp("towers") / "bundle", TOWERS)


@pytest.mark.parametrize("level", TOWERS)
def test_a_clean_level_with_another_tower_than_its_row_names_is_certified(towers: Bundle, level: str) -> None:
    found = taken(towers, level)
    told = {"checks": "held", "graph": "held", "kernel": "held", "drift": "stated"}
    assert verdicts(found) == told and found.held, found
    assert found.finding("drift", "logits").limit is None  # the tower's drift is none of the graph's


def swapped_sections(config: dict[str, Any]) -> None:
    for table in (config, config.get("text_config", {})):
        for key in ("rope_parameters", "rope_scaling"):
            if isinstance(table.get(key), dict) and "mrope_section" in table[key]:
                first, *rest = table[key]["mrope_section"]
                table[key]["mrope_section"] = [*rest, first]


@pytest.mark.parametrize("level", SOME)
def test_swapped_rotary_sections_are_refused(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, level: str
) -> None:
    found = planted(checkpoint, level, tmp_path_factory, config=swapped_sections)
    if level.startswith("gguf"):
        assert found.failure and found.failure[:1] == ("checks",) and found.failure[1].stage == "headers"
        assert "rope.dimension_sections" in found.failure[1].said
    else:
        assert verdicts(found)["checks"] == "held"  # a graph in ONNX has no header that would tell
    graph = found.statement("graph")
    assert graph.verdict == "failed" and graph.failure and graph.failure.stage == "prompt logits"
    assert found.finding("graph", "vision").verdict == "held"


@pytest.mark.parametrize("level", LEVELS)
def test_a_transposed_weight_is_refused_by_name(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, level: str
) -> None:
    found = planted(checkpoint, level, tmp_path_factory, {"layers.1.self_attn.o_proj.weight": np.transpose})
    assert found.failure and (found.failure[0], found.failure[1].stage) == ("checks", "weights")
    assert "model.layers.1.self_attn.o_proj.weight" in found.failure[1].said
    assert verdicts(found)["graph"] == "held"  # both sides have it, which is why weights are a stage of their own


ZEROED = [
    ("layers.0.self_attn.k_proj.bias", LEVELS),
    ("visual.blocks.1.attn.qkv.bias", ("gguf-q4_k_m", "onnx-int4", "tensorrt-int4")),
]


@pytest.mark.parametrize(("name", "level"), [(name, level) for name, levels in ZEROED for level in levels])
def test_a_zeroed_bias_is_refused_by_name(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, level: str, name: str
) -> None:
    found = planted(checkpoint, level, tmp_path_factory, {name: np.zeros_like})
    assert found.failure and (found.failure[0], found.failure[1].stage) == ("checks", "weights")
    assert name in found.failure[1].said


@pytest.mark.full
@pytest.mark.parametrize("level", LEVELS)
def test_two_swapped_tensors_are_refused_by_name(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, level: str
) -> None:
    from infimed.training.checkpoint import Checkpoint

    source = Checkpoint.open(checkpoint)
    ends = ("layers.0.mlp.gate_proj.weight", "layers.0.mlp.up_proj.weight")
    one, other = (
        np.array(source.array(next(name for name in source.tensors if name.endswith(end) and "visual" not in name)))
        for end in ends
    )
    swapped = {f"model.{ends[0]}": lambda _: other, f"model.{ends[1]}": lambda _: one}
    found = planted(checkpoint, level, tmp_path_factory, swapped)
    assert found.failure and found.failure[1].stage == "weights" and "layers.0.mlp." in found.failure[1].said


@pytest.mark.parametrize("level", SOME)
def test_a_newline_missing_from_the_template_is_refused(clean: Bundle, tmp_path: Path, level: str) -> None:
    def change(folder: Path) -> None:
        path = folder / "shared/chat_template.jinja"
        text = path.read_text("utf-8")
        assert "<|im_start|>assistant\n" in text
        path.write_text(text.replace("<|im_start|>assistant\n", "<|im_start|>assistant"), "utf-8")

    found = taken(changed_copy(clean, tmp_path / "bundle", change), level)
    assert found.failure and (found.failure[0], found.failure[1].stage) == ("checks", "tokens")
    assert found.finding("checks", "pixels").verdict == "held"


def edited(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Return what changes a JSON file of shared/."""

    def edit(folder: Path) -> None:
        path = folder / "shared" / name
        value = json.loads(path.read_text("utf-8"))
        change(value)
        path.write_text(json.dumps(value), "utf-8")

    return edit


@pytest.mark.parametrize("level", ["gguf-q4_k_m", "onnx-fp32"])
@pytest.mark.parametrize(
    ("name", "key", "wrong", "stage", "said"),
    [
        ("config.json", "image_token_id", 3, "headers", "image_token_id is 3"),
        ("generation_config.json", "eos_token_id", [2, 3], "tokens", "a reply ends at the tokens [2, 3"),
        ("tokenizer_config.json", "eos_token", "a", "tokens", "a reply ends at the tokens ["),
        ("preprocessor_config.json", "min_pixels", 5000, "pixels", "states other pixel rules"),
    ],
)
def test_a_rule_in_shared_that_no_golden_prompt_shows_is_refused(
    clean: Bundle, tmp_path: Path, level: str, name: str, key: str, wrong: object, stage: str, said: str
) -> None:
    bundle = changed_copy(clean, tmp_path / "bundle", edited(name, lambda value: value.update({key: wrong})))
    fault = next(finding for finding in checks(bundle, level) if finding.verdict == "failed")
    assert fault.stage == stage and said in fault.said


def test_pixel_rules_that_are_changed_in_the_manifest_too_are_refused(clean: Bundle, tmp_path: Path) -> None:
    rules = {**clean.manifest.preprocessing, "min_pixels": 5000}
    change = edited("preprocessor_config.json", lambda value: value.update(min_pixels=5000))
    bundle = changed_copy(clean, tmp_path / "bundle", change, rules)
    fault = next(finding for finding in checks(bundle, "onnx-fp32") if finding.verdict == "failed")
    assert fault.stage == "pixels" and "min_pixels is 5000, at export it was" in fault.said


def checks(bundle: Bundle, level: str) -> list[Finding]:
    """Return what is found of prompts and headers, before any engine is opened."""
    opened = Level(bundle.folder, bundle.entry(level), bundle.manifest.preprocessing)
    return [*check_prompts_of(opened, read_probes(bundle.folder / "probes")), check_headers(opened)]


def test_the_clean_bundle_has_no_such_fault(clean: Bundle) -> None:
    for level in ("gguf-q4_k_m", "onnx-fp32"):
        assert {finding.verdict for finding in checks(clean, level)} == {"held"}


def padded(rgb: np.ndarray, rules: Any) -> np.ndarray:
    """Fit an image into its final size by padding, as llama.cpp does, where the model's processor stretches it."""
    from PIL import Image

    from infimed.runtime.preprocessing import smart_resize

    height, width = smart_resize(rgb.shape[0], rgb.shape[1], rules)
    scale = min(height / rgb.shape[0], width / rgb.shape[1])
    inner = max(1, int(rgb.shape[1] * scale)), max(1, int(rgb.shape[0] * scale))
    canvas = np.zeros((height, width, 3), np.uint8)
    made = np.asarray(Image.fromarray(rgb).resize(inner, Image.Resampling.BICUBIC))
    canvas[: inner[1], : inner[0]] = made
    return canvas


@pytest.mark.parametrize("level", SOME)
def test_a_padded_image_is_refused_in_the_pixels(clean: Bundle, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_module, "resize", padded)
    found = taken(clean, level)
    assert found.failure and (found.failure[0], found.failure[1].stage) == ("checks", "pixels")


@pytest.mark.parametrize("level", SOME)
def test_an_image_that_the_engine_pads_by_itself_is_refused_in_the_vision_tower(
    clean: Bundle, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from infimed.runtime.llama_backend import LlamaBackend
    from infimed.runtime.onnx_backend import OnnxBackend

    backend: Any = LlamaBackend if level.startswith("gguf") else OnnxBackend
    real = backend.encode_image

    def wrong(self: Any, image: Any) -> np.ndarray:
        rgb = image.rgb.copy()
        rgb[-max(1, rgb.shape[0] // 8) :] = 0
        return real(self, replace(image, rgb=rgb))

    monkeypatch.setattr(backend, "encode_image", wrong)
    found = taken(clean, level)
    assert verdicts(found)["checks"] == "held"
    assert found.failure and (found.failure[0], found.failure[1].stage) == ("graph", "vision")
