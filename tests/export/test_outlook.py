"""What a dry run says is what an export then does: sizes within 2 %, and a disk too small is told before any work."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from infimed.export import export_bundle as module
from infimed.export.export_bundle import Exported, export_bundle
from infimed.export.outlook import outlook
from infimed.runtime.levels import LEVELS
from infimed.runtime.publish import PublishError

from ..models import build_random_checkpoint

FEW = ("gguf-f16", "gguf-q4_k_m", "gguf-iq4_xs", "gguf-q4_k_m+vision-q8_0")
EVERY = (
    *(row.name for row in LEVELS if not row.calibrated),
    "gguf-q4_k_m+vision-q8_0",
    "onnx-int4+vision-fp16",
    "onnx-int4+vision-int8",
    "tensorrt-fp16+vision-int4",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Wide enough that graphs and headers, which no plan counts, are small beside the weights.
    shape = {"hidden": 512, "ffn": 1536, "vision_hidden": 256, "vision_ffn": 500, "dtype": "bfloat16"}
    return build_random_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint", **shape)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[FEW, pytest.param(EVERY, marks=pytest.mark.full)], ids=["few", "every"])
def exported(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_bundle(checkpoint, tmp_path_factory.mktemp("export") / "bundle", request.param, gate=False, threads=1)


def test_sizes_agree_with_the_outcome_within_two_percent(checkpoint: Path, exported: Exported) -> None:
    names = exported.bundle.names
    found = {level.level: level for level in outlook(checkpoint, names, probes=6, gate=False).levels}
    assert set(found) == set(names)
    for entry in exported.bundle.manifest.levels:
        assert found[entry.name].weight_bytes == pytest.approx(entry.weight_bytes, rel=0.02), entry.name
        assert found[entry.name].seconds > 0


def test_disk_is_what_the_bundle_takes_and_the_gate_s_level_on_top(checkpoint: Path, exported: Exported) -> None:
    files = exported.bundle.manifest.files
    weights = sum(
        entry.size_bytes for path, entry in files.items() if path.endswith((".gguf", ".onnx", ".data", ".npy"))
    )
    assert outlook(checkpoint, exported.bundle.names, probes=6, gate=False).disk_bytes == pytest.approx(
        weights, rel=0.02
    )
    with_gate = outlook(checkpoint, ["gguf-q8_0"], probes=6)
    assert [(level.level, level.asked) for level in with_gate.levels] == [("gguf-q8_0", True), ("gguf-f32", False)]
    assert with_gate.gate_seconds > 0 and with_gate.seconds > with_gate.gate_seconds


def test_a_disk_without_room_is_told_before_anything_is_made(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the reference must not be opened")

    monkeypatch.setattr(module, "open_reference", never)
    with pytest.raises(PublishError, match=r"needs 0\.\d\d GB, the disk has 0\.00 GB free"):
        export_bundle(checkpoint, tmp_path / "bundle", ["gguf-q8_0"], threads=1)
    assert list(tmp_path.iterdir()) == []
