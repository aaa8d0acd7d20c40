"""The weights of a level as what they stand for: float32 under the checkpoint's names in the layout of the model hub.

Held against the sketches taken at export, tensor by tensor, and written as a checkpoint that torch opens. How a format
stores them is in certificate_gguf.py and certificate_onnx.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from ..runtime.files import canonical_json, write_bytes
from ..runtime.prompt import PROMPT_FILES, read_json
from ..training.checkpoint import TensorSpec, write_weights
from .sketch import SLACK, relative_error, sketch

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


class WeightsError(InfimedError):
    """A level's weights cannot be read as the checkpoint's."""


@dataclass(frozen=True, eq=False)
class LevelWeight:
    """One tensor. name, shape: of the checkpoint. types: how its parts are stored, in the manifest's words.

    blocks: yields its rows as float32 in their order, some at a time; each call begins anew.
    """

    name: str
    shape: tuple[int, ...]
    types: frozenset[str]
    blocks: Callable[[], Iterator[NDArray[np.float32]]]

    def whole(self) -> NDArray[np.float32]:
        """Return the tensor: `shape`, float32."""
        return np.concatenate(list(self.blocks())).reshape(self.shape)


@dataclass(frozen=True)
class WeightError:
    """How far a tensor lies from the checkpoint's. relative: estimate of ||W - V|| / ||W||. limit: of its type."""

    name: str
    types: tuple[str, ...]
    relative: float
    limit: float

    @property
    def held(self) -> bool:
        """Whether the error is what its type explains; no number is not."""
        return self.relative <= self.limit


def weight_errors(
    weights: Sequence[LevelWeight],
    sketches: Mapping[str, NDArray[np.float64]],
    limits: Mapping[str, float],
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[WeightError, ...]:
    """Return each tensor's error. limits: of the true error by type; a type without one is refused.

    Raises WeightsError naming a tensor that one side lacks. A head that the checkpoint ties is held against its
    embedding.
    """
    known = {weight.name for weight in weights}
    if missing := sorted(set(sketches) - known - ({HEAD} if EMBEDDING in known else set())):
        raise WeightsError(f"tensor {missing[0]} of the checkpoint is not in the level; export it again")
    found = []
    for done, weight in enumerate(weights):
        name = weight.name if weight.name in sketches or weight.name != HEAD else EMBEDDING
        if name not in sketches:
            raise WeightsError(f"tensor {weight.name} of the level is not in the checkpoint; export it again")
        if strange := sorted(weight.types - limits.keys()):
            raise WeightsError(f"tensor {weight.name} is stored as {strange[0]}, whose error has no stated limit")
        try:
            error = relative_error(sketches[name], sketch(weight.blocks(), weight.shape))
        except ValueError as wrong:
            raise WeightsError(f"tensor {weight.name}: {wrong}; export the level again") from None
        limit = SLACK * max(limits[kind] for kind in weight.types)
        found.append(WeightError(weight.name, tuple(sorted(weight.types)), error, limit))
        on_tensor(done + 1, len(weights))
    return tuple(found)


def write_checkpoint(weights: Sequence[LevelWeight], shared: Path, folder: Path) -> Path:
    """Write the weights as a float32 checkpoint that transformers opens, the head untied; return its folder.

    shared: a bundle's folder with config.json and the prompt files. Takes 4 bytes per weight on the disk.
    """
    folder.mkdir(parents=True)
    for name in PROMPT_FILES:
        if (shared / name).is_file():
            shutil.copyfile(shared / name, folder / name)
    config = read_json(shared / "config.json")
    for table in (config, config.get("text_config") or {}):
        table["tie_word_embeddings"] = False
        for key in ("dtype", "torch_dtype"):
            if key in table:
                table[key] = "float32"
    write_bytes(folder / "config.json", canonical_json(config))
    by_name = {weight.name: weight for weight in weights}
    if HEAD not in by_name:
        by_name[HEAD] = by_name[EMBEDDING]
    specs = [TensorSpec(name, "F32", weight.shape) for name, weight in by_name.items()]
    write_weights(folder, specs, lambda spec: by_name[spec.name].whole().reshape(-1).view(np.uint8))
    return folder
