"""Merging: the checkpoint answers as base plus adapter, says what rounding cost, and never appears half-made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from infimed.runtime.messages import ImagePart, user
from infimed.runtime.publish import PublishError
from infimed.training import merge as merge_module
from infimed.training.adapter import Adapter, AdapterError, Update
from infimed.training.checkpoint import Checkpoint, TensorSpec
from infimed.training.lora import load_lora
from infimed.training.merge import MergeError, load, merge_adapter, store
from infimed.training.reference import open_reference
from infimed.training.sft import train_sft
from infimed.training.torch_backend import load_model

from .conftest import RECIPE, build_micro

PICTURE = ImagePart(np.random.default_rng(9).integers(0, 256, (120, 84, 3)).astype(np.uint8))
PROMPTS = ([user("Is the image bright?")], [user(PICTURE, "How does the image look?")])


def largest_difference(first: Path, second: Path) -> float:
    engines = [open_reference(path, threads=1) for path in (first, second)]
    return max(
        float(np.abs(engines[0].prompt_logits(messages) - engines[1].prompt_logits(messages)).max())
        for messages in PROMPTS
    )


def adapt(room: Path, base: Path, out: Path, lora: str = "") -> Path:
    recipe = out.with_suffix(".toml")
    recipe.write_text(RECIPE.replace("steps = 8", "steps = 3") + lora, "utf-8")
    train_sft(recipe, data=room / "data", base=base, out=out, threads=1)
    return out


@pytest.fixture(scope="module")
def merged(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "checkpoint"
    merge_adapter(room / "adapter", out, threads=1)
    return out


def test_merged_and_unmerged_logits_are_equal_in_float32(room: Path, merged: Path) -> None:
    assert largest_difference(room / "adapter", merged) <= 1e-4
    assert largest_difference(room / "base", merged) > 0.1, "the adapter must matter for the comparison to mean much"
    attest = json.loads((merged / "infimed.json").read_text())["attest"]
    assert attest["merged"]["max_abs_logit"] <= 1e-4 and attest["stored"]["max_abs_logit"] <= 1e-4
    assert attest["merged"]["rows"] > 100 and attest["rounding"]["dtype"] == "F32"


@pytest.mark.parametrize(("stabilised", "scale"), [("false", 8 / 4), ("true", 8 / 2)])
def test_the_scale_is_that_of_peft_rank_stabilised_or_not(
    stabilised: str, scale: float, room: Path, tmp_path: Path
) -> None:
    adapter = adapt(room, room / "base", tmp_path / "adapter", f"rank_stabilised = {stabilised}\n")
    assert Adapter.open(adapter).scale == scale
    merge_adapter(adapter, tmp_path / "merged", base=room / "base", threads=1)
    shutil.copytree(room / "base", tmp_path / "base")
    model = load_lora(load_model(Checkpoint.open(room / "base")), Adapter.open(adapter)).merge_and_unload()
    by_peft, ours = model.state_dict(), load_model(Checkpoint.open(tmp_path / "merged")).state_dict()
    assert set(by_peft) == set(ours)
    assert max(float((by_peft[name] - ours[name]).abs().max()) for name in ours) < 1e-6


@pytest.mark.parametrize("tied", [True, False])
def test_a_half_precision_base_keeps_its_type_its_ties_and_every_untouched_byte(
    tied: bool, room: Path, tmp_path: Path
) -> None:
    base = build_micro(tmp_path / "base", dtype="bfloat16", tied=tied)
    adapter = adapt(room, base, tmp_path / "adapter")
    made = merge_adapter(adapter, tmp_path / "merged", threads=1)
    source = Checkpoint.open(base)
    assert list(made.tensors.values()) == list(source.tensors.values())
    assert ("lm_head.weight" in made.tensors) is not tied
    changed = {name for name in made.tensors if not np.array_equal(made.raw(name), source.raw(name))}
    assert len(changed) == 26 and not any("embed" in name or "norm" in name or "lm_head" in name for name in changed)
    model = load_model(made)
    shared = model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert shared is tied
    attest = made.provenance.attest if made.provenance else {}
    assert attest["merged"]["max_abs_logit"] <= 1e-4 < attest["stored"]["max_abs_logit"]
    assert attest["stored"]["kl_max_nats"] > attest["merged"]["kl_max_nats"]
    assert attest["rounding"]["dtype"] == "BF16" and 0 < attest["rounding"]["largest_share"] < 1
    measured = largest_difference(tmp_path / "adapter", tmp_path / "merged")
    assert 1e-4 < measured < 30 * attest["stored"]["max_abs_logit"]


def test_the_stored_type_can_be_chosen_and_is_what_the_config_says(room: Path, tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    for name, kind in (("bfloat16", "BF16"), ("float16", "F16")):
        made = merge_adapter(room / "adapter", tmp_path / name, dtype=name, threads=1)
        assert {spec.dtype for spec in made.tensors.values()} == {kind}
        assert made.config["dtype"] == name
        assert made.provenance and made.provenance.attest["rounding"]["dtype"] == kind
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(str(tmp_path / name), dtype="auto")
        assert model.dtype == getattr(torch, name)


def test_rounding_is_that_of_torch_halves_and_signs_included() -> None:
    bits = np.arange(0, 1 << 32, 104729, dtype=np.uint64).astype(np.uint32)
    halves = (np.arange(0, 1 << 16, 7, dtype=np.uint32) << 16) | np.uint32(0x8000)
    values = np.concatenate([bits, halves, halves - np.uint32(1), halves + np.uint32(1)]).view("<f4")
    values = values[np.isfinite(values) & (np.abs(values) < 3.38e38)]
    spec = TensorSpec("w", "BF16", values.shape)
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16)
    assert np.array_equal(store(values, spec), expected.view(torch.int16).numpy().view(np.uint8))
    assert np.array_equal(load(store(values, spec), spec), expected.float().numpy())
    small = values[np.abs(values) < 6e4]
    half = TensorSpec("w", "F16", small.shape)
    assert np.array_equal(load(store(small, half), half), torch.from_numpy(small.copy()).half().float().numpy())
    with pytest.raises(AdapterError, match="does not fit float16"):
        store(np.array([1e6], np.float32), TensorSpec("w", "F16", (1,)))
    with pytest.raises(AdapterError, match="infinite"):
        store(np.array([np.inf], np.float32), TensorSpec("w", "BF16", (1,)))


def test_an_update_is_summed_as_the_formula_says() -> None:
    draw = np.random.default_rng(0)
    weight, a, b = (draw.normal(size=shape).astype(np.float32) for shape in ((5, 7), (3, 7), (5, 3)))
    expected = weight.astype(np.float64) + 0.5 * np.einsum("or,ri->oi", b.astype(np.float64), a.astype(np.float64))
    assert np.allclose(Update("m", a, b, 0.5).merged_into(weight), expected, rtol=0, atol=1e-6)


def test_a_large_checkpoint_is_written_in_shards_to_the_same_weights(room: Path, merged: Path, tmp_path: Path) -> None:
    made = merge_adapter(room / "adapter", tmp_path / "shards", threads=1, max_shard_bytes=300_000)
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    whole = Checkpoint.open(merged)
    assert all(np.array_equal(made.raw(name), whole.raw(name)) for name in whole.tensors)


def test_a_base_in_shards_merges_to_the_same_weights(room: Path, merged: Path, tmp_path: Path) -> None:
    from .conftest import build_random_checkpoint

    sizes = {"hidden": 64, "ffn": 96, "layers": 2, "heads": 2, "kv_heads": 1, "vision_hidden": 64, "vision_ffn": 80}
    base = build_random_checkpoint(
        tmp_path / "base",
        5,
        **sizes,  # type: ignore[arg-type]
        vision_depth=2,
        vision_heads=2,
        fullatt_block_indexes=(1,),
        max_shard_size="300KB",
    )
    assert (base / "model.safetensors.index.json").is_file()
    shutil.copytree(room / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter/infimed.json").unlink()  # it was trained on the same weights in one file
    made = merge_adapter(tmp_path / "adapter", tmp_path / "merged", base=base, threads=1)
    whole = Checkpoint.open(merged)
    assert all(np.array_equal(made.raw(name), whole.raw(name)) for name in whole.tensors)


def test_two_merges_have_the_same_bytes_wherever_they_lie(room: Path, merged: Path, tmp_path: Path) -> None:
    shutil.copytree(room / "base", tmp_path / "deep/base")
    shutil.copytree(room / "adapter", tmp_path / "other/adapter")
    again = merge_adapter(tmp_path / "other/adapter", tmp_path / "m", base=tmp_path / "deep/base", threads=2)
    assert again.sha256 == Checkpoint.open(merged).sha256
    for path in (tmp_path / "m").iterdir():
        if path.name != "infimed.json":
            assert path.read_bytes() == (merged / path.name).read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def test_the_checkpoint_brings_all_that_a_prompt_needs_with_the_pixel_rules_of_the_adapter(
    room: Path, tmp_path: Path
) -> None:
    adapter = adapt(room, room / "base", tmp_path / "adapter", "[images]\nmax_pixels = 50176\n")
    merge_adapter(adapter, tmp_path / "merged", base=room / "base", threads=1)
    settings = json.loads((tmp_path / "merged/preprocessor_config.json").read_text())
    assert settings["max_pixels"] == 50176 and settings["size"]["longest_edge"] == 50176
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (room / "base" / name).read_bytes()


def test_a_merge_that_answers_otherwise_leaves_nothing(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_merge = Update.merged_into
    monkeypatch.setattr(Update, "merged_into", lambda self, *rows: true_merge(self, *rows) * np.float32(1.001))
    with pytest.raises(MergeError, match="logits differ by") as caught:
        merge_adapter(room / "adapter", tmp_path / "out", threads=1)
    assert caught.value.exit_code == 1 and list(tmp_path.iterdir()) == []


def test_what_cannot_be_merged_exactly_is_refused_by_name(room: Path, tmp_path: Path) -> None:
    for key, value in (("use_dora", True), ("bias", "all"), ("modules_to_save", ["lm_head"]), ("peft_type", "IA3")):
        folder = tmp_path / key
        shutil.copytree(room / "adapter", folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(AdapterError, match=key):
            merge_adapter(folder, tmp_path / "out", base=room / "base")
    with pytest.raises(AdapterError, match=r"adapter_config\.json is missing"):
        merge_adapter(room / "base", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("x")
    with pytest.raises(PublishError, match="exists already"):
        merge_adapter(room / "adapter", tmp_path / "full")
    with pytest.raises(merge_module.InfimedError, match="'int4' is unknown"):
        merge_adapter(room / "adapter", tmp_path / "out", dtype="int4")
    assert not (tmp_path / "out").exists()
