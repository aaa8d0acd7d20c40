"""Puts a checkpoint's graphs into a bundle: embeddings and vision towers into shared/, a decoder into a level's folder.

A graph is traced once per number type, without weights; each level fills a copy. Knows where a bundle keeps things; how
a level's weights are stored is for onnx_export.py and tensorrt_export.py to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import writing
from ..runtime.manifest import SHARED, LevelEntry
from ..runtime.onnx_backend import DECODER, EMBEDDINGS
from ..runtime.prompt import PROMPT_FILES
from .graph_model import Fill, GraphModel
from .onnx_decoder import trace_decoder
from .onnx_source import Source
from .onnx_vision import trace_vision
from .onnx_weights import Sources, Written, kept, write_graph


class GraphBundle:
    """The folder of a bundle while graphs are written into it. format: the word that its stages begin with."""

    def __init__(self, model: GraphModel, folder: Path, format: str, threads: int, on_event: OnEvent) -> None:
        self.model = model
        self.folder = folder
        self.shared = folder / SHARED
        self._format, self._threads, self._on_event = format, threads, on_event
        self._told: set[tuple[str, str]] = set()

    def write_embeddings(self) -> None:
        """Write the token embeddings into shared/, unless they lie there already."""
        self.shared.mkdir(parents=True, exist_ok=True)
        if not (self.shared / EMBEDDINGS).is_file():
            write_embeddings(self.model.embeddings, self.shared / EMBEDDINGS)
        self._on_event(Event(f"{self._format} embeddings", 1, 1, "tensors"))

    def write_tower(self, stem: str, fill: Fill) -> Written:
        """Write the vision tower into shared/ and return what was written, or what lies there already.

        Raises WeightError or OnnxFileError where that is of another model or calibration, or damaged.
        """
        found = kept(self.shared, stem, self.model.eyes, fill.scheme, fill.identity)
        if found is not None:
            return found
        graph = self._traced("vision", trace_vision, self.model.vision, fill)
        return self._write(f"{self._format} {stem}", graph, self.shared, stem, self.model.eyes, fill)

    def write_decoder(self, level: str, fill: Fill) -> Written:
        """Write a level's decoder into its folder. Raises WeightError."""
        (self.folder / level).mkdir(exist_ok=True)
        graph = self._traced("decoder", trace_decoder, self.model.decoder, fill)
        return self._write(level, graph, self.folder / level, DECODER, self.model.text, fill)

    def entry(self, level: str, files: Sequence[str], decoder: Written, tower: Written | None) -> LevelEntry:
        """Return a level's entry of the manifest, with the type that each tensor of the checkpoint got.

        files: names of those in the level's folder.
        """
        seen = tower or Written((), {})
        shared_types = {**seen.types, self.model.embeddings.name: embedding_type(self.model.embeddings)}
        types = {**shared_types, **decoder.types}
        for name in set(shared_types) & set(decoder.types):  # a tied head: one tensor of the checkpoint, stored twice
            types[name] = f"{shared_types[name]} (embedding), {decoder.types[name]} (head)"
        prompt_files = [name for name in PROMPT_FILES if (self.shared / name).is_file()]
        own = tuple(f"{level}/{name}" for name in files)
        shared = tuple(f"{SHARED}/{name}" for name in (*prompt_files, EMBEDDINGS, *seen.files))
        weights = [path for path in (*own, *shared) if path.endswith((".data", ".npy", ".onnx"))]
        return LevelEntry(level, own, shared, types, sum((self.folder / path).stat().st_size for path in weights))

    def _traced(self, part: str, trace: Callable[..., Any], numbers: Any, fill: Fill) -> Any:
        stage, kind = f"{self._format} {part}", (part, fill.scheme.dtype)
        on_event = self._on_event if kind not in self._told else ignore  # the second level takes what is there
        self._told.add(kind)
        on_event(Event(stage, 0, 1, "graphs", "tracing the graph"))
        graph = copy_graph(traced(trace, numbers, fill.scheme.dtype), fill.identity)
        on_event(Event(stage, 1, 1, "graphs", fill.scheme.dtype))
        return graph

    def _write(self, stage: str, graph: Any, folder: Path, stem: str, sources: Sources, fill: Fill) -> Written:
        count = _Counter(stage, sum(isinstance(source, Source) for source in sources.values()), self._on_event)
        return write_graph(
            graph, folder, stem, sources, fill.scheme, count,
            threads=self._threads, ranges=fill.ranges, importance=fill.importance,
        )  # fmt: skip


@lru_cache(maxsize=8)
def traced(trace: Callable[..., Any], numbers: Any, dtype: str) -> Any:
    """Return the graph; the same one again for the same model, of which each level is a copy."""
    return trace(numbers, dtype)


def copy_graph(model: Any, metadata: Mapping[str, str]) -> Any:
    """Return a copy of a graph, with further metadata."""
    copy = type(model)()
    copy.CopyFrom(model)
    for key, value in metadata.items():
        copy.metadata_props.add(key=key, value=value)
    return copy


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


class _Counter:
    """Counts a graph's tensors into events."""

    def __init__(self, stage: str, total: int, on_event: OnEvent) -> None:
        self._stage, self._total, self._on_event, self._done = stage, total, on_event, 0

    def __call__(self, name: str, written_bytes: int) -> None:
        """Tell that one more tensor is written."""
        self._done += 1
        note = f"{written_bytes / 1e6:,.1f} MB"
        self._on_event(Event(self._stage, self._done, self._total, "tensors", note))
