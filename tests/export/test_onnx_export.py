from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infimed.export import onnx_schemes, onnx_source, onnx_weights
from infimed.export.graph_model import GraphModel
from infimed.export.onnx_blocks import BlockStorage
from infimed.runtime.distance import kl_rows
from infimed.runtime.levels import LEVELS as LEVEL_ROWS
from infimed.runtime.messages import ImagePart, user
from infimed.runtime.onnx_backend import OnnxBackend
from infimed.runtime.preprocessing import PixelRules, patches
from infimed.runtime.prompt import read_json
from infimed.runtime.quantise import dequantise, quantise
from infimed.runtime.vision_index import vision_index

for _library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(_library)
from infimed.training.checkpoint import Checkpoint  # noqa: E402
from infimed.training.reference import open_reference  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402
from ..onnx_levels import LEVELS, TOWERS, Exported, export_levels, tiny_levels  # noqa: E402


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return tiny_levels(tmp_path_factory)


def graph_of(exported: Exported, path: str) -> Any:
    import onnx

    return onnx.load(str(exported.bundle / path))


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_onnx_level_has_a_scheme_of_the_bits_that_its_row_states() -> None:
    rows = {row.storage: row for row in LEVEL_ROWS if row.format == "onnx"}
    assert set(rows) == set(onnx_schemes.SCHEMES)
    for storage, row in rows.items():
        scheme = onnx_schemes.SCHEMES[storage]
        plain = {"float32": 32, "float16": 16}[scheme.dtype]
        assert row.weight_bits == (scheme.matrices.bits_per_weight if scheme.matrices else plain)
        assert row.base == f"onnx-{storage}" and "cpu" in row.runs_on


def test_every_tensor_of_the_checkpoint_has_the_type_it_got(exported: Exported) -> None:
    checkpoint = Checkpoint.open(exported.checkpoint)
    for level in LEVELS:
        assert set(exported.tensors[level]) == set(checkpoint.tensors)
    types = exported.tensors["onnx-int4"]
    assert types["model.layers.0.mlp.up_proj.weight"] == "int4-block32-asymmetric, float32 activations"
    assert types["model.embed_tokens.weight"] == (
        "bfloat16 (embedding), int8-block32-symmetric, int8 activations (head)"
    )
    assert types["model.norm.weight"] == types["visual.blocks.0.attn.qkv.weight"] == "float32"
    assert set(exported.tensors["onnx-fp32"].values()) == {"float32", "bfloat16 (embedding), float32 (head)"}


def test_stored_numbers_are_the_checkpoints_quantised(exported: Exported) -> None:
    import onnx

    checkpoint = Checkpoint.open(exported.checkpoint)
    weights = checkpoint.array("model.layers.1.mlp.down_proj.weight")
    stored = {
        level: {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in graph_of(exported, f"{level}/decoder.onnx").graph.initializer
        }
        for level in LEVELS
    }
    name = "layers.1.mlp.down_proj.weight"
    assert np.array_equal(stored["onnx-fp32"][name], weights.T)
    for level in ("onnx-int8", "onnx-int8-acc4", "onnx-int4", "onnx-int4-acc4", "onnx-int4-b128"):
        storage = onnx_schemes.SCHEMES[level.removeprefix("onnx-")].of(name)
        assert isinstance(storage, BlockStorage)
        blocks = quantise(weights, storage.format)
        assert np.array_equal(stored[level][f"{name}.packed"], blocks.packed)
        assert np.array_equal(stored[level][f"{name}.scales"], blocks.scales)
        assert (blocks.zero_points is None) == (f"{name}.zero_points" not in stored[level])
        if blocks.zero_points is not None:
            assert np.array_equal(stored[level][f"{name}.zero_points"], blocks.zero_points)
        assert np.abs(dequantise(blocks, weights.shape[1], storage.format) - weights).max() < 0.1


