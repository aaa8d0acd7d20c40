"""NVIDIA's own parser and builder take every TensorRT level, for three kinds of GPU, without one.

TensorRT for RTX is installed by pip into pytest's cache; that it cannot be had is a failure of this test. Each build
runs in a process of its own, in the environment that a device has: no torch, no onnx.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

for _library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(_library)

from ..onnx_levels import Exported  # noqa: E402
from ..support import Shown  # noqa: E402
from ..tensorrt_levels import LEVELS, measured, prompts, tiny_levels  # noqa: E402
from ..text_models import build_text_checkpoint  # noqa: E402

VERSION = "1.7.1.116"
WHEELS = [f"tensorrt-rtx-cu13-{part}=={VERSION}" for part in ("libs", "bindings")]
GPUS = ("8.6", "8.9", "12.0")
BUILDER = f"TensorRT-RTX builder ({', '.join(GPUS)})"
StateIt = Callable[[Shown], None]


@pytest.fixture(scope="session")
def library(pytestconfig: pytest.Config) -> Path:
    """Return the folder with TensorRT for RTX, which pip puts there once."""
    assert pytestconfig.cache is not None
    folder = Path(pytestconfig.cache.mkdir("tensorrt-rtx")) / VERSION
    if not (folder / "installed").is_file():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        done = subprocess.run([*pip, *WHEELS], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder / "installed").touch()
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return tiny_levels(tmp_path_factory)


def run(library: Path, code: str, *arguments: object) -> str:
    """Run code in a fresh interpreter that finds TensorRT for RTX; return what it printed."""
    start = f"import sys; sys.path.insert(0, {str(library)!r})\n"
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


BUILD = """
import json
from pathlib import Path
from infimed.runtime.tensorrt_build import TensorrtError, build, find_tensorrt
from infimed.runtime.tensorrt_recipe import Recipe
bundle, levels, gpus, out = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split(), Path(sys.argv[4])
found, done = {}, set()
for level in levels:
    recipe = Recipe.read(bundle / level / "recipe.json")
    for name, network in recipe.networks.items():
        if network.onnx in done:
            continue
        done.add(network.onnx)
        recipe.check_files(bundle, name)
        for gpu in gpus:
            plan = out / f"{level}-{name}-{gpu}.plan"
            settings = {"workspace_bytes": recipe.workspace_bytes, "compute_capability": gpu}
            try:
                build(bundle / network.onnx, network.profiles, plan, **settings)
            except TensorrtError as error:
                found[plan.name] = str(error)
            else:
                found[plan.name] = plan.stat().st_size
assert not {"torch", "onnx", "onnxruntime"} & set(sys.modules)
print(json.dumps([find_tensorrt().__version__, found]))
"""


@pytest.mark.full
def test_the_real_builder_takes_every_graph_for_every_gpu(
    library: Path, exported: Exported, tmp_path: Path, shown: StateIt
) -> None:
    told = run(library, BUILD, exported.bundle, " ".join(LEVELS), " ".join(GPUS), tmp_path)
    version, found = json.loads(told.splitlines()[-1])
    assert version == VERSION
    decoders, towers = len(LEVELS), 4  # fp32, fp16, int8, int4
    assert len(found) == (decoders + towers) * len(GPUS)
    assert all(isinstance(size, int) and size > 100_000 for size in found.values()), found
    for level in LEVELS:
        shown(Shown("qwen2.5-vl", level, BUILDER, "built only", f"version {VERSION}"))


@pytest.mark.full
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_the_real_builder_takes_models_without_images(
    family: str, library: Path, tmp_path: Path, shown: StateIt
) -> None:
    from infimed.export.tensorrt_export import export_tensorrt

    checkpoint = build_text_checkpoint(tmp_path / "checkpoint", family, layers=1)
    levels = [level for level in LEVELS if "+vision" not in level]
    activations = measured(checkpoint, prompts()[1:])
    export_tensorrt(checkpoint, tmp_path / "bundle", levels, activations=activations)
    told = run(library, BUILD, tmp_path / "bundle", " ".join(levels), " ".join(GPUS), tmp_path)
    _, found = json.loads(told.splitlines()[-1])
    assert len(found) == len(levels) * len(GPUS) and all(isinstance(size, int) for size in found.values()), found
    for level in levels:
        shown(Shown(family, level, BUILDER, "built only", f"version {VERSION}"))


REFUSALS = """
import json
from dataclasses import replace
from pathlib import Path
from infimed.runtime.onnx_file import OnnxFileError
from infimed.runtime.tensorrt_build import TensorrtError, build
from infimed.runtime.tensorrt_recipe import Recipe
bundle, broken, outside, out = (Path(one) for one in sys.argv[1:])
recipe = Recipe.read(bundle / "tensorrt-fp16/recipe.json")
network = recipe.networks["vision"]
(profile,) = network.profiles
def said(onnx=bundle / network.onnx, profile=profile, gpu="8.6"):
    try:
        build(onnx, [profile], out / "x.plan", workspace_bytes=1 << 30, compute_capability=gpu)
    except (TensorrtError, OnnxFileError) as error:
        return f"{type(error).__name__}: {error}"
    return "built"
