"""TensorRT levels as graphs: what they are made of, what they compute, and what they need to be exported."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(_library)
import onnx  # noqa: E402

from infimed.export.activations import ActivationsError  # noqa: E402
from infimed.export.onnx_source import WeightError  # noqa: E402
from infimed.export.tensorrt_export import export_tensorrt  # noqa: E402
from infimed.runtime.distance import kl_rows  # noqa: E402
from infimed.runtime.levels import LEVELS as LEVEL_ROWS  # noqa: E402
from infimed.runtime.levels import level as level_row  # noqa: E402
from infimed.runtime.prompt import PROMPT_FILES  # noqa: E402
from infimed.runtime.tensorrt_recipe import Recipe, RecipeError  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402
from infimed.training.reference import open_reference  # noqa: E402

from ..onnx_levels import Exported  # noqa: E402
from ..tensorrt_levels import LEVELS, linears, measured, prompts, see_and_read, see_values, tiny_levels  # noqa: E402
from ..text_models import build_text_checkpoint  # noqa: E402
from .onnx_undone import undone  # noqa: E402


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return tiny_levels(tmp_path_factory)


def graph_of(exported: Exported, level: str, network: str) -> Any:
    path = Recipe.read(exported.bundle / level / "recipe.json").networks[network].onnx
    return onnx.load(str(exported.bundle / path)).graph


def test_every_row_is_exported_here() -> None:
    assert {row.name for row in LEVEL_ROWS if row.format == "tensorrt"} == {level_row(name).base for name in LEVELS}


def test_operators_are_standard_and_every_tensor_has_the_type_it_got(exported: Exported) -> None:
    checkpoint = Checkpoint.open(exported.checkpoint)
    for level in LEVELS:
        for network in ("decoder", "vision"):
            model = onnx.load(
                str(exported.bundle / Recipe.read(exported.bundle / level / "recipe.json").networks[network].onnx)
            )
            assert [entry.domain for entry in model.opset_import] == [""] and not model.functions
            assert model.opset_import[0].version == (
                21 if any(t.data_type == 22 for t in model.graph.initializer) else 20
            )
            assert not any(node.domain or node.doc_string or node.metadata_props for node in model.graph.node)
        assert set(exported.tensors[level]) == set(checkpoint.tensors)
    types = exported.tensors["tensorrt-int4+vision-int4"]
    assert types["model.layers.0.mlp.up_proj.weight"] == "int4-block64-symmetric, float16 activations"
    assert types["model.embed_tokens.weight"] == "bfloat16 (embedding), float16 (head)"
    assert types["visual.blocks.0.attn.qkv.weight"] == "int4-block64-symmetric, float16 activations"
    assert types["visual.blocks.0.mlp.down_proj.weight"] == "float16"  # 200 columns fill no blocks
    assert types["visual.patch_embed.proj.weight"] == "float16"
    assert (
        exported.tensors["tensorrt-int8"]["model.layers.1.mlp.down_proj.weight"]
        == "int8-channel-symmetric, static int8 activations"
    )


def test_the_full_precision_level_is_the_reference_and_fp16_lies_near_it(exported: Exported) -> None:
    reference = open_reference(exported.checkpoint, threads=1)
    for messages in prompts():
        theirs = np.concatenate([np.zeros((0, 256), np.float32), *reference.image_embeddings(messages)])
        rows = reference.prompt_logits(messages)
        for level, most in (("tensorrt-fp32", 1e-9), ("tensorrt-fp16", 1e-5)):
            seen, logits = see_and_read(exported, level, messages)
            assert np.abs(seen - theirs).max(initial=0) <= (1e-5 if most < 1e-6 else 1e-2) * np.abs(theirs).max(
                initial=0
            )
            assert kl_rows(rows, logits).mean() <= most


def test_a_level_without_tensorrt_opens_as_its_graph_and_says_so(exported: Exported) -> None:
    from infimed.runtime.open_engine import computed_as, open_level

    for level in ("tensorrt-int4+vision-int4", "tensorrt-int8+vision-int8"):
        engine = open_level(exported.bundle, exported.entries[level], threads=1)
        assert engine.level == level and computed_as(level) == "graph, not engine"
        messages = prompts()[1]
        _, whole = see_and_read(exported, level, messages)
        assert kl_rows(whole, engine.prompt_logits(messages)).mean() < (1e-6 if "int4" in level else 1e-2)
        assert engine.score(messages, ["yes", "no"]).choice() in ("yes", "no")
        engine.close()
    assert not computed_as("onnx-fp16")


def test_a_model_without_images_has_a_recipe_of_its_decoder_alone(tmp_path: Path) -> None:
    from infimed.runtime.messages import user
    from infimed.runtime.open_engine import open_level

    checkpoint = build_text_checkpoint(tmp_path / "checkpoint", "llama", layers=1)
    bundle = tmp_path / "bundle"
    (bundle / "shared").mkdir(parents=True)
    for name in PROMPT_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, bundle / "shared" / name)
    entries = export_tensorrt(checkpoint, bundle, ["tensorrt-fp16"])
    assert set(Recipe.read(bundle / "tensorrt-fp16/recipe.json").networks) == {"decoder"}
    engine = open_level(bundle, entries["tensorrt-fp16"], threads=1)
    rows = engine.prompt_logits((user("Is there a lesion?"),))
    apart = kl_rows(open_reference(checkpoint, threads=1).prompt_logits((user("Is there a lesion?"),)), rows)
    assert apart.mean() < 1e-5


@pytest.mark.parametrize("level", ["tensorrt-int4+vision-int4", "tensorrt-int4+imatrix"])
def test_int4_levels_compute_what_torch_does_with_the_rounded_weights(level: str, exported: Exported) -> None:
    """An independent reading: transformers' own model with its matrices replaced by what the graph's stand for."""
    import torch

    engine: Any = open_reference(exported.checkpoint, threads=1)
    replaced = 0
    for network, prefix in (("decoder", "model."), ("vision", "visual.")):
        matrices = undone(graph_of(exported, level, network))
        for hub, module in linears(engine):
            if hub.startswith(prefix) and hub.removeprefix(prefix) in matrices:
                made = torch.from_numpy(matrices[hub.removeprefix(prefix)].astype(np.float32).T)
                with torch.no_grad():
                    module.weight.copy_(made.reshape(module.weight.shape))
                replaced += 1
    assert replaced == (14 + 10 if "vision" in level else 14)
    plain = open_reference(exported.checkpoint, threads=1)
    for messages in prompts():
        seen, logits = see_and_read(exported, level, messages)
        theirs = np.concatenate([np.zeros((0, 256), np.float32), *engine.image_embeddings(messages)])
        assert np.abs(seen - theirs).max(initial=0) <= 1e-2 * np.abs(theirs).max(initial=0)
        own, away = (kl_rows(one.prompt_logits(messages), logits).mean() for one in (engine, plain))
        assert own < 1e-5 and away > 1e-3


@pytest.mark.parametrize("network", ["decoder", "vision"])
def test_int8_products_are_those_of_whole_numbers(network: str, exported: Exported) -> None:
    """Each product of a run, held against integers multiplied exactly: what an int8 kernel sums up, scaled once.

    Logits say nothing here: at random weights a last bit of float16 before a rounding changes them as int8 itself does.
    """
    level = "tensorrt-int8+vision-int8"
    path = exported.bundle / Recipe.read(exported.bundle / level / "recipe.json").networks[network].onnx
    graph = onnx.load(str(path)).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    rounding = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    undoing = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[0] in undoing]
    assert len(products) == {"decoder": 14, "vision": 12}[network]
    given = [rounding[undoing[node.input[0]].input[0]].input[0] for node in products]
    values = see_values(exported, level, network, [*given, *(node.output[0] for node in products)])
    for node, name in zip(products, given, strict=True):
        (low, scale, _), (integers, scales) = undoing[node.input[0]].input, undoing[node.input[1]].input
        assert rounding[low].input[1] == scale and stored[integers].dtype == np.int8
        whole = np.clip(np.rint(values[name].astype(np.float32) / stored[scale].astype(np.float32)), -128, 127)
        sums = whole.astype(np.int64) @ stored[integers].astype(np.int64)
        exact = sums * stored[scale].astype(np.float64) * stored[scales].astype(np.float64)
        assert np.abs(values[node.output[0]] - exact).max() <= 2e-3 * np.abs(exact).max()
        most = np.abs(values[name]).max() / float(stored[scale])
        # the range was measured on these prompts together; one input channel in a hundred may reach beyond it
        assert 32 < most < 300


def test_weighing_errors_by_activations_brings_int4_nearer(exported: Exported) -> None:
    """By the measure that the weights are: squared error, each input channel counted by its mean square."""
    activations = measured(exported.checkpoint)
    checkpoint = Checkpoint.open(exported.checkpoint)
    errors = {}
    for level in ("tensorrt-int4", "tensorrt-int4+imatrix"):
        total = 0.0
        for name, made in undone(graph_of(exported, level, "decoder")).items():
            apart = made.astype(np.float64) - checkpoint.array(f"model.{name}").T
            total += float((np.square(apart) * activations.mean_square[f"model.{name}"][:, None]).sum())
        errors[level] = total
    assert errors["tensorrt-int4+imatrix"] < 0.98 * errors["tensorrt-int4"]


def test_levels_that_round_by_activations_are_refused_without_them(exported: Exported, tmp_path: Path) -> None:
    for level in ("tensorrt-int8", "tensorrt-int4+imatrix", "tensorrt-fp16+vision-int8"):
        with pytest.raises(WeightError, match="export it with --calibration"):
            export_tensorrt(exported.checkpoint, tmp_path / "bundle", [level])
    assert not (tmp_path / "bundle").exists()
    of_another = measured(exported.checkpoint)
    shorter = {name: values[:-1] for name, values in of_another.largest.items()}
    other = type(of_another)(shorter, shorter, of_another.counts, of_another.sha256, of_another.dataset_sha256)
    with pytest.raises((WeightError, ActivationsError), match="calibrate this checkpoint"):
        export_tensorrt(exported.checkpoint, tmp_path / "bundle", [level], activations=other)


def test_a_level_added_later_is_the_same_and_another_tower_is_refused(exported: Exported, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
    shutil.rmtree(bundle / "tensorrt-int4")
    before = (bundle / "shared/vision-fp16.onnx").stat().st_mtime_ns
    export_tensorrt(exported.checkpoint, bundle, ["tensorrt-int4"])
    assert (bundle / "shared/vision-fp16.onnx").stat().st_mtime_ns == before
    for path in sorted(exported.bundle.rglob("*")):
        if path.is_file():
            again = bundle / path.relative_to(exported.bundle)
            assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest(), again
    activations = measured(exported.checkpoint)
    wider = {name: values * 2 for name, values in activations.largest.items()}
    other = type(activations)(activations.mean_square, wider, activations.counts, "ef" * 32, "cd" * 32)
    with pytest.raises(WeightError, match="calibrated on something else"):
        export_tensorrt(exported.checkpoint, bundle, ["tensorrt-int8+vision-int8"], activations=other)


def test_profiles_are_one_call_at_each_end_and_hold_what_the_runtime_asks(exported: Exported) -> None:
    from infimed.runtime.preprocessing import Grid
    from infimed.runtime.vision_index import vision_index

    recipe = Recipe.read(exported.bundle / "tensorrt-fp16/recipe.json")
    decoder = {profile.name: profile.shapes for profile in recipe.networks["decoder"].profiles}
    for shapes in decoder.values():
        for end in range(3):
            tokens, past = shapes["inputs_embeds"][end][1], shapes["past_key.0"][end][0]
            assert shapes["attention_mask"][end][1] == tokens + past
            assert shapes["position_ids"][end] == (3, 1, tokens)
    assert decoder["prefill"]["inputs_embeds"][2][1] == 256 and decoder["decode"]["inputs_embeds"][2][1] == 1
    assert decoder["decode"]["past_key.0"][2][0] == 4096
    (image,) = recipe.networks["vision"].profiles
    most_patches, most_windows = image.shapes["pixel_values"][2][0], image.shapes["win_gather"][2][0]
    assert most_patches == 28 * 28 * 256 // 14**2
    for height in range(2, most_patches // 2 + 1, 2):
        grid = Grid(1, height, most_patches // height // 2 * 2)
        index = vision_index([grid], window_size=112, patch_size=14, merge_size=2)
        assert len(index.win_gather) <= most_windows, grid


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"strongly_typed": true', '"strongly_typed": false', "says more or other"),
        ('"workspace_bytes": 1073741824', '"workspace_bytes": "1 GB"', "in place of a int"),
        ('"onnx": "tensorrt-fp16/decoder.onnx"', '"onnx": "other.onnx"', "needs its graph"),
        ('"tensorrt-fp16/decoder.onnx": "', '"../decoder.onnx": "', "no path inside|needs its graph"),
        ("{", "[", "is no recipe"),
    ],
)
def test_a_changed_recipe_is_refused(old: str, new: str, said: str, exported: Exported, tmp_path: Path) -> None:
    text = (exported.bundle / "tensorrt-fp16/recipe.json").read_text()
    assert old in text
    (tmp_path / "recipe.json").write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError, match=said):
        Recipe.read(tmp_path / "recipe.json")


def test_a_recipe_knows_its_files(exported: Exported, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
    recipe = Recipe.read(bundle / "tensorrt-int8/recipe.json")
    recipe.check_files(bundle, "decoder")
    data = bundle / "tensorrt-int8/decoder-0.data"
    changed = bytearray(data.read_bytes())
    changed[-1] ^= 1
    data.write_bytes(changed)
    recipe.check_files(bundle, "vision")
    with pytest.raises(RecipeError, match="is not the file that the recipe of tensorrt-int8 was written for"):
        recipe.check_files(bundle, "decoder")
