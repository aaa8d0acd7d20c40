"""The bytes of a level's weights: predicted from a model's shape before anything is exported, or read from a bundle.

Knows the layouts that export/ writes by their bits per weight, and asks llama.cpp for its own; opens no weight.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import InfimedError
from ..runtime.bundle import Bundle
from ..runtime.families import family_named, family_of
from ..runtime.gguf_file import TENSOR_TYPES
from ..runtime.levels import LEVELS, QuantLevel
from ..runtime.levels import level as level_row
from ..runtime.llama_files import EMBEDDING
from ..runtime.llama_library import LlamaError
from ..runtime.llama_mix import QuantiseError, choose_types, mix_keys, tensor_bytes
from ..runtime.manifest import MANIFEST
from ..runtime.prompt import open_rules, read_json
from ..runtime.shape import ModelShape, context_limit
from ..runtime.tensors import HEAD
from .tower import tower_bytes

# Levels whose output head is stored in more bits than the rest: in GGUF where llama.cpp is not there to be asked, in
# ONNX (onnx_schemes.py).
_Q6_K, _Q5_K = 6.5625, 5.5
_HEAD_BITS = {
    "gguf-iq3_xxs": _Q5_K,
    **{f"gguf-{name}": _Q6_K for name in ("q5_k_m", "q4_k_m", "iq4_xs", "q4_0", "q3_k_m", "q2_k")},
    **{row.base: 9.0 for row in LEVELS if row.format == "onnx" and row.storage.startswith("int4")},
    **{row.base: 16.0 for row in LEVELS if row.format == "tensorrt" and row.storage != "fp32"},
}

UNPLANNED = ("tensorrt",)
"""Formats whose engine's memory and speed were never measured: nothing is predicted of them."""
PLANNED_LEVELS = tuple(row for row in LEVELS if row.format not in UNPLANNED)


class PlanError(InfimedError):
    """What is to be planned is neither a checkpoint nor a bundle."""


@dataclass(frozen=True)
class LevelWeights:
    """What one level brings.

    language_bytes: the decoder with its head. embedding_bytes: a token embedding beside it, of which a token reads one
    row. vision_bytes: the vision tower with its projector. exact: sizes of real files, not predictions.
    """

    level: QuantLevel
    language_bytes: int
    embedding_bytes: int
    vision_bytes: int
    exact: bool

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return self.language_bytes + self.embedding_bytes + self.vision_bytes

    @property
    def read_per_token_bytes(self) -> int:
        """What decoding one token reads of the weights: the decoder and its head once."""
        return self.language_bytes


@dataclass(frozen=True)
class Planned:
    """A checkpoint or bundle as far as planning goes: its shape and its levels.

    max_pixels: of the largest image its rules allow, 0 where it takes none. max_tokens: the longest sequence it was
    made for.
    """

    source: str
    shape: ModelShape
    levels: tuple[LevelWeights, ...]
    max_pixels: int
    max_tokens: int


def predict(shape: ModelShape, row: QuantLevel) -> LevelWeights:
    """Predict the weights of a level that was not exported yet.

    Of GGUF levels llama.cpp itself is asked which type each tensor gets, where it is installed; its mixes depend on the
    model's shape. Elsewhere the level's usual bits per weight are taken.
    """
    embedding = shape.embedding_parameters
    # A tied embedding is the head; an untied head is a tensor of its own and as large.
    body = shape.language_parameters - embedding * (1 if shape.tied_embeddings else 2)
    bits = _bits(shape, row)
    language = int((body * bits.body + embedding * bits.head) / 8)
    if row.format != "gguf":
        # The embedding keeps the checkpoint's own type and lies apart.
        stored = embedding * shape.stored_bytes // max(shape.parameters, 1)
        return LevelWeights(row, language, stored, tower_bytes(shape, row), exact=False)
    apart = 0 if shape.tied_embeddings else int(embedding * bits.embedding / 8)
    return LevelWeights(row, language, apart, tower_bytes(shape, row), exact=False)


