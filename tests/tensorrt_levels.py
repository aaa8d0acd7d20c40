"""Exports a tiny random checkpoint to all TensorRT levels once for every test that looks at them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .models import build_random_checkpoint
from .onnx_levels import Exported

LEVELS = (
    "tensorrt-fp32",
    "tensorrt-fp16",
    "tensorrt-int8",
    "tensorrt-int4",
    "tensorrt-int4+imatrix",
    "tensorrt-int8+vision-int8",
    "tensorrt-int4+vision-int4",
)


def tiny_levels(factory: pytest.TempPathFactory) -> Exported:
    """Return the levels of the tiny checkpoint; ranges and weights of activations are measured on two prompts."""
    return _tiny_levels(factory.getbasetemp() / "tensorrt")


@functools.cache
def _tiny_levels(folder: Path) -> Exported:
    from infimed.export.tensorrt_export import export_tensorrt
    from infimed.runtime.prompt import PROMPT_FILES

    checkpoint = build_random_checkpoint(
        folder / "checkpoint", layers=2, vision_depth=2, fullatt_block_indexes=(1,), dtype="bfloat16"
    )
    bundle = folder / "bundle"
    (bundle / "shared").mkdir(parents=True)
    for name in PROMPT_FILES:
        shutil.copyfile(checkpoint / name, bundle / "shared" / name)
    activations = measured(checkpoint)
    return Exported(
        checkpoint, bundle, export_tensorrt(checkpoint, bundle, LEVELS, activations=activations), activations
    )


def prompts() -> list[Any]:
    """Return two conversations: one with two images, one of text alone."""
    from infimed.runtime.messages import ImagePart, user

    random = np.random.default_rng(3)
    images = [ImagePart(random.integers(0, 256, size, dtype=np.uint8)) for size in ((56, 168, 3), (140, 84, 3))]
    return [(user(*images, "Is there a lesion in the left lung?"),), (user("What is the size of the finding?"),)]


def measured(checkpoint: Path, conversations: Sequence[Any] | None = None) -> Any:
    """Return the Activations of a checkpoint, seen by hooks on transformers' own model.

    conversations: what it is asked; the two prompts by default.
    """
    from infimed.export.activations import Activations
    from infimed.training.reference import open_reference

    engine: Any = open_reference(checkpoint, threads=1)
    squares: dict[str, Any] = {}
    largest: dict[str, Any] = {}
    counts: dict[str, int] = {}

    def see(name: str) -> Any:
        def hook(module: Any, inputs: Any) -> None:
            rows = inputs[0].detach().reshape(-1, module.weight[0].numel()).numpy()
            squares[name] = squares.get(name, 0) + np.square(rows).sum(0)
            largest[name] = np.maximum(largest.get(name, 0), np.abs(rows).max(0))
            counts[name] = counts.get(name, 0) + len(rows)

        return hook

    for name, module in linears(engine):
        module.register_forward_pre_hook(see(name))
    for messages in prompts() if conversations is None else conversations:
        engine.prompt_logits(messages)
    means = {name: (squares[name] / counts[name]).astype(np.float32) for name in squares}
    return Activations(means, largest, counts, "ab" * 32, "cd" * 32)


def linears(engine: Any) -> list[tuple[str, Any]]:
    """Return the modules of a torch engine that hold a matrix, by the weight's name in the model hub's layout."""
    import torch

    found = []
    for name, module in engine.backend._model.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv3d)):
            hub = name.replace("model.language_model.", "model.", 1).replace("model.visual.", "visual.", 1)
            found.append((f"{hub}.weight", module))
    return found


def session(path: Path, reveal: Sequence[str] = ()) -> Any:
    """Return an onnxruntime session that computes Q/DQ as it is written. reveal: inner values that become outputs."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    model: str | bytes = str(path)
    if reveal:
        whole = onnx.load(str(path))
        known = {value.name for value in whole.graph.output}
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(reveal) if name not in known)
        model = whole.SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def see_and_read(exported: Exported, level: str, messages: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the image embeddings and every row of a prompt's logits, by the graphs that a level's recipe names."""
    networks, feeds = feeds_of(exported, level, messages)
    seen = np.zeros((0, feeds["decoder"]["inputs_embeds"].shape[-1]), dtype=np.float32)
    if "vision" in feeds:
        seen = session(exported.bundle / networks["vision"].onnx).run(None, feeds["vision"])[0]
    return seen, session(exported.bundle / networks["decoder"].onnx).run(["logits"], feeds["decoder"])[0]


def see_values(exported: Exported, level: str, network: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return inner values of one graph while it runs on the first prompt."""
    networks, feeds = feeds_of(exported, level, prompts()[0])
    wanted = list(dict.fromkeys(names))
    made = session(exported.bundle / networks[network].onnx, wanted).run(wanted, feeds[network])
    return dict(zip(wanted, made, strict=True))


def feeds_of(exported: Exported, level: str, messages: Any) -> tuple[Any, dict[str, dict[str, np.ndarray]]]:
    """Return a level's networks by its recipe, and what each is fed with for a prompt."""
    from infimed.runtime.preprocessing import patches
    from infimed.runtime.prompt import Prompter
    from infimed.runtime.tensorrt_recipe import Recipe
    from infimed.runtime.vision_index import vision_index
    from infimed.training.checkpoint import Checkpoint

    networks = Recipe.read(exported.bundle / level / "recipe.json").networks
    prompter = Prompter.open(exported.checkpoint)
    prompt = prompter.prompt(messages)
    table = Checkpoint.open(exported.checkpoint).array("model.embed_tokens.weight")
    embedded = table.astype(np.float32)[prompt.token_ids]
    feeds: dict[str, dict[str, np.ndarray]] = {}
    if prompt.images:
        made = [patches(image.rgb, prompter.rules) for image in prompt.images]
        index = vision_index([grid for _, grid in made], window_size=112, patch_size=14, merge_size=2)
        feeds["vision"] = {"pixel_values": np.concatenate([values for values, _ in made]), **index.feeds()}
        seen = session(exported.bundle / networks["vision"].onnx).run(None, feeds["vision"])[0]
        embedded[prompt.token_ids == prompter.image_token_id] = seen
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    ports = {port.name: port for port in session(exported.bundle / networks["decoder"].onnx).get_inputs()}
    past = {name: port for name, port in ports.items() if name.startswith("past_")}
    tokens = len(embedded)
    feeds["decoder"] = {
        "inputs_embeds": embedded[None].astype(kinds[ports["inputs_embeds"].type]),
        "position_ids": prompt.positions[:, None],
        "attention_mask": np.ones((1, tokens), dtype=np.int64),
        "logit_rows": np.arange(tokens),
        **{name: np.zeros((0, *port.shape[1:]), dtype=kinds[port.type]) for name, port in past.items()},
    }
    return networks, feeds
