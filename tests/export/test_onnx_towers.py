"""Vision towers chosen apart from the decoder: shared by levels, kept by those that join, refused where they differ."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

for _library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(_library)
from infimed.export import graph_bundle, onnx_schemes, onnx_source  # noqa: E402
from infimed.export.graph_model import GraphModel  # noqa: E402
from infimed.export.onnx_export import export_onnx  # noqa: E402
from infimed.runtime.levels import level  # noqa: E402
from infimed.runtime.onnx_file import OnnxFileError  # noqa: E402
from infimed.runtime.open_engine import open_level  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402
from ..onnx_levels import LEVELS, TOWERS, Exported, tiny_levels  # noqa: E402


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return tiny_levels(tmp_path_factory)


@pytest.fixture
def bundle(exported: Exported, tmp_path: Path) -> Path:
    """Return a bundle's folder that holds a level's shared files and no level."""
    shutil.copytree(exported.bundle / "shared", tmp_path / "bundle/shared")
    return tmp_path / "bundle"


def test_a_level_names_the_tower_it_uses_and_no_other(exported: Exported) -> None:
    for name, entry in exported.entries.items():
        used = {path for path in entry.shared if path.startswith("shared/vision-")}
        stem = f"shared/vision-{level(name).vision}"
        assert used == {f"{stem}.onnx", f"{stem}-0.data"}
        assert entry.weight_bytes >= sum((exported.bundle / path).stat().st_size for path in used)
    assert {level(name).vision for name in exported.entries} == set(TOWERS)
    assert {name.partition("+")[0] for name in exported.entries} == set(LEVELS)


def test_the_manifest_tells_how_each_tower_is_stored(exported: Exported) -> None:
    for tower in TOWERS:
        name = "onnx-int4" if tower == "fp32" else f"onnx-int4+vision-{tower}"
        types = exported.tensors[name]
        plain = "float16" if tower == "fp16" else "float32"
        storage = onnx_schemes.SCHEMES[tower].matrices
        assert types["visual.blocks.0.attn.qkv.weight"] == (storage.name if storage else plain)
        assert types["visual.patch_embed.proj.weight"] == plain
        assert types["visual.blocks.0.norm1.weight"] == "float32"


def test_open_level_opens_the_tower_of_the_level(exported: Exported) -> None:
    from infimed.runtime.messages import ImagePart, user

    rgb = np.random.default_rng(3).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    made = {}
    for name in ("onnx-int4", "onnx-int4+vision-int8", "onnx-int4+vision-fp16"):
        engine = open_level(exported.bundle, exported.entries[name], threads=1, context_tokens=512)
        (made[name],) = engine.image_embeddings((user(ImagePart(rgb), "Is there a lesion?"),))
        engine.close()
    apart = [float(np.abs(made["onnx-int4"] - values).max()) for values in made.values()]
    assert apart[0] == 0 < apart[2] < apart[1]


def test_what_lies_in_a_bundle_already_is_used_and_not_written_again(exported: Exported, bundle: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (bundle / "shared").iterdir()}
    names = ("onnx-int8", "onnx-int4+vision-int8-static", "onnx-int4+vision-fp16")
    entries = export_onnx(exported.checkpoint, bundle, names, activations=exported.activations)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (bundle / "shared").iterdir()} == before
    assert entries == {name: exported.entries[name] for name in names}


def test_a_level_is_the_same_whatever_was_exported_with_it(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "alone/shared").mkdir(parents=True)
    export_onnx(exported.checkpoint, tmp_path / "alone", ("onnx-int4-hqq+vision-int8",), threads=2)
    pairs = {
        "onnx-int4-hqq+vision-int8": exported.bundle / "onnx-int4-hqq",
        "shared": exported.bundle / "shared",
    }
    for folder, other in pairs.items():
        for path in (tmp_path / "alone" / folder).iterdir():
            assert path.read_bytes() == (other / path.name).read_bytes(), path


def damage_tower(bundle: Path) -> None:
    path = bundle / "shared/vision-int8-0.data"
    path.write_bytes(path.read_bytes()[:1000])


def swap_tower(bundle: Path) -> None:
    for suffix in (".onnx", "-0.data"):
        (bundle / f"shared/vision-int8{suffix}").unlink()
    shutil.copy(bundle / "shared/vision-fp32.onnx", bundle / "shared/vision-int8.onnx")


@pytest.mark.parametrize(
    ("change", "message"), [(damage_tower, "is shorter than"), (swap_tower, "it is of another model")]
)
def test_a_tower_that_cannot_be_used_is_refused(
    change: Callable[[Path], None], message: str, exported: Exported, bundle: Path
) -> None:
    change(bundle)
    with pytest.raises((OnnxFileError, onnx_source.WeightError), match=message):
        export_onnx(exported.checkpoint, bundle, ("onnx-int4+vision-int8",))


def test_a_static_tower_of_another_calibration_is_refused(exported: Exported, bundle: Path) -> None:
    assert exported.activations is not None
    other = replace(exported.activations, sha256="9" * 64)
    with pytest.raises(onnx_source.WeightError, match="calibrated on something else"):
        export_onnx(exported.checkpoint, bundle, ("onnx-int4+vision-int8-static",), activations=other)


@pytest.mark.parametrize("name", ["onnx-int8-static", "onnx-int4+vision-int8-static"])
def test_a_static_level_without_calibration_is_refused_with_what_to_type(
    name: str, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_bundle, "traced", lambda *given: pytest.fail("traced"))
    message = f"level {name} needs the ranges of activations; export it with --calibration DATASET"
    with pytest.raises(onnx_source.WeightError) as caught:
        export_onnx(exported.checkpoint, tmp_path, (name,))
    assert str(caught.value) == message and not (tmp_path / "shared").exists()


@pytest.mark.parametrize("change", ["missing", "narrow"])
def test_a_calibration_of_another_model_is_refused(change: str, exported: Exported, tmp_path: Path) -> None:
    assert exported.activations is not None
    name = "model.layers.1.mlp.down_proj.weight"
    parts = [dict(part) for part in (exported.activations.mean_square, exported.activations.largest)]
    counts = dict(exported.activations.counts)
    if change == "missing":
        for part in (*parts, counts):
            del part[name]  # type: ignore[attr-defined]
    else:
        for part in parts:
            part[name] = part[name][:-1]
    other = replace(exported.activations, mean_square=parts[0], largest=parts[1], counts=counts)
    said = f"has none of {name}" if change == "missing" else f"has 511 channels in place of 512 of {name}"
    with pytest.raises(onnx_source.WeightError, match=said):
        export_onnx(exported.checkpoint, tmp_path, ("onnx-int8-static",), activations=other)


def test_a_tied_head_that_differs_from_the_embedding_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    checkpoint = build_random_checkpoint(tmp_path / "c", layers=1, vision_depth=2, fullatt_block_indexes=(1,))
    weights = load_file(checkpoint / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    save_file(weights, checkpoint / "model.safetensors")
    GraphModel.open(checkpoint)
    weights["lm_head.weight"][5, 5] += 1
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(onnx_source.WeightError, match=r"ties the head to the embedding, yet lm_head\.weight differs"):
        GraphModel.open(checkpoint)