def test_only_the_kernels_that_the_manifest_names_round_their_activations(exported: Exported) -> None:
    for level in LEVELS:
        nodes = graph_of(exported, f"{level}/decoder.onnx").graph.node
        products = {node.input[1].removesuffix(".packed"): node for node in nodes if node.op_type == "MatMulNBits"}
        assert bool(products) == level.startswith(("onnx-int4", "onnx-int8")) - level.endswith(("dynamic", "static"))
        for name, node in products.items():
            attributes = {one.name: one.i for one in node.attribute}
            rounded = level.endswith("acc4") or (name == "lm_head.weight" and level != "onnx-int8")
            # 4 is onnxruntime's number for 8-bit activations; without it they stay float32
            assert attributes.get("accuracy_level") == (4 if rounded else None)
            kind = exported.tensors[level]["model.embed_tokens.weight" if "head" in name else f"model.{name}"]
            assert (", int8 activations" in kind) == rounded


def test_no_graph_tells_where_or_from_what_it_was_made(exported: Exported) -> None:
    import onnx

    for path in (*(f"{level}/decoder.onnx" for level in LEVELS), *(f"shared/vision-{tower}.onnx" for tower in TOWERS)):
        model = onnx.load(str(exported.bundle / path), load_external_data=False)
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")
        told = [word for word in ("/", ".py", "torch", "stack_trace", "export") if word in str(model)]
        assert not told, (path, told)
        assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
        assert model.producer_name == "infimed"
        assert not model.graph.value_info


def test_every_graph_is_of_the_documented_opset_and_operators(exported: Exported) -> None:
    import onnx

    for path in (*(f"{level}/decoder.onnx" for level in LEVELS), *(f"shared/vision-{tower}.onnx" for tower in TOWERS)):
        model = onnx.load(str(exported.bundle / path), load_external_data=False)
        stem = path.split("/")[0].removeprefix("onnx-") if "decoder" in path else path[14:-5]
        blocks = stem not in ("fp32", "fp16", "int8-dynamic", "int8-static")
        assert model.ir_version == 10
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        assert opsets == {"": 20, **({"com.microsoft": 1} if blocks else {})}, path
        assert {node.op_type for node in model.graph.node if node.domain} == ({"MatMulNBits"} if blocks else set()), (
            path
        )


def test_plain_onnxruntime_runs_the_graphs_by_their_documented_names(exported: Exported) -> None:
    import onnxruntime

    bundle = exported.bundle
    eyes = onnxruntime.InferenceSession(str(bundle / "shared/vision-fp32.onnx"), providers=["CPUExecutionProvider"])
    rules = PixelRules.from_json(read_json(bundle / "shared/preprocessor_config.json"))
    rgb = np.random.default_rng(0).integers(0, 256, (84, 140, 3), dtype=np.uint8)
    pixels, grid = patches(rgb, rules)
    index = vision_index([grid], window_size=112, patch_size=14, merge_size=2)
    (seen,) = eyes.run(
        ["image_embeddings"],
        {
            "pixel_values": pixels,
            "position_ids": index.position_ids,
            "win_gather": index.win_gather,
            "win_mask": index.win_mask,
            "win_scatter": index.win_scatter,
            "seg_ids": index.seg_ids,
        },
    )
    assert seen.shape == (grid.tokens(2), 256)
    for level in LEVELS:
        decoder = onnxruntime.InferenceSession(str(bundle / level / "decoder.onnx"), providers=["CPUExecutionProvider"])
        kind = np.float16 if level == "onnx-fp16" else np.float32
        empty = np.zeros((0, 2, 64), dtype=kind)
        feeds = {
            "inputs_embeds": seen[None].astype(kind),
            "position_ids": np.tile(np.arange(len(seen)), (3, 1, 1)),
            "attention_mask": np.ones((1, len(seen)), dtype=np.int64),
            "logit_rows": np.array([len(seen) - 1]),
            **{f"past_{part}.{layer}": empty for part in ("key", "value") for layer in range(2)},
        }
        names = [f"new_{part}.{layer}" for part in ("key", "value") for layer in range(2)]
        logits, *cache = decoder.run(["logits", *names], feeds)
        assert logits.shape == (1, 640)
        assert all(entry.shape == (len(seen), 2, 64) for entry in cache)
        # a masked token might as well not be there
        feeds["attention_mask"][0, 3] = 0
        masked = decoder.run(["logits"], feeds)[0]
        kept = np.delete(np.arange(len(seen)), 3)
        feeds |= {
            "inputs_embeds": seen[None, kept].astype(kind),
            "position_ids": feeds["position_ids"][:, :, kept],
            "attention_mask": np.ones((1, len(kept)), dtype=np.int64),
            "logit_rows": np.array([len(kept) - 1]),
        }
        # the one range of all rows at once is what dynamic quantisation measures: there the token was among them
        limit = {"onnx-fp16": 0.02, "onnx-int8-dynamic": 0.5}.get(level, 1e-4)
        assert np.abs(decoder.run(["logits"], feeds)[0] - masked).max() < limit


