"""Reads a model's shape from config.json and the headers of its safetensors files: numbers only, no weights, no torch.

Knows nothing of devices: what a shape needs in memory is planned in devices/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import InfimedError
from .families import family_named, family_of
from .files import strict_json
from .prompt import read_json
from .tensors import TextSizes, VisionSizes

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
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


def checkpoint_tensors(folder: Path) -> list[TensorInfo]:
    """Return every tensor of a checkpoint, file by file. Raises CheckpointError, also where index and shards differ."""
    files, index = _weight_files(folder)
    found: dict[str, TensorInfo] = {}
    for file in files:
        for tensor in read_header(file):
            if (twice := found.get(tensor.name)) is not None:
                raise CheckpointError(
                    f"{folder}: tensor {tensor.name} is in {twice.file.name} and in {file.name}; the checkpoint is "
                    "mixed, copy it again into an empty folder"
                )
            found[tensor.name] = tensor
    if index is not None:
        for name in sorted({*index, *found}):
            stated = index.get(name)
            if name not in found:
                raise CheckpointError(f"{folder}: tensor {name} of the index is in no shard; copy it again")
            if stated != found[name].file.name:
                said = f"in {stated}" if stated else "nowhere"
                raise CheckpointError(
                    f"{folder}: tensor {name} is in {found[name].file.name}, by the index {said}; the checkpoint is "
                    "mixed, copy it again into an empty folder"
                )
    return list(found.values())


def _weight_files(folder: Path) -> tuple[list[Path], Mapping[str, str] | None]:
    """Return a checkpoint's safetensors files, sorted, and the index's file by tensor. Raises CheckpointError."""
    index, single = folder / INDEX_FILE, folder / SINGLE_FILE
    named = None
    if index.is_file():
        if single.is_file():  # transformers reads the one, others the other
            raise CheckpointError(
                f"{folder} has {SINGLE_FILE} and {INDEX_FILE} too: which holds the model? Remove what is not of it"
            )
        try:
            value = strict_json(index.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{index} cannot be read ({error}); copy the checkpoint again") from None
        named = value.get("weight_map") if isinstance(value, dict) else None
        names = list(named.values()) if isinstance(named, dict) else []
        if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise CheckpointError(f"{index} names no file beside it (weight_map); check the checkpoint")
        files = [folder / name for name in sorted({*names})]
    else:
        files = [single]
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing; a checkpoint needs model.safetensors, or an index and its shards"
            )
    return files, named


def read_header(file: Path) -> Iterator[TensorInfo]:
    """Yield the tensors of one safetensors file, by offset; they fill it without a gap, as safetensors demands.

    Raises CheckpointError for a malformed header.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{file} has no safetensors header; the file is damaged or of another kind")
        text = stream.read(length)
    try:
        header = strict_json(text)
        found = [_tensor(name, entry, file, 8 + length) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} has a malformed safetensors header ({type(error).__name__})") from None
    found.sort(key=lambda tensor: (tensor.begin, tensor.end))
    reached = 8 + length
    for tensor in found:
        width = DTYPE_BYTES.get(tensor.dtype)
        if width is None:
            raise CheckpointError(
                f"{file}: tensor {tensor.name} is stored as {tensor.dtype}; one of {', '.join(DTYPE_BYTES)} is needed"
            )
        if not reached == tensor.begin <= tensor.end <= size or tensor.end - tensor.begin != width * tensor.parameters:
            raise CheckpointError(f"{file}: tensor {tensor.name} does not fit its file; the file is damaged")
        reached = tensor.end
    if reached != size:
        raise CheckpointError(f"{file} goes on for {size - reached:,} bytes behind its last tensor; copy it again")
    yield from found


def _tensor(name: str, entry: Mapping[str, Any], file: Path, start: int) -> TensorInfo:
    """Return one entry of a header. start: where the tensors' bytes begin. Raises TypeError, KeyError, ValueError."""
    dtype, shape = entry["dtype"], entry["shape"]
    begin, end = entry["data_offsets"]
    if not isinstance(dtype, str) or any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError("a size is no number")
    return TensorInfo(name, dtype, tuple(shape), file, start + begin, start + end)


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
        return cls.from_parts(config, checkpoint_tensors(folder))

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
    found = _count(text if isinstance(text, Mapping) else {}, "max_position_embeddings")
    if found >= 2**31:
        raise CheckpointError(f"config.json: max_position_embeddings is {found}; engines count to {2**31 - 1}")
    return found


def is_vision(name: str) -> bool:
    """Return whether a tensor belongs to the vision tower, in the names of transformers 4 and 5."""
    return name.startswith(("visual.", "model.visual."))
