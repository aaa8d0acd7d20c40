from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _library in ("torch", "transformers", "onnx", "onnxruntime", "optimum"):
    pytest.importorskip(_library)

from infimed import MissingExtra  # noqa: E402
from infimed.export.gguf_names import TextShape  # noqa: E402
from infimed.export.graph_model import read_config  # noqa: E402
from infimed.export.onnx_decoder import DecoderNumbers  # noqa: E402
from infimed.export.onnx_export import export_onnx  # noqa: E402
from infimed.export.optimum_tables import task_of, text_numbers  # noqa: E402
from infimed.runtime.families import FAMILIES, UnsupportedFamily  # noqa: E402
from infimed.runtime.onnx_backend import DECODER, EMBEDDINGS  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402
from infimed.training.torch_backend import load_model, use_threads  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402
from ..text_models import TEXT_FAMILIES, build_text_checkpoint  # noqa: E402

PAST, TOKENS = 6, 7


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    found = {name: build_text_checkpoint(folder / name, name, kv_heads=1) for name in TEXT_FAMILIES}
    wide = build_text_checkpoint(folder / "wide", "llama", head_dim=32)
    return {**found, "llama of another head_dim": wide, "qwen2.5-vl": build_random_checkpoint(folder / "vl")}


def test_every_family_takes_images_where_its_task_says_so() -> None:
    for family in FAMILIES:
        task = task_of({"architectures": [family.architecture]})
        assert task == ("text-generation" if family.image_token is None else "image-text-to-text"), family.name


def test_the_task_of_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFamily, match="BertForMaskedLM is not supported"):
        task_of({"architectures": ["BertForMaskedLM"]})


def test_numbers_by_optimums_names_are_those_that_gguf_reads_of_the_json(checkpoints: dict[str, Path]) -> None:
    for folder in checkpoints.values():
        config = read_config(folder)
        common, graph, gguf = text_numbers(config), DecoderNumbers.of(config), TextShape.of(config.to_dict())
        sizes = gguf.sizes
        read = (common.num_layers, common.hidden_size, common.intermediate_size, common.vocab_size)
        assert read == (graph.layers, graph.hidden, graph.intermediate, graph.vocabulary)
        assert read == (sizes.layers, sizes.hidden, sizes.ffn, sizes.vocabulary)
        assert (graph.heads, graph.kv_heads, graph.head_dim) == (gguf.heads, gguf.kv_heads, gguf.head_dim)
        assert (graph.norm_epsilon, graph.rope_theta) == (gguf.norm_epsilon, gguf.rope_base)
        with pytest.raises(AttributeError, match="num_experts"):
            _ = common.num_experts


@pytest.mark.parametrize(
    "asked", [lambda: task_of({"architectures": [FAMILIES[0].architecture]}), lambda: text_numbers(None)]
)
def test_without_optimum_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "optimum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optimum", None)
    with pytest.raises(MissingExtra, match=r"optimum\S* is not installed; .*\[export\]"):
        asked()


@pytest.mark.parametrize("name", [*TEXT_FAMILIES, "llama of another head_dim"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_graph_equals_transformers_on_inputs_that_optimum_draws(
    checkpoints: dict[str, Path], tmp_path: Path, name: str, seed: int
) -> None:
    """A cache of noise, and a mask that hides its beginning: neither is in any prompt of ours."""
    import torch
    from transformers import DynamicCache

    folder = checkpoints[name]
    use_threads(1)
    model = load_model(Checkpoint.open(folder))
    ids, mask, past = drawn(read_config(folder), seed)
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(past):
        cache.update(keys.clone(), values.clone(), layer)
    places = torch.arange(PAST, PAST + TOKENS)[None]
    with torch.inference_mode():
        theirs = model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache).logits[0].numpy()

    export_onnx(folder, tmp_path, ["onnx-fp32"], threads=1)
    ours = graph_logits(tmp_path, ids.numpy(), mask.numpy(), past)
    told = mask[0, PAST:].bool().numpy()  # a hidden token sees nothing: what it makes is nobody's business
    assert told.any() and not mask.all()
    largest = np.abs(theirs[told]).max()
    assert np.abs(ours - theirs)[told].max() < 1e-5 * largest
    seen = graph_logits(tmp_path, ids.numpy(), np.ones_like(mask.numpy()), past)
    assert np.abs(seen - theirs)[told].max() > 1e-2 * largest


def drawn(config: Any, seed: int) -> tuple[Any, Any, Any]:
    """Return token ids (1, TOKENS), mask (1, PAST + TOKENS) and cache of optimum's own generators."""
    import torch
    from optimum.utils import DummyTextInputGenerator, MistralDummyPastKeyValuesGenerator

    random.seed(seed)
    torch.manual_seed(seed)
    numbers = text_numbers(config)
    task = task_of(config.to_dict())
    ids = DummyTextInputGenerator(task, numbers, batch_size=1, sequence_length=TOKENS)
    mask = DummyTextInputGenerator(task, numbers, batch_size=1, sequence_length=PAST + TOKENS, padding_side="left")
    past = MistralDummyPastKeyValuesGenerator(task, numbers, batch_size=1, sequence_length=PAST)
    return ids.generate("input_ids"), mask.generate("attention_mask"), past.generate("past_key_values")


def graph_logits(bundle: Path, ids: Any, mask: Any, past: Any) -> Any:
    """Return the decoder graph's logits of every token: (TOKENS, vocabulary)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(bundle / "onnx-fp32" / DECODER) + ".onnx", options, providers=["CPUExecutionProvider"]
    )
    places = np.arange(PAST, PAST + TOKENS)
    feeds = {
        "inputs_embeds": np.load(bundle / "shared" / EMBEDDINGS)[ids],
        "position_ids": np.broadcast_to(places, (3, 1, TOKENS)).copy(),
        "attention_mask": mask,
        "logit_rows": np.arange(TOKENS),
    }
    for layer, pair in enumerate(past):
        for kind, values in zip(("key", "value"), pair, strict=True):
            feeds[f"past_{kind}.{layer}"] = values[0].permute(1, 0, 2).contiguous().numpy()
    return session.run(["logits"], feeds)[0]
