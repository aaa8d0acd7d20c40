"""A checkpoint as the graphs of ONNX and TensorRT see it: its numbers, where each weight lies, what calibration tells.

transformers 4, 5 and the hub give the same tensors different names; that is known here alone. Knows no level of a
bundle and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.families import family_of
from ..runtime.shape import CheckpointError
from ..training.checkpoint import Checkpoint
from .onnx_decoder import HEAD, DecoderNumbers
from .onnx_decoder import INVERSE_FREQUENCIES as DECODER_FREQUENCIES
from .onnx_source import Source, WeightError
from .onnx_vision import INVERSE_FREQUENCIES as VISION_FREQUENCIES
from .onnx_vision import ROPE_THETA, VisionNumbers
from .onnx_weights import Scheme, Sources
from .rope import inverse_frequencies

if TYPE_CHECKING:
    from .activations import Activations

TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "model.")
VISION_PREFIXES = ("model.visual.", "visual.")
HEAD_NAMES = ("lm_head.weight", "language_model.lm_head.weight")
CHANNELS_KEPT = 0.99
"""A static range holds what was seen in so many of a product's input channels; larger numbers of the others are cut."""


@dataclass(frozen=True)
class Fill:
    """How a graph's weights are filled in: by which scheme, and what that needs of a calibration.

    ranges, importance: as write_graph takes them. identity: what a graph that several levels share says of itself.
    """

    scheme: Scheme
    ranges: Mapping[str, float] = field(default_factory=dict)
    importance: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphModel:
    """A checkpoint's decoder and, where it sees, its vision tower. text, eyes: each weight by its name in the graph."""

    checkpoint: Checkpoint
    decoder: DecoderNumbers
    vision: VisionNumbers | None
    embeddings: Source
    text: Sources
    eyes: Sources

    @classmethod
    def open(cls, folder: Path) -> GraphModel:
        """Open a checkpoint. Raises CheckpointError, MissingExtra, and what `of` raises."""
        return cls.of(Checkpoint.open(folder), read_config(folder))

    @classmethod
    def of(cls, checkpoint: Checkpoint, config: Any) -> GraphModel:
        """Read a checkpoint's numbers and headers, and of its weights only what a tied head must equal.

        config: as transformers read it. Raises UnsupportedFamily, GraphError or WeightError.
        """
        decoder = DecoderNumbers.of(config)
        seeing = family_of(checkpoint.config).image_token is not None
        vision = VisionNumbers.of(config) if seeing else None
        name = _stored_name(checkpoint, TEXT_PREFIXES, "embed_tokens.weight")
        embeddings = Source(checkpoint, name, (decoder.vocabulary, decoder.hidden))
        text = _decoder_sources(embeddings, decoder, bool(config.tie_word_embeddings))
        return cls(checkpoint, decoder, vision, embeddings, text, _vision_sources(checkpoint, vision) if vision else {})

    def decoder_fill(
        self, level: str, scheme: Scheme, activations: Activations | None, weighed: Sequence[str] = ()
    ) -> Fill:
        """Return how a level's decoder is filled in.

        weighed: matrices in which an error counts by the mean x^2 of what it is multiplied by. Raises WeightError or
        ActivationsError where the calibration is missing or of another model.
        """
        matrices = self.decoder.matrices()
        hub = {name: name if name == HEAD else f"model.{name}" for name in matrices}
        ranges = _ranges(level, hub, matrices, activations) if scheme.needs_ranges else {}
        if weighed and activations is None:
            raise WeightError(f"level {level} weighs its errors by activations; export it with --calibration DATASET")
        importance = {name: activations.importance(hub[name], matrices[name][0]) for name in weighed if activations}
        return Fill(scheme, ranges, importance)

    def tower_fill(self, level: str, scheme: Scheme, activations: Activations | None) -> Fill:
        """Return how a level's vision tower is filled in. Raises WeightError, as for the decoder."""
        if self.vision is None or not scheme.needs_ranges:
            return Fill(scheme)
        matrices = self.vision.matrices()
        ranges = _ranges(level, {name: f"visual.{name}" for name in matrices}, matrices, activations)
        return Fill(scheme, ranges, identity={"calibration_sha256": activations.sha256} if activations else {})


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


def _decoder_sources(embeddings: Source, numbers: DecoderNumbers, tied: bool) -> Sources:
    checkpoint = embeddings.checkpoint
    sources: dict[str, Source | NDArray[np.float32]] = {}
    for name, shape in {**numbers.vectors(), **numbers.matrices()}.items():
        if name == HEAD:
            sources[name] = _head(embeddings, tied)
        else:
            sources[name] = Source(checkpoint, _stored_name(checkpoint, TEXT_PREFIXES, name), shape[::-1])
    return {**sources, DECODER_FREQUENCIES: numbers.inverse_frequencies().numpy()}


def _head(embeddings: Source, tied: bool) -> Source:
    """Return the output head, which is the embedding where it is tied. Raises WeightError where the two differ."""
    checkpoint = embeddings.checkpoint
    found = next((name for name in HEAD_NAMES if name in checkpoint.tensors), None)
    own = Source(checkpoint, found, embeddings.shape) if found else None
    if not tied:
        if own is None:
            raise WeightError(
                f"{checkpoint.folder}: config.json unties the output head, yet there is no {HEAD_NAMES[0]}"
            )
        return own
    if own and not all(np.array_equal(*pair) for pair in zip(embeddings.rows(), own.rows(), strict=True)):
        raise WeightError(
            f"config.json ties the head to the embedding, yet {own.name} differs from {embeddings.name}; set "
            "tie_word_embeddings to what the model was trained with"
        )
    return embeddings


def _vision_sources(checkpoint: Checkpoint, numbers: VisionNumbers) -> Sources:
    sources: dict[str, Source | NDArray[np.float32]] = {
        name: Source(checkpoint, _stored_name(checkpoint, VISION_PREFIXES, name), shape[::-1])
        for name, shape in {**numbers.vectors(), **numbers.matrices()}.items()
    }
    return {**sources, VISION_FREQUENCIES: inverse_frequencies(ROPE_THETA, numbers.head_dim // 2).numpy()}


def _stored_name(checkpoint: Checkpoint, prefixes: Sequence[str], name: str) -> str:
    """Return the checkpoint's own name of a tensor."""
    for prefix in prefixes:
        if prefix + name in checkpoint.tensors:
            return prefix + name
    raise WeightError(f"{checkpoint.folder} has no tensor {prefixes[0]}{name}; its config.json promises one")


def _ranges(
    level: str, hub: Mapping[str, str], matrices: Mapping[str, tuple[int, int]], activations: Activations | None
) -> dict[str, float]:
    """Return the range of what each matrix is multiplied by. hub: a matrix' name in the calibration."""
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
