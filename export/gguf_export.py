"""Writes a checkpoint's GGUF levels into a bundle: one text model each, and the vision towers that they share.

A level says how its tower is stored (F32 for the one on which the graph is judged, F16 for the others unless asked
otherwise), and levels that say the same share one file, so that an image needs encoding once for all of them. Knows
where a bundle keeps things; how a file is written is in gguf_write.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..runtime.events import OnEvent, ignore
from ..runtime.families import family_of
from ..runtime.files import write_bytes
from ..runtime.levels import level as level_row
from ..runtime.manifest import SHARED, LevelEntry
from ..runtime.open_engine import GGUF_MODEL, default_threads
from ..runtime.prompt import PROMPT_FILES, Prompter
from ..training.checkpoint import Checkpoint
from .activations import Activations
from .gguf_importance import importance_of
from .gguf_model import text_model, vision_model
from .gguf_write import write_levels, write_towers
from .modelfile import MODELFILE, modelfile


def export_gguf(
    checkpoint_folder: Path,
    bundle_folder: Path,
    levels: Sequence[str],
    on_event: OnEvent = ignore,
    *,
    threads: int | None = None,
    activations: Activations | None = None,
    on_level: Callable[[LevelEntry], None] = lambda entry: None,
) -> dict[str, LevelEntry]:
    """Write each level into its folder of `bundle_folder` and what they share into shared/; return their entries.

    threads: blocks of rows worked on at once, all available by default; the bytes are the same at any number.
    activations: of the calibration set, for the levels with an importance matrix. on_level: told of each level once
    all of its files are there. Raises GgufUnsupported, GgufWriteError, QuantiseError, NoImportance, ActivationsError,
    CheckpointError, PromptError or MissingExtra.
    """
    checkpoint = Checkpoint.open(checkpoint_folder)
    prompter = Prompter.open(checkpoint_folder)
    rows = [level_row(name) for name in levels]
    threads = threads or default_threads()
    text = text_model(checkpoint)
    seeing = family_of(checkpoint.config).image_token is not None
    tower = vision_model(checkpoint) if seeing else None
    importance_of(text, rows, activations)  # refused before anything is written
    shared = bundle_folder / SHARED
    shared.mkdir(parents=True, exist_ok=True)
    paths = {row.vision.upper(): shared / _tower_name(row.vision) for row in rows}
    towers = write_towers(tower, paths, threads=threads, on_event=on_event) if tower else {}
    for row in rows:
        (bundle_folder / row.name).mkdir(exist_ok=True)
    outputs = {row.name: bundle_folder / row.name / GGUF_MODEL for row in rows}
    written = write_levels(text, outputs, rows, threads=threads, activations=activations, on_event=on_event)
    prompt_files = tuple(f"{SHARED}/{name}" for name in PROMPT_FILES if (shared / name).is_file())
    entries = {}
    for row in rows:
        eyes = _tower_name(row.vision) if towers else None
        recipe = modelfile(prompter, GGUF_MODEL, f"../{SHARED}/{eyes}" if eyes else None)
        write_bytes(bundle_folder / row.name / MODELFILE, recipe.encode())
        headers = [one.header for one in (towers.get(row.vision.upper()), written[row.name]) if one]
        entries[row.name] = LevelEntry(
            name=row.name,
            files=(f"{row.name}/{GGUF_MODEL}", f"{row.name}/{MODELFILE}"),
            shared=(*prompt_files, *([f"{SHARED}/{eyes}"] if eyes else [])),
            tensors={name: kind for header in headers for name, kind in header.tensor_types.items()},
            weight_bytes=sum(header.weight_bytes for header in headers),
        )
        on_level(entries[row.name])
    return entries


def _tower_name(kind: str) -> str:
    return f"mmproj-{kind}.gguf"
