"""What of a checkpoint, a dataset or a place cannot work is refused in one line before the reference is opened.

The dry run asks the same, so that it promises nothing that the export would refuse.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from infimed import InfimedError
from infimed.cli.app import run
from infimed.evaluation.dataset import Dataset, DatasetError
from infimed.export import outlook as module
from infimed.export.calibration import CalibrationError
from infimed.export.draft import notes_of
from infimed.export.outlook import outlook
from infimed.export.weight_scan import check_weights
from infimed.runtime.levels import level
from infimed.runtime.publish import PublishError
from infimed.runtime.shape import CheckpointError
from infimed.runtime.shape_check import check_shapes
from infimed.training.checkpoint import Checkpoint

from ..models import build_random_checkpoint
from ..text_models import build_text_checkpoint
from .calibration_sets import phantom_set, rewritten

Json = dict[str, Any]
BOTH = ("gguf-q8_0", "onnx-int4")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_checkpoint(
        tmp_path_factory.mktemp("seeing") / "checkpoint", max_pixels=28 * 28 * 16, layers=1, vision_depth=2,
        fullatt_block_indexes=(1,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_text_checkpoint(tmp_path_factory.mktemp("llama") / "checkpoint", "llama", layers=1)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_set(tmp_path_factory.mktemp("phantoms") / "set", 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what measures this machine's speed."""
    monkeypatch.setattr(module, "_product_per_s", lambda: 1e9)


def changed(checkpoint: Path, folder: Path, file: str, change: Callable[[Json], object]) -> Path:
    shutil.copytree(checkpoint, folder)
    value = json.loads((folder / file).read_text())
    change(value)
    (folder / file).write_text(json.dumps(value))
    return folder


def refused(folder: Path, words: str, levels: tuple[str, ...] = BOTH, **more: Any) -> None:
    for name in levels:  # each format by itself, for one must not hide behind the other
        with pytest.raises(InfimedError, match=words):
            outlook(folder, (name,), probes=6, **more)


def text(**values: Any) -> Callable[[Json], object]:
    return lambda config: config["text_config"].update(values)


SECTIONS = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}


def test_whole_checkpoints_are_taken(seeing: Path, llama: Path) -> None:
    for folder in (seeing, llama):
        assert outlook(folder, BOTH, probes=6).disk_bytes > 0


def test_the_flat_config_of_older_releases_is_taken(seeing: Path, tmp_path: Path) -> None:
    def flatten(config: Json) -> None:
        inner = config.pop("text_config")
        for new in ("model_type", "layer_types"):
            inner.pop(new)
        rope = inner.pop("rope_parameters")
        inner |= {"rope_theta": rope["rope_theta"], "sliding_window": 32768, "use_sliding_window": False}
        config.update(inner, rope_scaling={"type": "mrope", "mrope_section": rope["mrope_section"]})

    folder = changed(seeing, tmp_path / "checkpoint", "config.json", flatten)
    assert outlook(folder, BOTH, probes=6).disk_bytes == outlook(seeing, BOTH, probes=6).disk_bytes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (text(rms_norm_eps=float("nan")), "rms_norm_eps is nan"),
        (text(rms_norm_eps="1e-6"), "rms_norm_eps"),
        (text(rms_norm_eps=0), "rms_norm_eps"),
        (text(rope_parameters={**SECTIONS, "rope_theta": -1.0}), "rope_theta is -1.0"),
        (text(rope_parameters={**SECTIONS, "rope_theta": "1e6"}), "rope_theta"),
        (text(rope_parameters=SECTIONS, rope_scaling={"rope_type": "yarn", "factor": 4.0}), "yarn|rope|mrope_section"),
        (text(layer_types=["linear_attention"]), "layer_types"),
        (text(max_position_embeddings=2**40), "max_position_embeddings is 1099511627776"),
        (text(max_position_embeddings=100), "golden prompts with their replies take"),
        (lambda config: config.update(model_type="qwen2_vl"), "model_type is 'qwen2_vl'"),
        (lambda config: config.update(model_type="qwen3_vl"), "model_type is 'qwen3_vl'"),
        (lambda config: config.pop("model_type"), "transformers cannot read .*config.json"),
        (lambda config: config.update(dtype="float12"), "float12|dtype"),
        (lambda config: config.update(image_token_id=3), "image_token_id is 3"),
        (lambda config: config.update(quantization_config={"quant_method": "awq"}), "quantised already|awq"),
        (lambda config: config.update(architectures=["LlamaForCausalLM"]), "unknown to llama|llama|sections"),
        (lambda config: config.update(tie_word_embeddings="false"), "tie_word_embeddings"),
    ],
)
def test_a_config_that_says_what_cannot_be_is_refused(
    seeing: Path, tmp_path: Path, change: Callable[[Json], object], words: str
) -> None:
    refused(changed(seeing, tmp_path / "checkpoint", "config.json", change), words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.update(model_type="qwen2"), "model_type is 'qwen2'"),
        (lambda config: config["rope_parameters"].update(factor=float("inf")), "factor is inf"),
        (lambda config: config["rope_parameters"].update(partial_rotary_factor=0.5), "partial_rotary_factor"),
        (lambda config: config.update(hidden_act=None), "hidden_act"),
    ],
)
def test_a_text_models_config_is_refused_likewise(
    llama: Path, tmp_path: Path, change: Callable[[Json], object], words: str
) -> None:
    refused(changed(llama, tmp_path / "checkpoint", "config.json", change), words)


