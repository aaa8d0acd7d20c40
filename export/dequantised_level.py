"""A level whose weights are what they stand for: the same engine on the same graph, in full precision throughout.

Written into a work folder beside the bundle, opened as an engine, or as the torch model with the same weights. Knows
which format is read how; measures nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.decoding import Decoder
from ..runtime.engine import Engine
from ..runtime.families import family_of
from ..runtime.levels import level as level_row
from ..runtime.manifest import SHARED, LevelEntry
from ..runtime.onnx_backend import DECODER, EMBEDDINGS, vision_stem
from ..runtime.open_engine import CONTEXT_TOKENS, GGUF_MODEL, open_level
from ..runtime.prompt import PROMPT_FILES, Prompter, read_json
from ..runtime.shape import context_limit
from ..runtime.tensorrt_recipe import tower_of
from .certificate_gguf import gguf_weights, write_dequantised_gguf
from .certificate_onnx import onnx_weights
from .level_weights import LevelWeight, WeightsError
from .onnx_stored import dequantised


@dataclass(frozen=True)
class Level:
    """A level of a folder laid out as a bundle. preprocessing: the pixel rules of its manifest, None without one."""

    folder: Path
    entry: LevelEntry
    preprocessing: Mapping[str, Any] | None = None

    @property
    def format(self) -> str:
        """The level's format."""
        return level_row(self.entry.name).format

    @property
    def shared(self) -> Path:
        """The folder of what levels share."""
        return self.folder / SHARED

    @property
    def text(self) -> Path:
        """The file or graph of the language model."""
        return self.folder / self.entry.name / (GGUF_MODEL if self.format == "gguf" else f"{DECODER}.onnx")

    @property
    def seeing(self) -> bool:
        """Whether the model takes images."""
        return family_of(read_json(self.shared / "config.json")).image_token is not None

    @property
    def vision(self) -> str:
        """The type in the name of the tower's files."""
        row = level_row(self.entry.name)
        return tower_of(row.vision) if row.format == "tensorrt" else row.vision

    @property
    def tower(self) -> Path | None:
        """The file or graph of the vision tower; None for a family that takes no images. Raises WeightsError."""
        if not self.seeing:
            return None
        if self.format != "gguf":
            return self.shared / f"{vision_stem(self.vision)}.onnx"
        for path in self.entry.shared:
            if Path(path).name.startswith("mmproj"):
                return self.folder / path
        raise WeightsError(f"level {self.entry.name} names no vision tower; export it again")

    def weights(self) -> tuple[LevelWeight, ...]:
        """Return the level's weights by the checkpoint's tensors. Raises WeightsError, GgufError or MissingExtra."""
        config = read_json(self.shared / "config.json")
        if self.format == "gguf":
            return gguf_weights(self.text, self.tower, config)
        return onnx_weights(self.text, self.tower, self.shared / EMBEDDINGS, config)

    def open(self, threads: int) -> Engine:
        """Return the level's own engine, as its users open it."""
        return open_level(self.folder, self.entry, threads=threads)


def open_dequantised(level: Level, work: Path, threads: int) -> Engine:
    """Write the level's weights dequantised into `work` and open the same engine on them, its KV cache in float32.

    Takes 4 bytes per weight on the disk, which the engine maps or loads.
    """
    work.mkdir(parents=True)
    limit = context_limit(read_json(level.shared / "config.json"))
    context = min(CONTEXT_TOKENS, limit)
    prompter = Prompter.open(level.shared)
    name, tower = level.entry.name, level.tower
    if level.format == "gguf":
        from ..runtime.llama_backend import LlamaBackend

        write_dequantised_gguf(level.text, work / GGUF_MODEL)
        mmproj = None if tower is None else work / "mmproj-f32.gguf"
        if tower is not None and mmproj is not None:
            write_dequantised_gguf(tower, mmproj)
        llama = LlamaBackend(work / GGUF_MODEL, mmproj, threads=threads, context_tokens=context, precise=True)
        return Decoder(llama, prompter, name)
    from ..runtime.onnx_backend import OnnxBackend

    (work / SHARED).mkdir()
    for file in PROMPT_FILES:
        if (level.shared / file).is_file():
            shutil.copyfile(level.shared / file, work / SHARED / file)
    os.symlink((level.shared / EMBEDDINGS).resolve(), work / SHARED / EMBEDDINGS)
    dequantised(level.text.parent, level.text.stem, work)
    if tower is not None:
        dequantised(tower.parent, tower.stem, work / SHARED)
    backend = OnnxBackend(work, work / SHARED, threads=threads, context_tokens=context, vision=level.vision)
    return Decoder(backend, prompter, name)
