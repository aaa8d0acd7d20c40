"""TensorRT levels are certified by their graphs, their weights read back, and say that it was not the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(_library)

from infimed.cli.verify import certificate_lines  # noqa: E402
from infimed.export.activations import Activations  # noqa: E402
from infimed.export.certificate import Certificate  # noqa: E402
from infimed.export.certificate_examine import examine  # noqa: E402
from infimed.export.onnx_stored import dequantised, read_weights  # noqa: E402
from infimed.runtime.bundle import Bundle  # noqa: E402
from infimed.runtime.files import canonical_json  # noqa: E402

from ..onnx_levels import Exported  # noqa: E402
from ..tensorrt_levels import LEVELS, measured, tiny_levels  # noqa: E402
from .onnx_undone import undone  # noqa: E402
from .parity_bundles import build_bundle, changed_copy, clean_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_checkpoint(tmp_path_factory.mktemp("tensorrt-certificate") / "checkpoint")


@pytest.fixture(scope="module")
def activations(checkpoint: Path) -> Activations:
    found: Activations = measured(checkpoint)
    return found


@pytest.fixture(scope="module")
def clean(checkpoint: Path, activations: Activations, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(checkpoint, tmp_path_factory.mktemp("clean") / "bundle", LEVELS, activations=activations)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return tiny_levels(tmp_path_factory)


def taken(bundle: Bundle, level: str) -> Certificate:
    return examine(bundle.folder, level, probes=None, threads=1)


FAST = ("tensorrt-int8+vision-int8", "tensorrt-int4+imatrix")

ALL = [pytest.param(one, marks=[] if one in FAST else [pytest.mark.full]) for one in LEVELS]


@pytest.mark.parametrize("level", ALL)
def test_every_level_is_certified_and_says_that_it_was_the_graph(clean: Bundle, level: str) -> None:
    found = taken(clean, level)
    verdicts = {statement.kind: statement.verdict for statement in found.statements}
    told = {"checks": "held", "graph": "held", "kernel": "held", "drift": "stated"}
    if level == "tensorrt-fp32":
        told["drift"] = "held"
    assert verdicts == told and found.held, found
    for statement in found.statements[1:]:
        assert all(finding.said.startswith("graph, not engine") for finding in statement.findings)
    assert found.to_json()["computes"] == "graph, not engine"
    assert Certificate.from_json(found.to_json()) == found
    lines = certificate_lines(found)
    assert lines[1].startswith(f"{level} (graph, not engine)")
    assert lines[-1] == "  certificate (graph, not engine): held"


def test_activations_that_keep_a_fraction_of_their_range_are_refused_in_the_kernels(
    checkpoint: Path, activations: Activations, tmp_path: Path
) -> None:
    """Neither weights nor graph have it: what is rounded away is what the level multiplies by."""
    narrow = {name: values / 20 for name, values in activations.largest.items()}
    wrong = Activations(activations.mean_square, narrow, activations.counts, "ef" * 32, "cd" * 32)
    found = taken(build_bundle(checkpoint, tmp_path / "bundle", ["tensorrt-int8"], activations=wrong), "tensorrt-int8")
    verdicts = {statement.kind: statement.verdict for statement in found.statements}
    assert verdicts["checks"] == verdicts["graph"] == "held"
    assert found.failure and (found.failure[0], found.failure[1].stage) == ("kernel", "logits")


def another_level(recipe: dict[str, Any]) -> None:
    recipe["level"] = "tensorrt-fp16"


def another_tower(recipe: dict[str, Any]) -> None:
    recipe["networks"]["vision"]["onnx"] = recipe["networks"]["decoder"]["onnx"]
    recipe["networks"]["vision"]["files"] = recipe["networks"]["decoder"]["files"]


def no_tower(recipe: dict[str, Any]) -> None:
    del recipe["networks"]["vision"]


def another_size(recipe: dict[str, Any]) -> None:
    for profile in recipe["networks"]["decoder"]["profiles"]:
        for sides in profile["shapes"]["inputs_embeds"].values():
            sides[2] *= 2


def a_size_too_many(recipe: dict[str, Any]) -> None:
    for profile in recipe["networks"]["vision"]["profiles"]:
        profile["shapes"]["mask"] = profile["shapes"]["seg_ids"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (another_level, "recipe.json is that of tensorrt-fp16"),
        (another_tower, "the graph of vision is tensorrt-int4/decoder.onnx"),
        (no_tower, "names decoder in place of decoder and vision"),
        (another_size, "gives inputs_embeds the shape"),
        (a_size_too_many, "do not both have mask"),
    ],
)
def test_a_recipe_that_builds_something_else_is_refused_in_the_headers(
    clean: Bundle, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    from infimed.export.certificate_headers import header_fault
    from infimed.export.dequantised_level import Level

    level = "tensorrt-int4"

    def changed(folder: Path) -> None:
        path = folder / level / "recipe.json"
        recipe = json.loads(path.read_bytes())
        change(recipe)
        path.write_bytes(canonical_json(recipe))

    bundle = changed_copy(clean, tmp_path / "bundle", changed)
    fault = header_fault(Level(bundle.folder, bundle.entry(level)))
    assert fault is not None and said in fault
    assert header_fault(Level(clean.folder, clean.entry(level))) is None


def test_a_graph_that_the_recipe_was_not_written_for_is_refused_without_a_word_on_this_machine(
    clean: Bundle, tmp_path: Path
) -> None:
    def changed(folder: Path) -> None:
        data = folder / "tensorrt-int4/decoder-0.data"
        data.write_bytes(data.read_bytes() + bytes(64))

    bundle = changed_copy(clean, tmp_path / "bundle", changed)
    found = examine(bundle.folder, "tensorrt-int4", probes=1, threads=1)
    assert found.failure and (found.failure[0], found.failure[1].stage) == ("checks", "headers")
    assert found.failure[1].said.startswith("tensorrt-int4/decoder-0.data is not the file that the recipe")
    assert str(tmp_path) not in json.dumps(found.to_json())


@pytest.mark.parametrize("level", LEVELS)
def test_weights_are_read_as_onnx_itself_reads_them_and_the_graph_written_with_them(
    level: str, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the reference of the operator in the onnx package; whole, and some inputs at a time."""
    import onnx

    from infimed.runtime.tensorrt_recipe import Recipe

    for network, prefix in (("decoder", "model."), ("vision", "visual.")):
        path = exported.bundle / Recipe.read(exported.bundle / level / "recipe.json").networks[network].onnx
        theirs = undone(onnx.load(str(path)).graph)
        ours = dict(read_weights(path.parent, path.stem))
        rounded = {name.removeprefix(prefix): values for name, values in ours.items()}
        assert theirs.keys() <= rounded.keys()
        assert bool(theirs) == ("int" in (path.stem if network == "vision" else level))
        for name, values in theirs.items():
            assert np.array_equal(rounded[name], values.T.astype(np.float32)), name
        files = dequantised(path.parent, path.stem, tmp_path / network)
        monkeypatch.setattr("infimed.export.onnx_stored.WORK_WEIGHTS", 1)
        assert dequantised(path.parent, path.stem, tmp_path / f"{network}-parts") == files
        monkeypatch.undo()
        for file in files:
            assert (tmp_path / network / file).read_bytes() == (tmp_path / f"{network}-parts" / file).read_bytes()
        plain = onnx.load(str(tmp_path / network / path.name))
        assert not {node.op_type for node in plain.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
        kinds = {tensor.data_type for tensor in plain.graph.initializer}
        assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
        stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in plain.graph.initializer}
        assert all(np.array_equal(stored[name], values.T) for name, values in rounded.items())
