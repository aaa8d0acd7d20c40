"""Writes a checkpoint's TensorRT levels: strongly typed graphs in standard ONNX and the recipe of their engines.

Needs no TensorRT: the precision lies in the graph, and an engine is built where it runs (runtime/tensorrt_build.py).
The graphs of fp32 and fp16 are those of ONNX levels, their towers the same files. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..runtime.events import Event, OnEvent, ignore
from ..runtime.families import family_of
from ..runtime.files import sha256_file, write_bytes
from ..runtime.levels import TENSORRT_BLOCK
from ..runtime.levels import level as level_row
from ..runtime.manifest import SHARED, LevelEntry
from ..runtime.onnx_backend import DECODER, EMBEDDINGS, vision_stem
from ..runtime.preprocessing import PixelRules
from ..runtime.prompt import PROMPT_FILES, read_json
from ..runtime.shape import context_limit
from ..runtime.tensorrt_recipe import RECIPE, Network, Profile, Recipe, tower_of
from ..training.checkpoint import Checkpoint
from . import onnx_decoder, onnx_export, onnx_vision
from .onnx_source import WeightError
from .onnx_weights import Scheme, Written, kept, write_graph
from .tensorrt_profiles import decoder_profiles, vision_profiles
from .tensorrt_weights import TypedStorage

if TYPE_CHECKING:
    from .activations import Activations

# The head decides between tokens directly and the patch matrix sees raw pixels: both stay float16.
_UNROUNDED = (onnx_decoder.HEAD, onnx_vision.PATCHES)
ROUNDED: Mapping[str, TypedStorage | None] = {
    "fp32": None,
    "fp16": None,
    "int8": TypedStorage(8),
    "int4": TypedStorage(4),
}
"""How the matrices of a level's decoder, or of a tower of that type, are rounded; all else is as the graph says."""


def typed_scheme(type: str, matrices: Mapping[str, tuple[int, int]]) -> Scheme:
    """Return how the matrices of a graph are stored; those whose input side fills no blocks stay float16 at 4 bits."""
    storage = ROUNDED[type]
    blocks = storage is not None and storage.bits == 4
    named = {
        name: None for name, (inner, _) in matrices.items() if name in _UNROUNDED or (blocks and inner % TENSORRT_BLOCK)
    }
    return Scheme(storage, named=named, dtype="float32" if type == "fp32" else "float16")


def export_tensorrt(
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

    levels: names of TensorRT levels. A tower or an embedding that lies in shared/ already is used as it is. threads:
    for quantising. activations: where int8 takes its ranges from and +imatrix its weights; refused without. on_level:
    told of each level once all of its files are there. Raises WeightError, ActivationsError, GraphError or MissingExtra
    before anything long is done where it can.
    """
    rows = [level_row(name) for name in levels]
    checkpoint, config = Checkpoint.open(checkpoint_folder), onnx_export.read_config(checkpoint_folder)
    decoder = onnx_decoder.DecoderNumbers.of(config)
    seeing = family_of(checkpoint.config).image_token is not None
    vision = onnx_vision.VisionNumbers.of(config) if seeing else None
    text = onnx_export.decoder_sources(checkpoint, decoder, bool(config.tie_word_embeddings))
    eyes = onnx_export.vision_sources(checkpoint, vision) if vision else {}
    ranges: dict[str, Mapping[str, float]] = {}
    importance: dict[str, Mapping[str, NDArray[np.float32]]] = {}
    for row in rows:
        if row.storage == "int8":
            ranges[row.name] = onnx_export.decoder_ranges(row.name, decoder.matrices(), activations)
        if vision and row.vision == "int8":
            ranges[row.vision] = onnx_export.vision_ranges(row.name, vision.matrices(), activations)
        if row.imatrix:
            importance[row.name] = importance_of_decoder(row.name, decoder.matrices(), activations)
    context = context_limit(read_json(checkpoint_folder / "config.json"))
    shared = bundle_folder / SHARED
    shared.mkdir(parents=True, exist_ok=True)
    embeddings = onnx_export.embedding_source(checkpoint, decoder)
    if not (shared / EMBEDDINGS).is_file():
        onnx_export.write_embeddings(embeddings, shared / EMBEDDINGS)
    on_event(Event("tensorrt embeddings", 1, 1, "tensors"))
    towers: dict[str, Written] = {}
    for type in dict.fromkeys(row.vision for row in rows):
        if vision is None:
            continue
        stem, scheme = vision_stem(tower_of(type)), typed_scheme(type, vision.matrices())
        identity = {"calibration_sha256": activations.sha256} if activations and type in ranges else {}
        found = kept(shared, stem, eyes, scheme, identity)
        if found is None:
            on_event(Event("tensorrt vision", 0, 1, "graphs", "tracing the graph"))
            graph = onnx_export.copy_graph(onnx_export.traced(onnx_vision.trace_vision, vision, scheme.dtype), identity)
            count = onnx_export.Counter(f"tensorrt {stem}", len(eyes), on_event)
            found = write_graph(graph, shared, stem, eyes, scheme, count, threads=threads, ranges=ranges.get(type))
        towers[type] = found
    entries = {}
    for row in rows:
        folder, scheme = bundle_folder / row.name, typed_scheme(row.storage, decoder.matrices())
        folder.mkdir(exist_ok=True)
        on_event(Event("tensorrt decoder", 0, 1, "graphs", "tracing the graph"))
        made = write_graph(
            onnx_export.copy_graph(onnx_export.traced(onnx_decoder.trace_decoder, decoder, scheme.dtype)),
            folder,
            DECODER,
            text,
            scheme,
            onnx_export.Counter(row.name, len(text), on_event),
            threads=threads,
            ranges=ranges.get(row.name),
            importance=importance.get(row.name),
        )
        networks = {"decoder": _network(bundle_folder, row.name, made, decoder_profiles(decoder, context))}
        tower = towers.get(row.vision, Written((), {}))
        if vision:
            rules = PixelRules.from_json(read_json(checkpoint_folder / "preprocessor_config.json"))
            networks["vision"] = _network(bundle_folder, SHARED, tower, vision_profiles(vision, rules.max_pixels))
        write_bytes(folder / RECIPE, Recipe(row.name, networks).to_bytes())
        prompt_files = tuple(name for name in PROMPT_FILES if (shared / name).is_file())
        shared_files = tuple(f"{SHARED}/{name}" for name in (*prompt_files, EMBEDDINGS, *tower.files))
        shared_types = {**tower.types, embeddings.name: onnx_export.embedding_type(embeddings)}
        own = Written((*made.files, RECIPE), made.types)
        entries[row.name] = onnx_export.level_entry(bundle_folder, row.name, own, shared_files, shared_types)
        on_level(entries[row.name])
    return entries


def importance_of_decoder(
    level: str, matrices: Mapping[str, tuple[int, int]], activations: Activations | None
) -> dict[str, NDArray[np.float32]]:
    """Return mean x^2 of what each matrix of the decoder is multiplied by, (in,), but for the head's.

    Raises WeightError or ActivationsError.
    """
    if activations is None:
        raise WeightError(f"level {level} weighs its errors by activations; export it with --calibration DATASET")
    sides = {name: inner for name, (inner, _) in matrices.items() if name not in _UNROUNDED}
    return {name: activations.importance(f"model.{name}", inner) for name, inner in sides.items()}


def _network(bundle: Path, folder: str, made: Written, profiles: tuple[Profile, ...]) -> Network:
    files = {f"{folder}/{name}": sha256_file(bundle / folder / name) for name in made.files}
    return Network(f"{folder}/{made.files[0]}", files, profiles)
