"""Writes a checkpoint's ONNX levels: one decoder graph each, and the vision graph and embeddings that they share.

The graphs are traced once, without weights; each level fills a copy. What a level is made of is a row of SCHEMES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import writing
from ..runtime.manifest import SHARED, LevelEntry
from ..runtime.onnx_backend import DECODER, EMBEDDINGS, VISION
from ..runtime.prompt import PROMPT_FILES
from ..runtime.quantise import BlockFormat
from ..training.checkpoint import Checkpoint
from . import onnx_decoder, onnx_vision
from .onnx_weights import Scheme, Source, Storage, WeightError, Written, write_graph
from .rope import inverse_frequencies

# For 8-bit weights onnxruntime's processor kernel exists with 8-bit activations only; without them it unpacks the whole
# matrix at every call, a hundred times slower (docs/onnx.md).
INT8 = Storage(BlockFormat(bits=8, block=32, symmetric=True), int8_activations=True)
INT4 = Storage(BlockFormat(bits=4, block=32, symmetric=False), int8_activations=False)
# The head stays at 8 bits in the 4-bit level: it decides between tokens directly (docs/onnx.md has the measurement).
SCHEMES: Mapping[str, Scheme] = {
    "onnx-fp32": Scheme(matrices=None),
    "onnx-int8": Scheme(matrices=INT8),
    "onnx-int4": Scheme(matrices=INT4, named={onnx_decoder.HEAD: INT8}),
}
TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "model.")
VISION_PREFIXES = ("model.visual.", "visual.")
HEAD_NAMES = ("lm_head.weight", "language_model.lm_head.weight")


def export_onnx(
    checkpoint_folder: Path, bundle_folder: Path, levels: Sequence[str], on_event: OnEvent = ignore
) -> dict[str, LevelEntry]:
    """Write each level into its folder of `bundle_folder` and what they share into shared/; return their entries.

    levels: keys of SCHEMES. Raises WeightError, GraphError or MissingExtra before anything long is done where it can.
    """
    checkpoint = Checkpoint.open(checkpoint_folder)
    config = read_config(checkpoint_folder)
    decoder = onnx_decoder.DecoderNumbers.of(config)
    vision = onnx_vision.VisionNumbers.of(config)
    text_sources = decoder_sources(checkpoint, decoder, bool(config.tie_word_embeddings))
    eyes_sources = vision_sources(checkpoint, vision)
    shared = bundle_folder / SHARED
    shared.mkdir(parents=True, exist_ok=True)
    embeddings = _embedding_source(checkpoint, decoder)
    _write_embeddings(embeddings, shared / EMBEDDINGS)
    on_event(Event("onnx embeddings", 1, 1, "tensors"))
    on_event(Event("onnx vision", 0, len(eyes_sources), "tensors", "tracing the graph"))
    eyes = write_graph(
        onnx_vision.trace_vision(vision),
        shared,
        VISION,
        eyes_sources,
        Scheme(matrices=None),
        _Counter("onnx vision", len(eyes_sources), on_event),
    )
    on_event(Event("onnx decoder", 0, 1, "graphs", "tracing the graph"))
    graph = onnx_decoder.trace_decoder(decoder)
    on_event(Event("onnx decoder", 1, 1, "graphs"))
    prompt_files = tuple(name for name in PROMPT_FILES if (shared / name).is_file())
    shared_files = tuple(f"{SHARED}/{name}" for name in (*prompt_files, EMBEDDINGS, *eyes.files))
    shared_types = {**eyes.types, embeddings.name: _embedding_type(embeddings)}
    entries = {}
    for level in levels:
        (bundle_folder / level).mkdir(exist_ok=True)
        count = _Counter(level, len(text_sources), on_event)
        made = write_graph(_copy(graph), bundle_folder / level, DECODER, text_sources, SCHEMES[level], count)
        entries[level] = _entry(bundle_folder, level, made, shared_files, shared_types)
    return entries


def _entry(
    bundle: Path, level: str, made: Written, shared_files: tuple[str, ...], shared_types: Mapping[str, str]
) -> LevelEntry:
    types = {**shared_types, **made.types}
    for name in set(shared_types) & set(made.types):  # a tied head: one tensor of the checkpoint, stored twice
        types[name] = f"{shared_types[name]} (embedding), {made.types[name]} (head)"
    files = tuple(f"{level}/{name}" for name in made.files)
    weights = [path for path in (*files, *shared_files) if path.endswith((".data", ".npy", ".onnx"))]
    size_bytes = sum((bundle / path).stat().st_size for path in weights)
    return LevelEntry(level, files, shared_files, types, size_bytes)


def read_config(folder: Path) -> Any:
    try:
        from transformers import AutoConfig
    except ModuleNotFoundError:
        raise MissingExtra("export", "transformers") from None
    return AutoConfig.from_pretrained(str(folder), local_files_only=True)


def decoder_sources(
    checkpoint: Checkpoint, numbers: onnx_decoder.DecoderNumbers, tied: bool
) -> dict[str, Source | NDArray[np.float32]]:
    sources: dict[str, Source | NDArray[np.float32]] = {}
    for name, shape in {**numbers.vectors(), **numbers.matrices()}.items():
        if name == onnx_decoder.HEAD:
            found = [given for given in HEAD_NAMES if given in checkpoint.tensors]
            if not tied and not found:
                raise WeightError(
                    f"{checkpoint.folder}: config.json unties the output head, yet there is no lm_head.weight"
                )
            stored = _embedding_source(checkpoint, numbers).name if tied else found[0]
        else:
            stored = _stored_name(checkpoint, TEXT_PREFIXES, name)
        sources[name] = Source(checkpoint, stored, shape[::-1])
    frequencies = numbers.inverse_frequencies()
    sources[onnx_decoder.INVERSE_FREQUENCIES] = frequencies.numpy()
    return sources


def vision_sources(
    checkpoint: Checkpoint, numbers: onnx_vision.VisionNumbers
) -> dict[str, Source | NDArray[np.float32]]:
    sources: dict[str, Source | NDArray[np.float32]] = {
        name: Source(checkpoint, _stored_name(checkpoint, VISION_PREFIXES, name), shape[::-1])
        for name, shape in {**numbers.vectors(), **numbers.matrices()}.items()
    }
    frequencies = inverse_frequencies(onnx_vision.ROPE_THETA, numbers.head_dim // 2)
    sources[onnx_vision.INVERSE_FREQUENCIES] = frequencies.numpy()
    return sources


def _embedding_source(checkpoint: Checkpoint, numbers: onnx_decoder.DecoderNumbers) -> Source:
    name = _stored_name(checkpoint, TEXT_PREFIXES, "embed_tokens.weight")
    return Source(checkpoint, name, (numbers.vocabulary, numbers.hidden))


def _stored_name(checkpoint: Checkpoint, prefixes: Sequence[str], name: str) -> str:
    """Return the checkpoint's own name of a tensor: transformers 4, 5 and the hub differ in the prefix."""
    for prefix in prefixes:
        if prefix + name in checkpoint.tensors:
            return prefix + name
    raise WeightError(f"{checkpoint.folder} has no tensor {prefixes[0]}{name}; its config.json promises one")


def _write_embeddings(source: Source, path: Path) -> None:
    """Write the token embeddings as .npy in their own type, exactly; BF16 as the uint16 of its bits."""
    stored = source.stored()
    with writing(path) as draft, draft.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": stored.dtype.str, "fortran_order": False, "shape": stored.shape}
        )
        start = 0
        for rows in source.rows():  # reading them as numbers refuses NaN and infinity
            stream.write(np.ascontiguousarray(stored[start : start + len(rows)]).data)
            start += len(rows)


def _embedding_type(source: Source) -> str:
    return {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}[source.dtype]


def _copy(model: Any) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


class _Counter:
    """Counts tensors into events."""

    def __init__(self, stage: str, total: int, on_event: OnEvent) -> None:
        self._stage, self._total, self._on_event, self._done = stage, total - 1, on_event, 0

    def __call__(self, name: str) -> None:
        """Tell that one more tensor is written."""
        self._done += 1
        self._on_event(Event(self._stage, self._done, self._total, "tensors"))
