"""Writes a checkpoint's TensorRT levels: strongly typed graphs in standard ONNX and the recipe of their engines.

Needs no TensorRT: the precision lies in the graph, and an engine is built where it runs (runtime/tensorrt_build.py).
The graphs of fp32 and fp16 are those of ONNX levels, their towers the same files. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.events import OnEvent, ignore
from ..runtime.files import sha256_file, write_bytes
from ..runtime.levels import TENSORRT_BLOCK, QuantLevel
from ..runtime.levels import level as level_row
from ..runtime.manifest import SHARED, LevelEntry
from ..runtime.onnx_backend import vision_stem
from ..runtime.preprocessing import PixelRules
from ..runtime.prompt import read_json
from ..runtime.shape import context_limit
from ..runtime.tensorrt_recipe import RECIPE, Network, Profile, Recipe, tower_of
from .graph_bundle import GraphBundle
from .graph_model import Fill, GraphModel
from .onnx_decoder import HEAD
from .onnx_vision import PATCHES
from .onnx_weights import Scheme, Written
from .tensorrt_profiles import decoder_profiles, vision_profiles
from .tensorrt_weights import TypedStorage

if TYPE_CHECKING:
    from .activations import Activations

# The head decides between tokens directly and the patch matrix sees raw pixels: both stay float16.
_UNROUNDED = (HEAD, PATCHES)
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


def tensorrt_fills(
    model: GraphModel, rows: Sequence[QuantLevel], activations: Activations | None
) -> tuple[dict[str, Fill], dict[str, Fill]]:
    """Return how each level's decoder is filled in, by the level's name, and each tower, by its type.

    Raises WeightError or ActivationsError where the calibration is missing or of another model.
    """
    matrices = model.decoder.matrices()
    decoders: dict[str, Fill] = {}
    eyes: dict[str, Fill] = {}
    for row in rows:
        weighed = [name for name in matrices if name not in _UNROUNDED] if row.imatrix else []
        decoders[row.name] = model.decoder_fill(row.name, typed_scheme(row.storage, matrices), activations, weighed)
        if model.vision:
            scheme = typed_scheme(row.vision, model.vision.matrices())
            eyes[row.vision] = model.tower_fill(row.name, scheme, activations)
    return decoders, eyes


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
    model = GraphModel.open(checkpoint_folder)
    decoders, eyes = tensorrt_fills(model, rows, activations)
    context = context_limit(read_json(checkpoint_folder / "config.json"))
    bundle = GraphBundle(model, bundle_folder, "tensorrt", threads, on_event)
    bundle.write_embeddings()
    towers = {type: bundle.write_tower(vision_stem(tower_of(type)), fill) for type, fill in eyes.items()}
    entries = {}
    for row in rows:
        made = bundle.write_decoder(row.name, decoders[row.name])
        networks = {"decoder": _network(bundle_folder, row.name, made, decoder_profiles(model.decoder, context))}
        if model.vision:
            rules = PixelRules.from_json(read_json(checkpoint_folder / "preprocessor_config.json"))
            profiles = vision_profiles(model.vision, rules.max_pixels)
            networks["vision"] = _network(bundle_folder, SHARED, towers[row.vision], profiles)
        write_bytes(bundle_folder / row.name / RECIPE, Recipe(row.name, networks).to_bytes())
        entries[row.name] = bundle.entry(row.name, (*made.files, RECIPE), made, towers.get(row.vision))
        on_level(entries[row.name])
    return entries


def _network(bundle: Path, folder: str, made: Written, profiles: tuple[Profile, ...]) -> Network:
    files = {f"{folder}/{name}": sha256_file(bundle / folder / name) for name in made.files}
    return Network(f"{folder}/{made.files[0]}", files, profiles)