def test_images_encoded_together_do_not_see_each_other(exported: Exported) -> None:
    import onnxruntime

    path = str(exported.bundle / "shared/vision-fp32.onnx")
    eyes = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rules = PixelRules.from_json(read_json(exported.bundle / "shared/preprocessor_config.json"))
    random = np.random.default_rng(1)
    made = [patches(random.integers(0, 256, size, dtype=np.uint8), rules) for size in ((140, 84, 3), (56, 252, 3))]

    def encode(part: list[Any]) -> np.ndarray:
        index = vision_index([grid for _, grid in part], window_size=112, patch_size=14, merge_size=2)
        pixels = np.concatenate([values for values, _ in part])
        result: np.ndarray = eyes.run(None, {"pixel_values": pixels, **index.feeds()})[0]
        return result

    apart = np.concatenate([encode(made[:1]), encode(made[1:])])
    assert np.abs(encode(made) - apart).max() < 1e-5


@pytest.mark.full
def test_two_exports_in_two_processes_give_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(exported.checkpoint, moved)
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from tests.onnx_levels import export_every; export_every(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", code, str(moved), str(tmp_path / "bundle"), str(root)],
        env=os.environ | {"PYTHONHASHSEED": "77"},
        cwd=tmp_path,
        check=True,
    )
    made = hashes(tmp_path / "bundle")
    assert made == hashes(exported.bundle) and {"onnx-int4/decoder.onnx", "shared/vision-fp32.onnx"} <= set(made)


@pytest.fixture(scope="module")
def decoder_graph(exported: Exported) -> Any:
    """Return the decoder's graph without weights, as trace_decoder gave it, from the file that was made of it."""
    import onnx

    model = onnx.load(str(exported.bundle / "onnx-fp32/decoder.onnx"), load_external_data=False)
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensor for tensor in tensors if tensor.name.startswith("constant_"))
    for tensor in tensors:
        if not tensor.name.startswith("constant_"):
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def fill(graph: Any, checkpoint: Path, folder: Path) -> onnx_weights.Written:
    copy = type(graph)()
    copy.CopyFrom(graph)
    folder.mkdir()
    return onnx_weights.write_graph(
        copy, folder, "decoder", GraphModel.open(checkpoint).text, onnx_schemes.SCHEMES["int4"]
    )