@dataclass(frozen=True)
class _Bits:
    """Bits per weight. body: of the layers. head: of the output head. embedding: of the token embedding beside it."""

    body: float
    head: float
    embedding: float


@lru_cache(maxsize=256)
def _bits(shape: ModelShape, row: QuantLevel) -> _Bits:
    usual = _Bits(row.weight_bits, _HEAD_BITS.get(row.base, row.weight_bits), row.weight_bits)
    if row.format != "gguf" or row.weight_bits >= 16 or importlib.util.find_spec("llama_cpp") is None:
        return usual
    sizes = shape.text_sizes
    shapes = sizes.shapes()
    # That there is a matrix decides, not what it holds.
    importance = {"blk.0.attn_q.weight": np.ones(shape.hidden, np.float32)} if row.imatrix else None
    keys = mix_keys(sizes, shape.heads, shape.kv_heads)
    try:
        (mix,) = choose_types(
            family_named(shape.family).gguf, keys, shapes, {row.name: (row.storage, importance)}
        ).values()
    except (QuantiseError, LlamaError):
        return usual
    sizes_bits = {name: 8 * tensor_bytes(shapes[name], kind) for name, kind in mix.types.items()}
    ends = {name: sizes_bits.pop(name, 0) / (shape.vocab * shape.hidden) for name in (EMBEDDING, HEAD)}
    body = sum(sizes_bits.values()) / sum(math.prod(shapes[name]) for name in sizes_bits)
    return _Bits(body, ends[HEAD] or ends[EMBEDDING], ends[EMBEDDING])


def read_planned(folder: Path, on_file: Callable[[str, int], None] | None = None) -> Planned:
    """Read what can be planned of a checkpoint or a bundle: shapes and sizes, no weight.

    A bundle is verified first (on_file: each file's path and size once it is). Raises PlanError for any other folder.
    """
    if (folder / MANIFEST).is_file():
        return _of_bundle(Bundle.open(folder, on_file))
    if (folder / "config.json").is_file():
        shape = ModelShape.read(folder)
        return Planned("checkpoint", shape, tuple(predict(shape, row) for row in PLANNED_LEVELS), *_limits(folder))
    raise PlanError(f"{folder} is neither a checkpoint (config.json) nor a bundle ({MANIFEST}); name one of them")


def _of_bundle(bundle: Bundle) -> Planned:
    shape = ModelShape.from_parts(read_json(bundle.shared / "config.json"), [])
    levels = []
    entries = [entry for entry in bundle.manifest.levels if level_row(entry.name).format not in UNPLANNED]
    if not entries:
        raise PlanError(f"{bundle.folder} holds no level that can be planned: of TensorRT nothing was measured")
    for entry in entries:
        sizes = {path: bundle.manifest.files[path].size_bytes for path in (*entry.files, *entry.shared)}
        own = sum(sizes[path] for path in entry.files)
        embedding = sum(size for path, size in sizes.items() if path.endswith(".npy"))
        inside = _embedding_in_gguf(shape, entry.tensors)
        vision = sum(sizes[path] for path in entry.shared if path.endswith((".gguf", ".onnx", ".data")))
        levels.append(LevelWeights(level_row(entry.name), own - inside, embedding + inside, vision, exact=True))
    return Planned("bundle", shape, tuple(levels), *_limits(bundle.shared))


def _embedding_in_gguf(shape: ModelShape, tensors: Mapping[str, str]) -> int:
    """Return the bytes of a token embedding beside a head of its own in one GGUF file, 0 where there is none.

    tensors: types by name, as the manifest records them. A token reads one row of it, as of one that lies apart.
    """
    kind = next((kind for kind in TENSOR_TYPES.values() if kind.name == tensors.get(EMBEDDING)), None)
    if kind is None or HEAD not in tensors:
        return 0
    return shape.vocab * shape.hidden // kind.values * kind.bytes


def _limits(folder: Path) -> tuple[int, int]:
    """Return (pixels of the largest image, tokens of the longest sequence) of a folder with its settings."""
    config = read_json(folder / "config.json")
    rules = open_rules(folder, family_of(config))
    return rules.max_pixels if rules else 0, context_limit(config)