shapes = dict(profile.shapes)
turned = replace(profile, shapes={**shapes, "seg_ids": ((9,), (4,), (4,))})
fewer = replace(profile, shapes={name: three for name, three in shapes.items() if name != "win_mask"})
print(json.dumps([
    said(broken), said(outside), said(profile=turned), said(profile=fewer), said(gpu="8.7"), said(),
    sorted(path.name for path in out.iterdir()),
]))
"""


@pytest.mark.full
def test_what_cannot_be_built_is_said_in_one_line(library: Path, exported: Exported, tmp_path: Path) -> None:
    import onnx

    shared = exported.bundle / "shared"
    broken = onnx.load(str(shared / "vision-fp16.onnx"), load_external_data=False)
    broken.graph.node[-2].op_type = "Nonsense"
    folder, out = tmp_path / "broken", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for path in shared.glob("vision-fp16-*.data"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.onnx").write_bytes(broken.SerializeToString())
    for tensor in broken.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../elsewhere.data"
    (folder / "outside.onnx").write_bytes(broken.SerializeToString())
    told: list[Any] = json.loads(
        run(library, REFUSALS, exported.bundle, folder / "broken.onnx", folder / "outside.onnx", out).splitlines()[-1]
    )
    *refusals, good, left = told
    assert "does not read broken.onnx" in refusals[0] and "Plugin not found" in refusals[0]
    assert refusals[1].startswith("OnnxFileError") and "only plain files beside it are read" in refusals[1]
    assert "refuses profile image" in refusals[2] and "MIN<=OPT<=MAX" in refusals[2]
    assert "differ in input win_mask" in refusals[3]
    assert "cannot build for compute capability 8.7" in refusals[4] and "SM86" in refusals[4]
    assert all("\n" not in text and len(text) < 800 for text in refusals)
    assert good == "built" and left == ["x.plan"]


LEVEL = """
import json
from pathlib import Path
from infimed.runtime.bundle import Bundle
from infimed.runtime.tensorrt_level import build_level
bundle = Bundle.open(Path(sys.argv[1]))
def made(**settings):
    found = build_level(bundle, "tensorrt-int4", folder=Path(sys.argv[2]), **settings)
    return [[one.network, one.fresh, one.plan.name, one.library] for one in found]
first = made(compute_capability="8.6")
again = made(compute_capability="8.6")
other = made(compute_capability="8.9")
plan = next(Path(sys.argv[2]).glob("*/decoder-sm86*.plan"))
plan.write_bytes(plan.read_bytes()[:-1])
mended = made(compute_capability="8.6")
print(json.dumps([first, again, other, mended]))
"""


@pytest.mark.full
def test_a_level_is_built_once_and_again_where_a_plan_is_not_what_its_record_says(
    library: Path, exported: Exported, tmp_path: Path
) -> None:
    from infimed.runtime.bundle import write_manifest

    bundle = tmp_path / "bundle"
    entry = exported.entries["tensorrt-int4"]
    for path in (*entry.files, *entry.shared):
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_bytes((exported.bundle / path).read_bytes())
    write_manifest(
        bundle, family="qwen2.5-vl", license="none", preprocessing={}, levels=[entry],
        provenance={"checkpoint_sha256": "0" * 64},
    )  # fmt: skip
    told = run(library, LEVEL, bundle, tmp_path / "plans").splitlines()[-1]
    first, again, other, mended = json.loads(told)
    name = f"sm86-tensorrt_rtx_bindings-{VERSION}.plan"
    assert first == [[one, True, f"{one}-{name}", "tensorrt_rtx_bindings"] for one in ("decoder", "vision")]
    assert [one[1] for one in again] == [False, False] and [one[1] for one in other] == [True, True]
    assert [one[1] for one in mended] == [True, False]
