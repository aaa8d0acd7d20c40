"""Writes a checkpoint's ONNX levels: a decoder graph each, and the vision towers and embeddings that they share.

The graphs are traced once per number type, without weights; each level fills a copy. What a level is made of is a row
of onnx_schemes.SCHEMES; where a decoder's and a tower's weights lie in the checkpoint is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.families import family_of
from ..runtime.files import writing
from ..runtime.levels import level as level_row
from ..runtime.manifest import SHARED, LevelEntry
from ..runtime.onnx_backend import DECODER, EMBEDDINGS, vision_stem
from ..runtime.prompt import PROMPT_FILES
from ..runtime.shape import CheckpointError
from ..training.checkpoint import Checkpoint
from . import onnx_decoder, onnx_vision
from .onnx_schemes import SCHEMES, vision_scheme
from .onnx_source import Source, WeightError
from .onnx_weights import Written, kept, write_graph
from .rope import inverse_frequencies

if TYPE_CHECKING:
    from .activations import Activations

TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "model.")
VISION_PREFIXES = ("model.visual.", "visual.")
CHANNELS_KEPT = 0.99
"""A static range holds what was seen in so many of a product's input channels; larger numbers of the others are cut."""
HEAD_NAMES = ("lm_head.weight", "language_model.lm_head.weight")


def export_onnx(
    checkpoint_folder: Path,
    bundle_folder: Path,
    levels: Sequence[str],
    on_event: OnEvent = ignore,
    *,
    threads: int = 1,
    activations: Activations | None = None,
    on_level: Callable[[LevelEntry], None] = lambda entry: None,
) -> dict[str, LevelEntry]:
    """Write each level into its folder of `bundle_folder` and what they share into shared/; return their entries.

    levels: names of ONNX levels. A tower or an embedding that lies in shared/ already is used as it is: a level can be
    added to a bundle. threads: for quantising. activations: what a static level's ranges are taken from. on_level: told
    of each level once all of its files are there. Raises WeightError, GraphError or MissingExtra before anything long
    is done where it can.
    """
    rows = [level_row(name) for name in levels]
    checkpoint = Checkpoint.open(checkpoint_folder)
    config = read_config(checkpoint_folder)
    decoder = onnx_decoder.DecoderNumbers.of(config)
    seeing = family_of(checkpoint.config).image_token is not None
    vision = onnx_vision.VisionNumbers.of(config) if seeing else None
    text = decoder_sources(checkpoint, decoder, bool(config.tie_word_embeddings))
    eyes = vision_sources(checkpoint, vision) if vision else {}
    towers = tuple(dict.fromkeys(row.vision for row in rows)) if vision else ()
    ranges: dict[str, Mapping[str, float]] = {}
    for row in rows:
        if SCHEMES[row.storage].needs_ranges:
            ranges[DECODER] = decoder_ranges(row.name, decoder.matrices(), activations)
        if vision and SCHEMES[row.vision].needs_ranges:
            ranges[row.vision] = vision_ranges(row.name, vision.matrices(), activations)
    shared = bundle_folder / SHARED
    shared.mkdir(parents=True, exist_ok=True)
    embeddings = embedding_source(checkpoint, decoder)
    if not (shared / EMBEDDINGS).is_file():
        write_embeddings(embeddings, shared / EMBEDDINGS)
    on_event(Event("onnx embeddings", 1, 1, "tensors"))

    def graph(trace: Callable[..., Any], numbers: Any, dtype: str, stage: str) -> Any:
        on_event(Event(stage, 0, 1, "graphs", "tracing the graph"))
        made = traced(trace, numbers, dtype)
        on_event(Event(stage, 1, 1, "graphs"))
        return made

    written: dict[str, Written] = {}
    for tower in towers:
        stem, scheme = vision_stem(tower), vision_scheme(tower)
        identity = {"calibration_sha256": activations.sha256} if activations and scheme.needs_ranges else {}
        written[tower] = kept(shared, stem, eyes, scheme, identity) or write_graph(
            copy_graph(graph(onnx_vision.trace_vision, vision, scheme.dtype, "onnx vision"), identity),
            shared,
            stem,
            eyes,
            scheme,
            Counter(f"onnx {stem}", len(eyes), on_event),
            threads=threads,
            ranges=ranges.get(tower),
        )
    entries = {}
    for row in rows:
        scheme = SCHEMES[row.storage]
        (bundle_folder / row.name).mkdir(exist_ok=True)
        made = write_graph(
            copy_graph(graph(onnx_decoder.trace_decoder, decoder, scheme.dtype, "onnx decoder")),
            bundle_folder / row.name,
            DECODER,
            text,
            scheme,
            Counter(row.name, len(text), on_event),
            threads=threads,
            ranges=ranges.get(DECODER),
        )
        prompt_files = tuple(name for name in PROMPT_FILES if (shared / name).is_file())
        tower_written = written.get(row.vision, Written((), {}))
        shared_files = tuple(f"{SHARED}/{name}" for name in (*prompt_files, EMBEDDINGS, *tower_written.files))
        shared_types = {**tower_written.types, embeddings.name: embedding_type(embeddings)}
        entries[row.name] = level_entry(bundle_folder, row.name, made, shared_files, shared_types)
        on_level(entries[row.name])
    return entries


