"""Reads a model's shape from config.json and the headers of its safetensors files: numbers only, no weights, no torch.

Knows nothing of devices: what a shape needs in memory is planned in devices/.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import InfimedError
from .families import family_named, family_of
from .prompt import read_json
from .tensors import TextSizes, VisionSizes

MAX_HEADER_BYTES = 100 * 2**20
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class CheckpointError(InfimedError):
    """A checkpoint's files are missing or do not fit together."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: begin and end are byte offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def parameters(self) -> int:
        """How many numbers the tensor holds."""
        count = 1
        for side in self.shape:
            count *= side
        return count


def weight_files(folder: Path) -> list[Path]:
    """Return a checkpoint's safetensors files, sorted. Raises CheckpointError."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = read_json(index).get("weight_map")
        names = sorted(set(named.values())) if isinstance(named, dict) else []
        outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
        if not names or outside:
            raise CheckpointError(f"{index} names no file beside it (weight_map); check the checkpoint")
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing; a checkpoint needs model.safetensors, or an index and its shards"
            )
    return files


def read_header(file: Path) -> Iterator[TensorInfo]:
    """Yield the tensors of one safetensors file, by offset. Raises CheckpointError for a malformed header."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{file} has no safetensors header; the file is damaged or of another kind")
        text = stream.read(length)
    try:
        header = json.loads(text)
        found = [
            TensorInfo(
                name,
                entry["dtype"],
                tuple(int(side) for side in entry["shape"]),
                file,
                8 + length + int(entry["data_offsets"][0]),
                8 + length + int(entry["data_offsets"][1]),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} has a malformed safetensors header ({type(error).__name__})") from None
    for tensor in found:
        width = DTYPE_BYTES.get(tensor.dtype)
        inside = 0 <= tensor.begin <= tensor.end <= size
        if width is None or not inside or tensor.end - tensor.begin != width * tensor.parameters:
            raise CheckpointError(f"{file}: tensor {tensor.name} does not fit its file; the file is damaged")
    yield from sorted(found, key=lambda tensor: tensor.begin)


@dataclass(frozen=True)
class VisionShape:
    """The vision tower: sizes in units of the tower; parameters counted from the headers."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    patch_size: int
    merge_size: int
    full_attention_layers: int
    window_pixels: int
    parameters: int


@dataclass(frozen=True)
class ModelShape:
    """What planning needs to know of a model.

    embedding_parameters: the token embedding (also the output head where tied). vision: None where the family takes no
    images.
    """

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool
    language_parameters: int
    embedding_parameters: int
    vision: VisionShape | None
    stored_bytes: int

    @property
    def parameters(self) -> int:
        """All parameters, vision tower included."""
        return self.language_parameters + self.vision_parameters

    @property
    def vision_parameters(self) -> int:
        """Parameters of the vision tower; 0 where there is none."""
        return self.vision.parameters if self.vision else 0

    @property
    def text_sizes(self) -> TextSizes:
        """The sizes that decide the text model's tensors."""
        return TextSizes(
            layers=self.layers,
            hidden=self.hidden,
            ffn=self.intermediate,
            queries=self.heads * self.head_dim,
            keys=self.kv_heads * self.head_dim,
            vocabulary=self.vocab,
            tied=self.tied_embeddings,
            biases=family_named(self.family).biases,
        )

    @property
    def vision_sizes(self) -> VisionSizes | None:
        """The sizes that decide the vision tower's tensors; None where the family takes no images."""
        if self.vision is None:
            return None
        return VisionSizes(
            layers=self.vision.layers,
            hidden=self.vision.hidden,
            ffn=self.vision.intermediate,
            patch=self.vision.patch_size,
            out=self.hidden,
            merge=self.vision.merge_size,
        )

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int:
        """Return the KV cache's growth per token in bytes (keys and values of every layer)."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes

    @classmethod
    def read(cls, folder: Path) -> ModelShape:
        """Read a checkpoint folder. Raises CheckpointError, PromptError or UnsupportedFamily."""
        config = read_json(folder / "config.json")
        tensors = [tensor for file in weight_files(folder) for tensor in read_header(file)]
        return cls.from_parts(config, tensors)

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], tensors: list[TensorInfo]) -> ModelShape:
        """Build the shape from a parsed config.json and tensor headers."""
        family = family_of(config)
        text = config.get("text_config") or config
        vision = config.get("vision_config") or {}
        if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
            raise CheckpointError("config.json: text_config and vision_config must be objects")
        hidden, heads = _count(text, "hidden_size"), _count(text, "num_attention_heads")
        embedding = [tensor for tensor in tensors if tensor.name.endswith("embed_tokens.weight")]
        return cls(
            family=family.name,
            layers=_count(text, "num_hidden_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=_count(text, "num_key_value_heads", heads),
            head_dim=_count(text, "head_dim", hidden // heads),
            intermediate=_count(text, "intermediate_size"),
            vocab=_count(text, "vocab_size"),
            tied_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            language_parameters=sum(t.parameters for t in tensors if not is_vision(t.name)),
            embedding_parameters=sum(t.parameters for t in embedding),
            vision=_vision_shape(vision, tensors) if family.image_token else None,
            stored_bytes=sum(t.end - t.begin for t in tensors),
        )


def _vision_shape(vision: Mapping[str, Any], tensors: list[TensorInfo]) -> VisionShape:
    full_attention = vision.get("fullatt_block_indexes") or []
    return VisionShape(
        layers=_count(vision, "depth"),
        hidden=_count(vision, "hidden_size"),
        heads=_count(vision, "num_heads"),
        intermediate=_count(vision, "intermediate_size"),
        patch_size=_count(vision, "patch_size", 14),
        merge_size=_count(vision, "spatial_merge_size", 2),
        full_attention_layers=len(full_attention) if isinstance(full_attention, list) else 0,
        window_pixels=_count(vision, "window_size", 112),
        parameters=sum(tensor.parameters for tensor in tensors if is_vision(tensor.name)),
    )


def _count(table: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Return a size that config.json states; `default` where it says nothing."""
    value = table.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"config.json: {key} is {value!r}; a whole number from 1 on is needed")
    return value


def context_limit(config: Mapping[str, Any]) -> int:
    """Return the longest sequence a model was made for, in tokens, from its config.json. Raises CheckpointError."""
    text = config.get("text_config") or config
    return _count(text if isinstance(text, Mapping) else {}, "max_position_embeddings")


def is_vision(name: str) -> bool:
    """Return whether a tensor belongs to the vision tower, in the names of transformers 4 and 5."""
    return name.startswith(("visual.", "model.visual."))
