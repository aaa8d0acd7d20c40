"""Holds a merged checkpoint against base plus unmerged adapter: logits before storing, and as the file was stored.

The prompts are fixed and seeded, so that two merges of one adapter measure the same. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.decoding import Decoder
from ..runtime.distance import distance
from ..runtime.events import Event, OnEvent
from ..runtime.messages import ImagePart, Message, user
from ..runtime.prompt import Prompter
from .adapter import Adapter, Update
from .checkpoint import Checkpoint
from .lora import load_lora
from .reference import open_prompter
from .torch_backend import TorchBackend, load_model, use_threads


@dataclass(frozen=True)
class Rounding:
    """How large the stored type's rounding error is beside what the adapter added, by Frobenius norm over layers.

    dtype: safetensors' name of the stored type. A share of 1 or more means that an update drowned in rounding.
    """

    dtype: str
    layers: int
    median_share: float
    largest_share: float


@dataclass(frozen=True)
class Difference:
    """How far the rows of logits of two models lie apart over the same prompts; both computed in float32."""

    prompts: int
    rows: int
    max_abs_logit: float
    kl_mean_nats: float
    kl_max_nats: float
    top1: float


def check_prompts(images: bool = True) -> list[list[Message]]:
    """Return the prompts of the check: text alone, and seeded images of several sizes and shapes if the model sees."""
    draw = np.random.default_rng(20260)
    prompts = [[user("Which findings does a chest radiograph of pneumonia show? Options: opacity; fracture")]]
    if not images:
        return [*prompts, [user("Is there a lesion, and on which side?")], [user("Name two causes of a fever.")]]
    for height, width in ((112, 112), (84, 140), (224, 168)):
        rows, columns = np.mgrid[0:height, 0:width]
        centre = draw.uniform(0.3, 0.7, 2) * (height, width)
        disc = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (0.02 * height * width))
        grain = draw.normal(0, 12, (height, width, 3))
        rgb = np.clip(60 + 150 * disc[..., None] + grain, 0, 255).astype(np.uint8)
        prompts.append([user(ImagePart(rgb), "Is there a lesion, and on which side?")])
    return prompts


def difference_of(
    adapter: Adapter,
    base: Checkpoint,
    updates: Mapping[str, Update],
    stored: Checkpoint,
    threads: int,
    on_event: OnEvent,
) -> dict[str, Difference]:
    """Return {"merged": merged in float32 against unmerged, "stored": the written checkpoint against unmerged}.

    updates: by tensor name of the base. One model is in memory at a time.
    """
    use_threads(threads)
    prompter = open_prompter(base, adapter)
    prompts = check_prompts(images=prompter.pixel_rules is not None)
    peft_model = load_lora(load_model(base), adapter)
    unmerged = _logits(peft_model.get_base_model(), prompter, prompts)
    on_event(Event("check", 1, 3, "models"))
    for name, update in updates.items():
        layer = peft_model.get_base_model().get_submodule(update.module)
        _fill(layer.base_layer.weight, update.merged_into(base.array(name).astype(np.float32)))
    peft_model.base_model.disable_adapter_layers()
    merged = _logits(peft_model.get_base_model(), prompter, prompts)
    on_event(Event("check", 2, 3, "models"))
    del peft_model, layer
    as_stored = _logits(load_model(stored), prompter, prompts)
    on_event(Event("check", 3, 3, "models"))
    return {"merged": _difference(unmerged, merged), "stored": _difference(unmerged, as_stored)}


def _logits(model: Any, prompter: Prompter, prompts: Sequence[Sequence[Message]]) -> list[NDArray[np.float32]]:
    engine = Decoder(TorchBackend(model, prompter.pixel_rules), prompter, "check")
    rows = [engine.prompt_logits(messages) for messages in prompts]
    engine.close()
    return rows


def _fill(parameter: Any, values: NDArray[np.float32]) -> None:
    import torch

    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))


def _difference(reference: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> Difference:
    first, second = np.concatenate(reference), np.concatenate(other)
    told = distance(first, second, gap=0.0)
    return Difference(
        prompts=len(reference),
        rows=len(first),
        max_abs_logit=float(np.abs(first - second).max()),
        kl_mean_nats=told.kl_mean_nats,
        kl_max_nats=told.kl_max_nats,
        top1=told.top1,
    )
