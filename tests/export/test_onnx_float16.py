"""The float16 graphs: what is half in them and what is not, and how near they lie to torch in float32."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

for _library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(_library)
from infimed.export import onnx_decoder, onnx_vision, onnx_weights  # noqa: E402
from infimed.export.graph_model import GraphModel  # noqa: E402
from infimed.runtime.distance import kl_rows  # noqa: E402
from infimed.runtime.messages import ImagePart, user  # noqa: E402
from infimed.runtime.preprocessing import patches  # noqa: E402
from infimed.runtime.prompt import Prompter  # noqa: E402
from infimed.runtime.vision_index import vision_index  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402
from infimed.training.reference import open_reference  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402

FLOAT, HALF = 1, 10
PLAIN = onnx_weights.Scheme(matrices=None)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a bfloat16 checkpoint and its two float16 graphs, as written to a folder, with what wrote them."""
    folder = tmp_path_factory.mktemp("float16")
    checkpoint = build_random_checkpoint(
        folder / "checkpoint", layers=2, vision_depth=2, fullatt_block_indexes=(1,), dtype="bfloat16"
    )
    opened = GraphModel.open(checkpoint)
    decoder, vision = opened.decoder, opened.vision
    models = {
        "decoder": onnx_decoder.trace_decoder(decoder, "float16"),
        "vision": onnx_vision.trace_vision(vision, "float16"),
    }
    traced = {
        name: hashlib.sha256(model.SerializeToString(deterministic=True)).digest() for name, model in models.items()
    }
    sources = {"decoder": opened.text, "vision": opened.eyes}
    written = {
        name: onnx_weights.write_graph(model, folder, name, sources[name], PLAIN) for name, model in models.items()
    }
    return SimpleNamespace(
        folder=folder,
        checkpoint=checkpoint,
        decoder=decoder,
        vision=vision,
        traced=traced,
        sources=sources,
        written=written,
        prompter=Prompter.open(checkpoint),
    )


def loaded(graphs: Any, name: str) -> Any:
    import onnx

    return onnx.shape_inference.infer_shapes(onnx.load(str(graphs.folder / f"{name}.onnx")), strict_mode=True)


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_decoder(graphs: Any, prompt: Any, embedded: np.ndarray, step: int) -> np.ndarray:
    """Return every row's logits of a prompt that goes through the graph in steps, with a cache of float16."""
    decoder, numbers = session(graphs.folder / "decoder.onnx"), graphs.decoder
    cache = [np.zeros((0, numbers.kv_heads, numbers.head_dim), dtype=np.float16)] * (2 * numbers.layers)
    rows = []
    for start in range(0, len(embedded), step):
        part = slice(start, start + step)
        tokens = len(embedded[part])
        feeds = {
            "inputs_embeds": embedded[part].astype(np.float16)[None],
            "position_ids": prompt.positions[:, None, part],
            "attention_mask": np.ones((1, start + tokens), dtype=np.int64),
            "logit_rows": np.arange(tokens),
            **dict(zip(numbers.cache_names("past"), cache, strict=True)),
        }
        logits, *new = decoder.run(None, feeds)
        assert logits.dtype == np.float32 and {entry.dtype for entry in new} == {np.dtype(np.float16)}
        cache = [np.concatenate(pair) for pair in zip(cache, new, strict=True)]
        rows.append(logits)
    return np.concatenate(rows)


def test_products_are_half_and_norms_rotation_softmax_and_logits_are_not(graphs: Any) -> None:
    for name in ("decoder", "vision"):
        graph = loaded(graphs, name).graph
        types = {
            value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)
        }
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        products = {node.output[0] for node in graph.node if node.op_type == "MatMul"}
        assert products and {types[value] for value in products} == {HALF}
        wide = ("Softmax", "Sqrt", "Reciprocal", "ReduceMean", "Pow", "Cos", "Sin")
        found = [node for node in graph.node if node.op_type in wide]
        assert {node.op_type for node in found} == set(wide)
        assert {types[value] for node in found for value in (node.input[0], node.output[0])} == {FLOAT}
        assert {types[value.name] for value in graph.output if value.name in ("logits", "image_embeddings")} == {FLOAT}
        for tensor in graph.initializer:
            if not tensor.name.startswith("constant_"):
                half = len(tensor.dims) == 2 or tensor.name.endswith("bias")
                assert tensor.data_type == (HALF if half else FLOAT), tensor.name
    assert graphs.written["decoder"].types["model.layers.0.mlp.up_proj.weight"] == "float16"
    assert graphs.written["vision"].types["visual.blocks.0.norm1.weight"] == "float32"


def test_they_lie_near_torch_in_float32(graphs: Any) -> None:
    reference = open_reference(graphs.checkpoint, threads=1)
    random = np.random.default_rng(3)
    images = [ImagePart(random.integers(0, 256, size, dtype=np.uint8)) for size in ((56, 168, 3), (140, 84, 3))]
    messages = (user(*images, "Is there a lesion in the left lung?"),)
    prompt = graphs.prompter.prompt(messages)
    made = [patches(image.rgb, graphs.prompter.rules) for image in prompt.images]
    index = vision_index([grid for _, grid in made], window_size=112, patch_size=14, merge_size=2)
    pixels = np.concatenate([values for values, _ in made])
    ours = session(graphs.folder / "vision.onnx").run(None, {"pixel_values": pixels, **index.feeds()})[0]
    theirs = np.concatenate(reference.image_embeddings(messages))
    cosine = (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert cosine.min() > 0.9999
    embedded = (
        Checkpoint.open(graphs.checkpoint).array("model.embed_tokens.weight").astype(np.float32)[prompt.token_ids]
    )
    embedded[prompt.token_ids == graphs.prompter.image_token_id] = ours
    rows = run_decoder(graphs, prompt, embedded, 17)
    apart = kl_rows(reference.prompt_logits(messages), rows)
    assert 1e-12 < apart.mean() < 1e-5 and apart.max() < 1e-3


def test_same_arguments_give_the_same_bytes(graphs: Any) -> None:
    again = onnx_decoder.trace_decoder(replace(graphs.decoder), "float16")
    assert hashlib.sha256(again.SerializeToString(deterministic=True)).digest() == graphs.traced["decoder"]


def test_a_weight_beyond_float16_is_refused_by_name(graphs: Any, tmp_path: Path) -> None:
    class Large(onnx_weights.Source):
        def read(self, part: Any) -> Any:
            return super().read(part) * np.float32(1e6)

    model = onnx_decoder.trace_decoder(graphs.decoder, "float16")
    name = "layers.1.mlp.up_proj.weight"
    source = graphs.sources["decoder"][name]
    large = {**graphs.sources["decoder"], name: Large(source.checkpoint, source.name, source.shape)}
    with pytest.raises(onnx_weights.WeightError, match=r"up_proj.weight holds .*; float16 ends at 65504"):
        onnx_weights.write_graph(model, tmp_path, "decoder", large, PLAIN)
    assert not list(tmp_path.iterdir())
