"""The calibration pass: rows go through the torch reference in fp32, and what enters every weight is watched.

Pixels, tokens and positions are those of every engine (Prompter, TorchBackend). A weight is watched where it
multiplies: every Linear of the text model, the vision tower and the head, and the tower's patch convolution as the
product that it is. Knows no cache and no file format.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.dataset import Dataset
from ..runtime.backend import Placed
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.prompt import PreparedImage, Prompter
from ..training.checkpoint import Checkpoint
from ..training.torch_backend import TorchBackend, load_model, use_threads
from .calibration import CalibrationError, CalibrationRow, answered
from .calibration_totals import Seen, Totals, joined
from .gguf_names import hub_names

if TYPE_CHECKING:
    import torch

THREADS = 1
"""Of torch in this pass, whatever the machine has: its sums depend on the number (docs/calibration.md)."""


class Watch:
    """Forward pre-hooks on every product of a model with one of its weights."""

    def __init__(self, model: Any) -> None:
        self._found: dict[str, Seen] = {}
        self._last: tuple[Any, Seen] | None = None
        self._hooks = [
            module.register_forward_pre_hook(self._hook(names, rows)) for module, names, rows in _products(model)
        ]

    def seen_in(self, work: Callable[[], Any]) -> tuple[Any, dict[str, Seen]]:
        """Return what `work` returns, and what entered each weight meanwhile, by the weight's name in the hub."""
        self._found, self._last = {}, None
        try:
            made = work()
            return made, self._found
        finally:
            self._found, self._last = {}, None

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, names: Sequence[str], rows: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
        def look(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            given = inputs[0]
            # q, k and v, or gate and up, are given the very same tensor, and it is held here until the next one.
            if self._last is None or self._last[0] is not given:
                values: NDArray[np.float32] = rows(given).float().cpu().numpy()
                self._last = (given, Seen.of(values))
            for name in names:
                seen = self._last[1]
                self._found[name] = self._found[name] + seen if name in self._found else seen

        return look


def _products(model: Any) -> list[tuple[Any, tuple[str, ...], Callable[[torch.Tensor], torch.Tensor]]]:
    """Return each module that multiplies by a weight, that weight's names in the hub, and what makes rows of its input.

    A weight that two modules share (a head tied to the embedding) has both names.
    """
    import torch

    named = dict(model.named_parameters(remove_duplicate=False))
    names: dict[int, list[str]] = defaultdict(list)
    for hub, stored in hub_names(named).items():
        names[id(named[stored])].append(hub)
    found: list[tuple[Any, tuple[str, ...], Callable[[torch.Tensor], torch.Tensor]]] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            found.append((module, tuple(names[id(module.weight)]), _flat))
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)) and module.kernel_size == module.stride:
            found.append((module, tuple(names[id(module.weight)]), _patches_of(module.kernel_size)))
    return found


def _flat(given: torch.Tensor) -> torch.Tensor:
    return given.detach().reshape(-1, given.shape[-1])


def _patches_of(kernel: Sequence[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what cuts (n, channels, *sides) into rows of channels x kernel: a convolution with no overlap."""

    def cut(given: torch.Tensor) -> torch.Tensor:
        values = given.detach()
        channels = values.shape[1]
        for axis, size in enumerate(kernel):
            at = 2 + 2 * axis
            pieces = values.shape[at] // size
            values = values.narrow(at, 0, pieces * size)
            values = values.reshape(*values.shape[:at], pieces, size, *values.shape[at + 1 :])
        places = [2 + 2 * axis for axis in range(len(kernel))]
        ordered = values.permute(0, *places, 1, *(place + 1 for place in places))
        return ordered.reshape(-1, channels * math.prod(kernel))

    return cut


def run_pass(
    checkpoint_folder: Path,
    dataset: Dataset,
    rows: Sequence[CalibrationRow],
    totals: Totals,
    *,
    images: bool = True,
    after_row: Callable[[Totals], None] = lambda totals: None,
    on_event: OnEvent = ignore,
) -> None:
    """Add the rows that `totals` does not hold yet; they are taken in order, so it holds the first ones.

    images: False asks without them. after_row: called after each row, to keep the totals. Computes with THREADS and
    gives torch its own number back. Raises CalibrationError for a row that the model cannot take.
    """
    import torch

    before = torch.get_num_threads()
    use_threads(THREADS)
    try:
        prompter = Prompter.open(checkpoint_folder)
        model = load_model(Checkpoint.open(checkpoint_folder))
        watch, backend = Watch(model), TorchBackend(model, prompter.pixel_rules)
        encoder = _Encoder(watch, backend)
        for row in rows[totals.rows :]:
            prompt = prompter.prompt(answered(dataset, row.example, images), reply_follows=False)
            tokens = len(prompt.token_ids)
            if tokens > backend.context_tokens:
                raise CalibrationError(
                    f"example {row.example.id!r} has {tokens} tokens, the model takes {backend.context_tokens}; leave "
                    "it out of the role calibration"
                )
            placed, towers = encoder.encode(prompt.images)
            backend.truncate(0, 0)
            extend = partial(backend.extend, prompt.token_ids, prompt.positions, placed, tokens)
            _, text = watch.seen_in(extend)
            totals.add(joined([*towers, text]), row.weight)
            after_row(totals)
            on_event(Event("calibration", totals.rows, len(rows), "rows"))
        watch.close()
        backend.close()
    finally:
        torch.set_num_threads(before)


class _Encoder:
    """Encodes a row's images; those of the row before are at hand, for questions on one image follow each other."""

    def __init__(self, watch: Watch, backend: TorchBackend) -> None:
        self._watch, self._backend = watch, backend
        self._kept: dict[str, tuple[NDArray[np.float32], Mapping[str, Seen]]] = {}

    def encode(self, images: Sequence[PreparedImage]) -> tuple[list[Placed], list[Mapping[str, Seen]]]:
        """Return the images as placed, and what was seen while each was encoded, whenever that was."""
        made: dict[str, tuple[NDArray[np.float32], Mapping[str, Seen]]] = {}
        for image in images:
            if image.key not in made:
                made[image.key] = self._kept.get(image.key) or self._watch.seen_in(
                    partial(self._backend.encode_image, image)
                )
        self._kept = made
        placed = [Placed(image.start, made[image.key][0]) for image in images]
        return placed, [made[image.key][1] for image in images]
