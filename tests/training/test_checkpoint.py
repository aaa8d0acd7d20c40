"""Checkpoints: read as safetensors and transformers read them, written so that they do, and never trusted half."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from infimed.runtime.shape import CheckpointError
from infimed.training.checkpoint import Checkpoint, TensorSpec, copy_companions, write_weights

from .conftest import build_micro


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_micro(tmp_path_factory.mktemp("half") / "model", dtype="bfloat16")


def copy_of(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_every_tensor_is_what_safetensors_reads(half: Path) -> None:
    checkpoint, other = Checkpoint.open(half), load_file(half / "model.safetensors")
    assert set(checkpoint.tensors) == set(other)
    for name, tensor in other.items():
        assert torch.equal(checkpoint.tensor(name), tensor)
        assert np.array_equal(checkpoint.array(name), tensor.float().numpy())
        assert checkpoint.tensors[name].shape == tuple(tensor.shape) and checkpoint.tensors[name].dtype == "BF16"


def test_weights_in_shards_are_written_and_open_in_transformers(half: Path, tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    source = Checkpoint.open(half)
    specs = list(source.tensors.values())
    write_weights(tmp_path, specs, lambda spec: source.raw(spec.name), max_shard_bytes=120_000)
    shutil.copyfile(half / "config.json", tmp_path / "config.json")
    copy_companions(half, tmp_path)
    written = Checkpoint.open(tmp_path)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(spec.bytes for spec in specs)
    assert all(np.array_equal(written.raw(name), source.raw(name)) for name in source.tensors)
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        str(tmp_path), dtype=torch.bfloat16, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    embedding = model.get_input_embeddings().weight
    assert torch.equal(embedding, source.tensor("model.embed_tokens.weight"))


def test_one_file_is_written_as_safetensors_writes_its_layout(half: Path, tmp_path: Path) -> None:
    source = Checkpoint.open(half)
    write_weights(tmp_path, list(source.tensors.values()), lambda spec: source.raw(spec.name))
    again = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(again[name], source.tensor(name)) for name in source.tensors)


def test_a_tensor_of_another_size_than_its_spec_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 bytes, its spec says 12"):
        write_weights(tmp_path, [TensorSpec("w", "F32", (3,))], lambda _: np.zeros(16, np.uint8))


def test_the_digest_follows_every_file_but_not_the_place_or_the_provenance(half: Path, tmp_path: Path) -> None:
    first = Checkpoint.open(half).sha256
    copied = copy_of(half, tmp_path / "copy")
    (copied / "infimed.json").write_text("{}")
    assert Checkpoint.open(copied).sha256 == first
    seen = {first}
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "preprocessor_config.json"):
        with open(copied / name, "a") as stream:
            stream.write(" ")
        seen.add(Checkpoint.open(copied).sha256)
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(weights)
    seen.add(Checkpoint.open(copied).sha256)
    assert len(seen) == 6


def test_a_cut_a_missing_and_a_lying_file_are_refused_by_name(half: Path, tmp_path: Path) -> None:
    cut = copy_of(half, tmp_path / "cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Checkpoint.open(cut)
    (cut / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        Checkpoint.open(cut)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        Checkpoint.open(tmp_path)
    index = {"weight_map": {"model.norm.weight": "model-1.safetensors", "ghost": "model-1.safetensors"}}
    (cut / "model-1.safetensors").write_bytes(whole)
    (cut / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="ghost"):
        Checkpoint.open(cut)
    with pytest.raises(CheckpointError, match="no tensor 'lm_tail'"):
        Checkpoint.open(half).raw("lm_tail")
