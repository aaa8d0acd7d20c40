"""The check by layers refuses what the check by models refuses, sees every tensor, and needs little memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infimed.runtime.events import ignore
from infimed.runtime.shape import CheckpointError
from infimed.training import checkpoint as checkpoint_module
from infimed.training import merge as merge_module
from infimed.training.adapter import Adapter, AdapterError, Update
from infimed.training.checkpoint import Checkpoint, copy_companions, write_weights
from infimed.training.merge import MODEL_CHECK_BYTES, MergeError, _by_tensor, _chosen, _judge_layers, merge_adapter
from infimed.training.merge_layers import LayerDifference, check_modules, layer_difference_of

from .conftest import build_micro


@pytest.fixture(scope="module")
def merged(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return merge_adapter(room / "adapter", tmp_path_factory.mktemp("merged") / "m", check="layers", threads=1)


def compared(room: Path, stored: Checkpoint) -> LayerDifference:
    base = Checkpoint.open(room / "base")
    return layer_difference_of(base, _by_tensor(base, Adapter.open(room / "adapter").updates()), stored, ignore)


def changed_copy(source: Checkpoint, out: Path, name: str, change: Callable[[np.ndarray], None]) -> Checkpoint:
    """Write `source` again with one tensor's bytes changed in place."""
    out.mkdir()
    shutil.copyfile(source.folder / "config.json", out / "config.json")
    copy_companions(source.folder, out)

    def bytes_of(spec: checkpoint_module.TensorSpec) -> np.ndarray:
        raw = np.array(source.raw(spec.name))
        if spec.name == name:
            change(raw)
        return raw

    write_weights(out, list(source.tensors.values()), bytes_of)
    return Checkpoint.open(out)


def test_both_checks_accept_the_same_merge_and_write_the_same_weights(
    room: Path, merged: Checkpoint, tmp_path: Path
) -> None:
    by_model = merge_adapter(room / "adapter", tmp_path / "m", check="model", threads=1)
    assert by_model.sha256 == merged.sha256
    attest = json.loads((merged.folder / "infimed.json").read_text())["attest"]
    assert attest["check"] == "layers" and "stored" not in attest
    layers = attest["layers"]
    assert layers["layers"] == 26 and layers["untouched"] == len(merged.tensors) - 26 and not layers["changed"]
    assert 0 < layers["merged_of_limit"] < 1 and layers["stored_of_limit"] == 0  # float32 is stored as it was merged
    rows = [merged.tensors[name].shape[0] for name in _by_tensor(merged, Adapter.open(room / "adapter").updates())]
    assert layers["outputs"] == layers["inputs"] * sum(rows)


