"""What an export would refuse after hours is refused before them: by headers, the configuration and the tied head.

Asks each format's own reading of the checkpoint, so nothing is judged here by other rules than there. Reads no weight
but the two that a tied head compares.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..evaluation.dataset import Dataset
from ..runtime.families import family_of
from ..runtime.levels import QuantLevel
from ..runtime.prompt import Prompter
from ..runtime.publish import PublishError, refuse_immovable, refuse_taken
from ..training.checkpoint import Checkpoint
from .activations import Activations
from .adopt import is_bundle
from .agreement import refuse_disagreement, refuse_numbers
from .calibration import CalibrationError, calibration_rows
from .draft import notes_of
from .family_mappings import refuse_towers
from .gguf_importance import importance_of
from .gguf_model import text_model, vision_model
from .graph_model import GraphModel, read_config
from .onnx_export import onnx_fills
from .onnx_schemes import SCHEMES
from .tensorrt_export import tensorrt_fills

# A file system's longest name, and what a draft's name may have beyond that of the notes.
_NAME_BYTES, _SPARE_BYTES = 255, 8


def refuse_early(checkpoint: Checkpoint, rows: Sequence[QuantLevel]) -> None:
    """Raise what a writer of these levels, the reference or a prompt would raise of the checkpoint.

    That is GgufUnsupported, WeightError, GraphError, CheckpointError, PromptError or ImageError.
    """
    refuse_towers(checkpoint.config, rows)
    prompter = Prompter.open(checkpoint.folder)
    config = read_config(checkpoint.folder)
    refuse_numbers(checkpoint.config, config)
    formats = {row.format for row in rows}
    if "gguf" in formats:
        text_model(checkpoint)
        if family_of(checkpoint.config).image_token is not None:
            vision_model(checkpoint)
    if formats - {"gguf"}:
        GraphModel.of(checkpoint, config)
    refuse_disagreement(checkpoint, config, prompter, rows)


def refuse_target(out: Path) -> bool:
    """Return whether `out` is a bundle that gets further levels. Raises PublishError where nothing can be made."""
    extends = is_bundle(out)
    refuse_immovable(out) if extends else refuse_taken(out)
    notes = notes_of(out)
    if len(os.fsencode(notes.name)) + _SPARE_BYTES > _NAME_BYTES:
        raise PublishError(f"{out} cannot be made: its name is too long for the notes beside it; shorten it")
    if os.path.lexists(notes) and (notes.is_symlink() or not notes.is_dir()):
        raise PublishError(f"{out} cannot be made: {notes} is no folder; remove it or name another")
    place = next(folder for folder in notes.parents if os.path.lexists(folder))
    if not place.is_dir():
        raise PublishError(f"{out} cannot be made: {place} is no folder; name another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PublishError(f"{out} cannot be made: nothing can be written to {place}; name another folder")
    return extends


def refuse_license(license: str | None) -> None:
    """Raise PublishError where a licence is no line of text, which a manifest could not hold or nobody could read."""
    if license is not None and not (license.strip() and license.isprintable()):
        raise PublishError(f"the licence {license!r} is no line of text; name it, such as apache-2.0, or leave it out")


def refuse_calibration(checkpoint: Checkpoint, rows: Sequence[QuantLevel], dataset: Dataset | None) -> int:
    """Return how many rows a dataset has to calibrate by, 0 without one.

    Raises CalibrationError or DatasetError where calibrated levels have no dataset, it marks no row, an image of a row
    is not what the row names, or a tower is to be calibrated and no row has an image.
    """
    calibrated = [row for row in rows if row.calibrated]
    if dataset is None:
        if calibrated:
            raise CalibrationError(
                f"{calibrated[0].name} is made from calibration rows of a dataset; add --calibration DATASET"
            )
        return 0
    examples = [row.example for row in calibration_rows(dataset)]
    images = {image for example in examples for image in example.images}
    for image in sorted(images, key=lambda image: image.path):
        dataset.image_bytes(image)
    seeing = family_of(checkpoint.config).image_token is not None
    towers = [row for row in calibrated if seeing and _ranges_of_tower(row)]
    if towers and not images:
        raise CalibrationError(
            f"{towers[0].name} takes ranges of the vision tower from calibration rows, and none of {dataset.folder} "
            "has an image; add rows with images"
        )
    return len(examples)


def _ranges_of_tower(row: QuantLevel) -> bool:
    return (
        row.vision == "int8" if row.format == "tensorrt" else row.format == "onnx" and SCHEMES[row.vision].needs_ranges
    )


def refuse_activations(checkpoint: Checkpoint, rows: Sequence[QuantLevel], activations: Activations | None) -> None:
    """Raise where the activations do not suit the levels that are made by them, before the reference is asked."""
    if any(row.imatrix for row in rows if row.format == "gguf"):
        importance_of(text_model(checkpoint), [row for row in rows if row.format == "gguf"], activations)
    for format, fills in (("onnx", onnx_fills), ("tensorrt", tensorrt_fills)):
        if calibrated := [row for row in rows if row.format == format and row.calibrated]:
            fills(GraphModel.open(checkpoint.folder), calibrated, activations)
