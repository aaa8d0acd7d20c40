"""What a level's weights stand for, read back and run in full precision."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

for _library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(_library)
from infimed.export import onnx_schemes, onnx_source  # noqa: E402
from infimed.export.onnx_blocks import BlockStorage  # noqa: E402
from infimed.export.onnx_stored import dequantised, read_weights  # noqa: E402
from infimed.runtime.distance import kl_rows  # noqa: E402
from infimed.runtime.onnx_backend import OnnxBackend  # noqa: E402
from infimed.runtime.quantise import dequantise, quantise  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402

from ..onnx_levels import LEVELS, TOWERS, Exported, tiny_levels  # noqa: E402

PROJECTIONS = 7 * 2 + 1
IDS, POSITIONS = np.arange(3, 40), np.tile(np.arange(37), (3, 1))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return tiny_levels(tmp_path_factory)


def run(exported: Exported, folder: Path, shared: Path | None = None, vision: str = "fp32") -> np.ndarray:
    backend = OnnxBackend(folder, shared or exported.bundle / "shared", threads=1, context_tokens=64, vision=vision)
    return backend.extend(IDS, POSITIONS, (), len(IDS))


@pytest.mark.parametrize("level", LEVELS)
def test_every_matrix_of_a_level_is_near_the_checkpoints_and_named_as_in_the_hub(
    level: str, exported: Exported
) -> None:
    checkpoint = Checkpoint.open(exported.checkpoint)
    count = 0
    for name, values in read_weights(exported.bundle / level, "decoder"):
        stored = "model.embed_tokens.weight" if name == "lm_head.weight" else name
        weights = checkpoint.array(stored)
        assert values.shape == weights.shape and values.dtype == np.float32
        limit = 0 if level == "onnx-fp32" else 2e-3 if level == "onnx-fp16" else 0.01 if "int8" in level else 0.13
        apart = float(np.linalg.norm(values - weights) / np.linalg.norm(weights))
        assert apart <= limit, (name, apart)
        storage = onnx_schemes.SCHEMES[level.removeprefix("onnx-")].of(name.removeprefix("model."))
        if isinstance(storage, BlockStorage) and storage.method == "rtn":
            blocks = quantise(weights, storage.format)
            assert np.array_equal(values, dequantise(blocks, weights.shape[1], storage.format))
        count += 1
    assert count == PROJECTIONS


@pytest.mark.parametrize("tower", TOWERS)
def test_every_matrix_of_a_tower_is_near_the_checkpoints(tower: str, exported: Exported) -> None:
    checkpoint = Checkpoint.open(exported.checkpoint)
    found = dict(read_weights(exported.bundle / "shared", f"vision-{tower}"))
    assert len(found) == 1 + 5 * 2 + 2
    for name, values in found.items():
        weights = checkpoint.array(name).reshape(values.shape)
        limit = {"fp32": 0, "fp16": 2e-3}.get(tower, 0.01 if "int8" in tower else 0.13)
        assert float(np.linalg.norm(values - weights) / np.linalg.norm(weights)) <= limit, name


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_in_full_precision_differs_from_it_by_its_activations_only(
    level: str, exported: Exported, tmp_path: Path
) -> None:
    import onnx

    files = dequantised(exported.bundle / level, "decoder", tmp_path / "full")
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == sorted(files)
    model = onnx.load(str(tmp_path / "full/decoder.onnx"))
    assert not {"MatMulNBits", "MatMulInteger", "QuantizeLinear", "DynamicQuantizeLinear"} & {
        node.op_type for node in model.graph.node
    }
    assert {tensor.data_type for tensor in model.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, values in read_weights(exported.bundle / level, "decoder"):
        assert np.array_equal(weights[name.removeprefix("model.")], values.T)
    full, own, torch_like = (
        run(exported, folder) for folder in (tmp_path / "full", exported.bundle / level, exported.bundle / "onnx-fp32")
    )
    apart = float(kl_rows(full, own).mean())
    # the head of 4-bit levels, and whole levels of 8-bit activations, round what they multiply by
    limits = {"onnx-fp32": 1e-12, "onnx-fp16": 1e-5, "onnx-int8": 1e-9, "onnx-int8-static": 0.02}
    assert apart <= limits.get(level, 0.01)
    if level in ("onnx-int8", "onnx-int8-acc4", "onnx-int8-dynamic", "onnx-int8-static"):
        assert float(kl_rows(torch_like, full).mean()) < 1e-3


@pytest.mark.parametrize("tower", TOWERS)
def test_a_tower_in_full_precision_runs(tower: str, exported: Exported, tmp_path: Path) -> None:
    import onnxruntime

    dequantised(exported.bundle / "shared", f"vision-{tower}", tmp_path)
    rng = np.random.default_rng(0)
    feeds = {
        "pixel_values": rng.standard_normal((64, 1176)).astype(np.float32),
        "position_ids": np.stack([np.repeat(np.arange(8), 8), np.tile(np.arange(8), 8)], axis=1),
        "win_gather": np.arange(64)[None],
        "win_mask": np.ones((1, 64), bool),
        "win_scatter": np.arange(64),
        "seg_ids": np.zeros(64, np.int64),
    }
    made = []
    for folder in (tmp_path, exported.bundle / "shared"):
        path = str(folder / f"vision-{tower}.onnx")
        made.append(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0])
    apart = float(np.linalg.norm(made[0] - made[1]) / np.linalg.norm(made[1]))
    exact = tower in ("fp32", "int8") or (tower.startswith("int4") and "acc4" not in tower)
    assert apart < (1e-5 if exact else 2e-3 if tower == "fp16" else 0.1)


def test_some_inputs_at_a_time_give_the_same_files(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in ("onnx-int4", "onnx-int4-hqq", "onnx-int8-static"):
        dequantised(exported.bundle / level, "decoder", tmp_path / "whole")
        monkeypatch.setattr("infimed.export.onnx_stored.WORK_WEIGHTS", 1)
        dequantised(exported.bundle / level, "decoder", tmp_path / "parts")
        monkeypatch.setattr("infimed.export.onnx_stored.WORK_WEIGHTS", onnx_source.WORK_WEIGHTS)
        for path in sorted((tmp_path / "whole").iterdir()):
            assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()
        shutil.rmtree(tmp_path / "whole")