def test_what_storing_lost_is_what_torch_says(room: Path, tmp_path: Path) -> None:
    """Each layer's outputs again, by torch in float64, for other inputs of the same kind."""
    base = build_micro(tmp_path / "base", dtype="bfloat16")
    shutil.copytree(room / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter/infimed.json").unlink()  # it was trained on the same weights in float32
    made = merge_adapter(tmp_path / "adapter", tmp_path / "m", base=base, check="layers", threads=1)
    assert made.provenance
    told = made.provenance.attest["layers"]
    source, lost, whole = Checkpoint.open(base), [], []
    for name, update in _by_tensor(source, Adapter.open(tmp_path / "adapter").updates()).items():
        x = torch.randn(256, update.a.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        added = update.scale * (x @ torch.from_numpy(update.a).double().T) @ torch.from_numpy(update.b).double().T
        unmerged = x @ source.tensor(name).double().T + added
        missing = (x @ made.tensor(name).double().T - unmerged).norm()
        lost.append(float(missing / added.norm()))
        whole.append(float(missing / unmerged.norm()))
    assert told["update_lost_median"] == pytest.approx(np.median(lost), rel=0.1)
    assert told["update_lost_largest"] == pytest.approx(max(lost), rel=0.25)
    assert told["output_changed_largest"] == pytest.approx(max(whole), rel=0.25)
    assert 0.5 < told["stored_of_limit"] <= 1


@pytest.mark.parametrize("factor", [1.0005, 0.9995, 0.0], ids=["more", "less", "none"])
def test_a_merge_that_answers_otherwise_leaves_nothing(
    factor: float, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_merge = Update.merged_into
    monkeypatch.setattr(
        Update,
        "merged_into",
        lambda self, weight, first=0: weight + np.float32(factor) * (true_merge(self, weight, first) - weight),
    )
    with pytest.raises(MergeError, match="merged and unmerged layers differ by") as caught:
        merge_adapter(room / "adapter", tmp_path / "out", check="layers", threads=1)
    assert caught.value.exit_code == 1 and list(tmp_path.iterdir()) == []


def test_one_flipped_bit_of_any_stored_tensor_is_seen(room: Path, merged: Checkpoint, tmp_path: Path) -> None:
    def flip(raw: np.ndarray) -> None:
        raw[len(raw) // 2] ^= 1

    for number, name in enumerate(merged.tensors):
        found = compared(room, changed_copy(merged, tmp_path / str(number), name, flip))
        with pytest.raises(MergeError):
            _judge_layers(found)
        assert name in (*found.changed, found.worst)


def test_a_tensor_too_few_or_of_another_shape_is_refused(room: Path, merged: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "less").mkdir()
    shutil.copyfile(merged.folder / "config.json", tmp_path / "less/config.json")
    specs = list(merged.tensors.values())
    write_weights(tmp_path / "less", specs[:-1], lambda spec: merged.raw(spec.name))
    with pytest.raises(CheckpointError, match="other tensors than its base"):
        compared(room, Checkpoint.open(tmp_path / "less"))


def test_an_undefined_difference_is_no_merge() -> None:
    good: dict[str, Any] = {
        "layers": 1, "inputs": 1, "outputs": 1, "merged_of_limit": 0.1, "stored_of_limit": 1.0, "worst": "w",
        "update_lost_median": 0.0, "update_lost_largest": 0.0, "output_changed_largest": 0.0, "untouched": 0,
        "changed": (),
    }  # fmt: skip
    _judge_layers(LayerDifference(**good))
    for wrong in ({"merged_of_limit": float("nan")}, {"stored_of_limit": 1.01}, {"changed": ("norm",)}):
        with pytest.raises(MergeError):
            _judge_layers(LayerDifference(**{**good, **wrong}))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_another_stored_type_is_checked_against_its_own_rounding(dtype: str, room: Path, tmp_path: Path) -> None:
    made = merge_adapter(room / "adapter", tmp_path / "m", dtype=dtype, check="layers", threads=1)
    assert made.provenance
    layers = made.provenance.attest["layers"]
    assert layers["stored_of_limit"] <= 1 and not layers["changed"]
    assert (layers["update_lost_largest"] > 1e-4) is (dtype != "float32")


def test_small_blocks_of_rows_change_no_byte(room: Path, merged: Checkpoint, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoint_module, "BLOCK_WEIGHTS", 200)
    made = merge_adapter(room / "adapter", tmp_path / "m", check="layers", threads=1)
    assert made.sha256 == merged.sha256
    assert made.provenance and merged.provenance
    one, other = (product.provenance.attest["layers"] for product in (made, merged))
    assert one["outputs"] == other["outputs"]
    assert one["update_lost_median"] == pytest.approx(other["update_lost_median"], rel=1e-6)


def test_auto_takes_whole_models_up_to_two_gib_and_layers_above(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Checkpoint.open(room / "base")
    assert MODEL_CHECK_BYTES == 2 * 2**30 and _chosen("auto", base) == "model" and _chosen("layers", base) == "layers"
    monkeypatch.setattr(
        merge_module, "MODEL_CHECK_BYTES", 4 * sum(spec.bytes for spec in base.tensors.values()) // 4 - 1
    )
    assert _chosen("auto", base) == "layers" and _chosen("model", base) == "model"
    with pytest.raises(merge_module.InfimedError, match="check 'all' is unknown; choose one of auto, model, layers"):
        merge_adapter(room / "adapter", tmp_path / "m", check="all")  # type: ignore[arg-type]


def test_updates_are_where_transformers_and_peft_put_them(room: Path, tmp_path: Path) -> None:
    base = Checkpoint.open(room / "base")
    check_modules(base, Adapter.open(room / "adapter"))
    shutil.copytree(room / "adapter", tmp_path / "other")
    config = json.loads((tmp_path / "other/adapter_config.json").read_text())
    config["target_modules"] = r"model\.language_model\.layers\.\d+\.self_attn\.(q|k)_proj"
    (tmp_path / "other/adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="is not in both its config and its weights"):
        check_modules(base, Adapter.open(tmp_path / "other"))


def test_two_updates_of_one_weight_are_refused(room: Path) -> None:
    base = Checkpoint.open(room / "base")
    update = next(Adapter.open(room / "adapter").updates())
    with pytest.raises(AdapterError, match="are both"):
        _by_tensor(base, [update, update])
