"""Writes a checkpoint's ONNX levels: a decoder graph each, and the vision towers and embeddings that they share.

What a level is made of is a row of onnx_schemes.SCHEMES; how a graph is traced, filled and shared is in
graph_bundle.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.events import OnEvent, ignore
from ..runtime.levels import QuantLevel
from ..runtime.levels import level as level_row
from ..runtime.manifest import LevelEntry
from ..runtime.onnx_backend import vision_stem
from .graph_bundle import GraphBundle
from .graph_model import Fill, GraphModel
from .onnx_schemes import SCHEMES, vision_scheme

if TYPE_CHECKING:
    from .activations import Activations


def onnx_fills(
    model: GraphModel, rows: Sequence[QuantLevel], activations: Activations | None
) -> tuple[dict[str, Fill], dict[str, Fill]]:
    """Return how each level's decoder is filled in, by the level's name, and each tower, by its type.

    Raises WeightError or ActivationsError where the calibration is missing or of another model.
    """
    decoders = {row.name: model.decoder_fill(row.name, SCHEMES[row.storage], activations) for row in rows}
    eyes = {row.vision: model.tower_fill(row.name, vision_scheme(row.vision), activations) for row in rows}
    return decoders, eyes if model.vision else {}


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
    model = GraphModel.open(checkpoint_folder)
    decoders, eyes = onnx_fills(model, rows, activations)
    bundle = GraphBundle(model, bundle_folder, "onnx", threads, on_event)
    bundle.write_embeddings()
    towers = {type: bundle.write_tower(vision_stem(type), fill) for type, fill in eyes.items()}
    entries = {}
    for row in rows:
        made = bundle.write_decoder(row.name, decoders[row.name])
        entries[row.name] = bundle.entry(row.name, made.files, made, towers.get(row.vision))
        on_level(entries[row.name])
    return entries
