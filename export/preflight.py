"""What an export would refuse after hours is refused before them: by headers, the configuration and the tied head.

Asks each format's own reading of the checkpoint, so nothing is judged here by other rules than there. Reads no weight
but the two that a tied head compares.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.families import family_of
from ..runtime.levels import QuantLevel
from ..training.checkpoint import Checkpoint
from . import onnx_decoder, onnx_export, onnx_vision
from .activations import Activations
from .family_mappings import refuse_towers
from .gguf_importance import importance_of
from .gguf_model import text_model, vision_model


def refuse_early(checkpoint: Checkpoint, rows: Sequence[QuantLevel]) -> None:
    """Raise what a writer of these levels would raise of the checkpoint: GgufUnsupported, WeightError, GraphError."""
    refuse_towers(checkpoint.config, rows)
    seeing = family_of(checkpoint.config).image_token is not None
    formats = {row.format for row in rows}
    if "gguf" in formats:
        text_model(checkpoint)
        if seeing:
            vision_model(checkpoint)
    if formats - {"gguf"}:
        config = onnx_export.read_config(checkpoint.folder)
        decoder = onnx_decoder.DecoderNumbers.of(config)
        onnx_export.decoder_sources(checkpoint, decoder, bool(config.tie_word_embeddings))
        if seeing:
            onnx_export.vision_sources(checkpoint, onnx_vision.VisionNumbers.of(config))


def refuse_activations(checkpoint: Checkpoint, rows: Sequence[QuantLevel], activations: Activations | None) -> None:
    """Raise where the activations do not suit the levels that are made by them, before the reference is asked."""
    weighed = [row for row in rows if row.format == "gguf"]
    if any(row.imatrix for row in weighed):
        importance_of(text_model(checkpoint), weighed, activations)