@lru_cache(maxsize=8)
def traced(trace: Callable[..., Any], numbers: Any, dtype: str) -> Any:
    """Return the graph; the same one again for the same model, of which each level is a copy."""
    return trace(numbers, dtype)


def level_entry(
    bundle: Path, level: str, made: Written, shared_files: tuple[str, ...], shared_types: Mapping[str, str]
) -> LevelEntry:
    """Return the manifest's entry of a level with the type that each tensor of the checkpoint got."""
    types = {**shared_types, **made.types}
    for name in set(shared_types) & set(made.types):  # a tied head: one tensor of the checkpoint, stored twice
        types[name] = f"{shared_types[name]} (embedding), {made.types[name]} (head)"
    files = tuple(f"{level}/{name}" for name in made.files)
    weights = [path for path in (*files, *shared_files) if path.endswith((".data", ".npy", ".onnx"))]
    size_bytes = sum((bundle / path).stat().st_size for path in weights)
    return LevelEntry(level, files, shared_files, types, size_bytes)


def read_config(folder: Path) -> Any:
    """Return config.json as transformers reads it. Raises MissingExtra, CheckpointError."""
    try:
        from transformers import AutoConfig
    except ModuleNotFoundError:
        raise MissingExtra("export", "transformers") from None
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds; all are about what config.json says
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"transformers cannot read {folder / 'config.json'}: {reason}; correct it") from None


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
            stored = embedding_source(checkpoint, numbers).name if tied else found[0]
            if tied and found:
                _refuse_other_head(Source(checkpoint, stored, shape[::-1]), Source(checkpoint, found[0], shape[::-1]))
        else:
            stored = _stored_name(checkpoint, TEXT_PREFIXES, name)
        sources[name] = Source(checkpoint, stored, shape[::-1])
    frequencies = numbers.inverse_frequencies()
    sources[onnx_decoder.INVERSE_FREQUENCIES] = frequencies.numpy()
    return sources


def _refuse_other_head(embedding: Source, head: Source) -> None:
    for one, other in zip(embedding.rows(), head.rows(), strict=True):
        if not np.array_equal(one, other):
            raise WeightError(
                f"config.json ties the head to the embedding, yet {head.name} differs from {embedding.name}; set "
                "tie_word_embeddings to what the model was trained with"
            )


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


def decoder_ranges(
    level: str, matrices: Mapping[str, tuple[int, int]], activations: Activations | None
) -> dict[str, float]:
    """Return the range of what each matrix of the decoder is multiplied by. Raises WeightError."""
    hub = {name: name if name == onnx_decoder.HEAD else f"model.{name}" for name in matrices}
    return _ranges(level, hub, matrices, activations)


def vision_ranges(
    level: str, matrices: Mapping[str, tuple[int, int]], activations: Activations | None
) -> dict[str, float]:
    """Return the range of what each matrix of the vision tower is multiplied by. Raises WeightError."""
    return _ranges(level, {name: f"visual.{name}" for name in matrices}, matrices, activations)


def _ranges(
    level: str,
    hub: Mapping[str, str],
    matrices: Mapping[str, tuple[int, int]],
    activations: Activations | None,
) -> dict[str, float]:
    if activations is None:
        raise WeightError(f"level {level} needs the ranges of activations; export it with --calibration DATASET")
    found = {}
    for name, hub_name in hub.items():
        values = activations.largest.get(hub_name)
        if values is None or values.shape != matrices[name][:1]:
            has = "has none" if values is None else f"has {len(values)} channels in place of {matrices[name][0]}"
            raise WeightError(f"level {level}: the calibration {has} of {hub_name}; calibrate this checkpoint")
        found[name] = float(np.quantile(values, CHANNELS_KEPT))
    return found


def embedding_source(checkpoint: Checkpoint, numbers: onnx_decoder.DecoderNumbers) -> Source:
    """Return the token embeddings. Raises WeightError."""
    name = _stored_name(checkpoint, TEXT_PREFIXES, "embed_tokens.weight")
    return Source(checkpoint, name, (numbers.vocabulary, numbers.hidden))


def _stored_name(checkpoint: Checkpoint, prefixes: Sequence[str], name: str) -> str:
    """Return the checkpoint's own name of a tensor: transformers 4, 5 and the hub differ in the prefix."""
    for prefix in prefixes:
        if prefix + name in checkpoint.tensors:
            return prefix + name
    raise WeightError(f"{checkpoint.folder} has no tensor {prefixes[0]}{name}; its config.json promises one")


def write_embeddings(source: Source, path: Path) -> None:
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


def embedding_type(source: Source) -> str:
    """Return the type of the token embeddings as the manifest names it."""
    return {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}[source.dtype]


def copy_graph(model: Any, metadata: Mapping[str, str] | None = None) -> Any:
    """Return a copy of a graph, with further metadata."""
    copy = type(model)()
    copy.CopyFrom(model)
    for key, value in (metadata or {}).items():
        copy.metadata_props.add(key=key, value=value)
    return copy


class Counter:
    """Counts tensors into events."""

    def __init__(self, stage: str, total: int, on_event: OnEvent) -> None:
        self._stage, self._total, self._on_event, self._done = stage, total - 1, on_event, 0

    def __call__(self, name: str, written_bytes: int) -> None:
        """Tell that one more tensor is written."""
        self._done += 1
        note = f"{written_bytes / 1e6:,.1f} MB"
        self._on_event(Event(self._stage, self._done, self._total, "tensors", note))