def test_data_is_cut_into_pieces_below_the_limit_and_nothing_changes(
    exported: Exported, decoder_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infimed.export.onnx_data.PIECE_BYTES", 200_000)
    monkeypatch.setattr(onnx_source, "WORK_WEIGHTS", 5_000)
    folder = tmp_path / "onnx-int4"
    written = fill(decoder_graph, exported.checkpoint, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(written.files)
    assert len(written.files) > 4
    assert all((folder / name).stat().st_size <= 200_000 for name in written.files)
    ids, positions = np.arange(9), np.tile(np.arange(9), (3, 1))
    rows = [
        OnnxBackend(place, exported.bundle / "shared", threads=1, context_tokens=64).extend(ids, positions, (), 9)
        for place in (folder, exported.bundle / "onnx-int4")
    ]
    assert np.array_equal(*rows)


def test_embeddings_are_the_checkpoints_bit_for_bit(exported: Exported) -> None:
    stored = np.load(exported.bundle / "shared/token_embeddings.npy", mmap_mode="r", allow_pickle=False)
    assert stored.dtype == np.uint16
    raw = Checkpoint.open(exported.checkpoint).raw("model.embed_tokens.weight")
    assert stored.tobytes() == raw.tobytes()


def changed_checkpoint(exported: Exported, folder: Path, change: str) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(exported.checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    if change == "missing":
        del weights[name]
    elif change == "shape":
        weights[name] = weights[name][:-2].clone()
    elif change == "nan":
        weights[name][3, 5] = torch.nan
    elif change == "infinite embedding":
        weights["model.embed_tokens.weight"][7, 7] = torch.inf
    else:
        config = (folder / "config.json").read_text("utf-8")
        tied = '"tie_word_embeddings": true'
        assert tied in config
        (folder / "config.json").write_text(config.replace(tied, tied.replace("true", "false")), "utf-8")
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"has no tensor model.language_model.layers.1.self_attn.k_proj.weight"),
        ("shape", r"k_proj.weight has shape \[126, 256\]; config.json asks for \[128, 256\]"),
        ("infinite embedding", "tensor model.embed_tokens.weight holds NaN or infinity"),
        ("untied", "unties the output head, yet there is no lm_head.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_traced(
    change: str, message: str, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infimed.export.onnx_vision.trace_vision", lambda numbers: pytest.fail("traced"))
    checkpoint = changed_checkpoint(exported, tmp_path / "checkpoint", change)
    with pytest.raises(onnx_weights.WeightError, match=message):
        export_levels(checkpoint, tmp_path / "bundle", ("onnx-int4",))


def test_a_weight_that_is_no_number_is_named_and_nothing_is_left(
    exported: Exported, decoder_graph: Any, tmp_path: Path
) -> None:
    checkpoint = changed_checkpoint(exported, tmp_path / "checkpoint", "nan")
    with pytest.raises(onnx_weights.WeightError, match=r"layers\.1\.self_attn\.k_proj\.weight holds NaN"):
        fill(decoder_graph, checkpoint, tmp_path / "level")
    assert list((tmp_path / "level").iterdir()) == []


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_untied_deeper_model_with_wide_heads_equals_torch(dtype: str, tmp_path: Path) -> None:
    checkpoint = build_random_checkpoint(
        tmp_path / "checkpoint",
        hidden=384,
        ffn=704,
        layers=3,
        heads=3,
        kv_heads=1,
        vision_hidden=160,
        vision_ffn=212,
        vision_depth=8,
        vision_heads=4,
        fullatt_block_indexes=(1, 3, 5, 7),
        vocabulary=650,
        tied=False,
        dtype=dtype,
    )
    made = export_levels(checkpoint, tmp_path / "bundle", ("onnx-fp32", "onnx-int4"))
    assert made.tensors["onnx-int4"]["lm_head.weight"] == "int8-block32-symmetric, int8 activations"
    reference = open_reference(checkpoint, threads=1)
    random = np.random.default_rng(2)
    images = [
        ImagePart(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((56, 168), (140, 84), (28, 28), (300, 411))
    ]
    from infimed.runtime.decoding import Decoder
    from infimed.runtime.prompt import Prompter

    prompter = Prompter.open(checkpoint)
    backend = OnnxBackend(made.bundle / "onnx-fp32", made.bundle / "shared", threads=1, context_tokens=2048)
    engine = Decoder(backend, prompter, "onnx-fp32")
    for messages in (*((user(image, "Is there a lesion?"),) for image in images), (user(*images, "And here?"),)):
        theirs, ours = reference.prompt_logits(messages), engine.prompt_logits(messages)
        assert float(kl_rows(theirs, ours).mean()) <= 1e-6
