"""Writes a checkpoint's GGUF levels into a bundle: one text model each, and the vision towers that they share.

The level on which the graph is judged gets its vision tower in F32; all others share one in F16, so that an image needs
encoding once for all of them. Knows where a bundle keeps things; how a file is written is in gguf_write.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..runtime.events import OnEvent, ignore
from ..runtime.families import family_of
from ..runtime.gguf_file import GgufFile
from ..runtime.levels import level as level_row
from ..runtime.manifest import SHARED, LevelEntry
from ..runtime.open_engine import GGUF_MODEL, default_threads
from ..runtime.prompt import PROMPT_FILES
from ..training.checkpoint import Checkpoint
from .gguf_quantise import write_levels
from .gguf_write import FloatType, write_vision_model

_FLOATS: Mapping[str, FloatType] = {"f32": "F32", "f16": "F16"}


def export_gguf(
    checkpoint_folder: Path,
    bundle_folder: Path,
    levels: Sequence[str],
    on_event: OnEvent = ignore,
    *,
    threads: int | None = None,
) -> dict[str, LevelEntry]:
    """Write each level into its folder of `bundle_folder` and what they share into shared/; return their entries.

    threads: of the quantiser, all available by default; the bytes are the same at any number. Raises
    GgufUnsupported, GgufWriteError, QuantiseError, CheckpointError or MissingExtra.
    """
    checkpoint = Checkpoint.open(checkpoint_folder)
    rows = [level_row(name) for name in levels]
    shared = bundle_folder / SHARED
    shared.mkdir(parents=True, exist_ok=True)
    towers: dict[FloatType, GgufFile] = {}
    seeing = family_of(checkpoint.config).image_token is not None
    for row in rows:
        kind = _FLOATS[row.vision]
        if seeing and kind not in towers:
            towers[kind] = write_vision_model(checkpoint, shared / _tower_name(kind), kind, on_event)
        (bundle_folder / row.name).mkdir(exist_ok=True)
    outputs = {row.name: bundle_folder / row.name / GGUF_MODEL for row in rows}
    written = write_levels(checkpoint, outputs, rows, threads=threads or default_threads(), on_event=on_event)
    prompt_files = tuple(f"{SHARED}/{name}" for name in PROMPT_FILES if (shared / name).is_file())
    entries = {}
    for row in rows:
        kind = _FLOATS[row.vision]
        text, tower = written[row.name], towers.get(kind)
        entries[row.name] = LevelEntry(
            name=row.name,
            files=(f"{row.name}/{GGUF_MODEL}",),
            shared=(*prompt_files, *([f"{SHARED}/{_tower_name(kind)}"] if tower else [])),
            tensors={**(tower.tensor_types if tower else {}), **text.tensor_types},
            weight_bytes=text.weight_bytes + (tower.weight_bytes if tower else 0),
        )
    return entries


def _tower_name(kind: FloatType) -> str:
    return f"mmproj-{kind.lower()}.gguf"