def token(number: int, content: str) -> Json:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content, **flags}


def more_tokens(tokenizer: Json) -> None:
    first = 1 + max(one["id"] for one in tokenizer["added_tokens"])
    tokenizer["added_tokens"] += [token(first + index, f"<new{index}>") for index in range(400)]


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("tokenizer.json", more_tokens, "token ids up to"),
        (
            "tokenizer.json",
            lambda t: t["added_tokens"].append(token(10**6, "<far>")),
            "token ids up to|gives <far> the",
        ),
        ("tokenizer.json", lambda t: t["added_tokens"][0].update(id=5), "gives .* the id 5"),
        ("generation_config.json", lambda c: c.update(eos_token_id=[10**7]), "eos_token_id 10000000"),
        ("generation_config.json", lambda c: c.update(eos_token_id=-1), "eos_token_id -1"),
        ("preprocessor_config.json", lambda c: c.update(patch_size=16), "patch_size is 16, the vision tower takes 14"),
        ("preprocessor_config.json", lambda c: c.update(merge_size=1), "merge_size is 1"),
        ("preprocessor_config.json", lambda c: c.update(temporal_patch_size=1), "temporal_patch_size is 1"),
        ("preprocessor_config.json", lambda c: c.update(image_std=None), "image_std is None"),
        ("preprocessor_config.json", lambda c: c.update(image_processor_type="SiglipImageProcessor"), "Siglip"),
        ("preprocessor_config.json", lambda c: c.update(do_center_crop=True), "do_center_crop"),
    ],
)
def test_files_that_are_not_of_this_model_are_refused(
    seeing: Path, tmp_path: Path, file: str, change: Callable[[Json], object], words: str
) -> None:
    refused(changed(seeing, tmp_path / "checkpoint", file, change), words)


@pytest.mark.parametrize("template", [b"", b"{% for %}", b"{{ a.b.c }}", b"hello", b"\xe9", None])
def test_a_template_that_makes_no_prompt_is_refused(seeing: Path, tmp_path: Path, template: bytes | None) -> None:
    shutil.copytree(seeing, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint/chat_template.jinja"
    file.unlink() if template is None else file.write_bytes(template)
    refused(tmp_path / "checkpoint", "template|chat_template")


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.q_norm.weight", "visual.blocks.0.extra", "model.layers.0.mlp.up_proj.lora_A.weight"],
)
def test_a_tensor_that_no_level_would_hold_is_refused(seeing: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(seeing, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint/model.safetensors"
    save_file({**load_file(file), name: np.zeros(64, np.float32)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{name} is unknown to qwen2.5-vl"):
        check_shapes(tmp_path / "checkpoint")


def test_one_tensor_in_the_names_of_two_releases_is_refused(seeing: Path, tmp_path: Path) -> None:
    shutil.copytree(seeing, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint/model.safetensors"
    save_file({**load_file(file), "model.language_model.norm.weight": np.zeros(256, np.float32)}, file)
    with pytest.raises(CheckpointError, match="are the same one"):
        check_shapes(tmp_path / "checkpoint")


@pytest.mark.parametrize(("kind", "width"), [("F64", "<f8"), ("F32", "<f4"), ("BF16", "<f4")])
@pytest.mark.parametrize(("value", "fits"), [(-65280.0, True), (65280.0, True), (-65536.0, False), (1e30, False)])
def test_what_half_precision_cannot_hold_is_refused_for_the_levels_that_round_to_it(
    llama: Path, tmp_path: Path, kind: str, width: str, value: float, fits: bool
) -> None:
    shutil.copytree(llama, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint/model.safetensors"
    weights = load_file(file)
    name = "model.layers.0.mlp.down_proj.weight"
    weights[name][-1, -1] = value
    if kind == "BF16":
        import torch
        from safetensors.torch import save_file as save_torch

        save_torch({key: torch.from_numpy(one).to(torch.bfloat16) for key, one in weights.items()}, file)
    else:
        save_file({**weights, name: weights[name].astype(width)}, file)
    checkpoint = Checkpoint.open(tmp_path / "checkpoint")
    check_weights(checkpoint, [level(one) for one in ("gguf-f32", "gguf-bf16", "onnx-fp32", "onnx-int4")])
    for one in ("gguf-q4_k_m", "onnx-fp16", "tensorrt-fp16"):
        if fits:
            check_weights(checkpoint, [level(one)])
        else:
            with pytest.raises(CheckpointError, match=f"{name} holds numbers beyond 65504.*{one}"):
                check_weights(checkpoint, [level(one)])


def test_a_dry_run_refuses_what_cannot_be_calibrated(seeing: Path, phantoms: Path, tmp_path: Path) -> None:
    weighed = ("gguf-q4_k_m+imatrix", "onnx-int8-static", "tensorrt-int8", "tensorrt-int4+imatrix")
    refused(seeing, "add --calibration DATASET", weighed)
    refused(seeing, "is no folder", weighed, calibration=tmp_path / "nowhere")
    data = Dataset.open(phantoms)
    words = rewritten(data, tmp_path / "words", [one for one in data.examples if not one.images])
    refused(
        seeing,
        "none of .* has an image",
        ("onnx-int4+vision-int8-static", "tensorrt-fp16+vision-int8"),
        calibration=words,
    )
    assert outlook(seeing, weighed, probes=6, calibration=phantoms).gate_seconds > 0


def test_an_image_of_a_calibration_row_is_missed_before_the_pass(seeing: Path, phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "set")
    rows = Dataset.open(tmp_path / "set").in_role("calibration")
    last = next(row for row in reversed(rows) if row.images)
    (tmp_path / "set" / last.images[-1].path).unlink()
    with pytest.raises(DatasetError, match="is missing"):
        outlook(seeing, ("gguf-q4_k_m+imatrix",), probes=6, calibration=tmp_path / "set")
    with pytest.raises(CalibrationError, match="marks no row calibration"):
        tests = rewritten(Dataset.open(phantoms), tmp_path / "tests", list(Dataset.open(phantoms).in_role("test")))
        outlook(seeing, ("gguf-q4_k_m+imatrix",), probes=6, calibration=tests)


def test_a_dry_run_refuses_a_place_where_nothing_can_be_made(seeing: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "kept").mkdir()
    (tmp_path / ".noted.export").symlink_to(tmp_path / "kept")
    (tmp_path / ".filed.export").touch()
    for place, words in (
        ("taken", "exists already"),
        ("link", "is a link"),
        ("taken/file/bundle", "file is no folder"),
        ("noted", "is no folder; remove it"),
        ("filed", "is no folder; remove it"),
        ("n" * 250, "too long"),
    ):
        with pytest.raises(PublishError, match=words):
            outlook(seeing, ("gguf-q8_0",), probes=6, out=tmp_path / place)
    assert outlook(seeing, ("gguf-q8_0",), probes=6, out=tmp_path / "new/deep/b\u00fcndle \n").disk_bytes > 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("license", ["", " ", "a\nb", "\udcff"])
def test_a_licence_that_is_no_line_is_refused(seeing: Path, license: str) -> None:
    with pytest.raises(PublishError, match="is no line of text"):
        outlook(seeing, ("gguf-q8_0",), probes=6, license=license)


def test_notes_lie_beside_the_bundle_whatever_way_its_path_is_written(tmp_path: Path) -> None:
    assert notes_of(tmp_path / "not-there" / ".." / "bundle") == tmp_path / ".bundle.export"


def test_more_threads_than_a_process_gets_are_refused_by_the_command_line(
    seeing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in (["export", str(seeing), "--out", "b", "--level", "gguf-q8_0", "--dry-run"], ["verify", "b"]):
        assert run([*verb, "--threads", "100000"]) == 2
        assert "512" in capsys.readouterr().err
