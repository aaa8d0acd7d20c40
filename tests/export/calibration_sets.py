"""Builds what tests of calibration share: a tiny checkpoint and datasets of phantoms with roles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from infimed.evaluation.dataset import Dataset, write_dataset
from infimed.evaluation.example import Example, TextRef
from infimed.evaluation.phantoms import write_phantoms

from ..models import build_random_checkpoint


def tiny_checkpoint(folder: Path, *, tied: bool = True, seed: int = 0) -> Path:
    return build_random_checkpoint(
        folder, seed, hidden=64, ffn=96, vision_hidden=32, vision_ffn=48, tied=tied, max_pixels=28 * 28 * 9
    )


def phantom_set(folder: Path, images: int = 10) -> Path:
    """Write phantoms, half of them calibration and half test, two questions each, and two questions without an image.

    The text rows are a cell of their own, and its two rows are of unequal length.
    """
    drawn = write_phantoms(
        folder.with_name(folder.name + "-drawn"), images, 3, ("ct", "mri", "xray"), per_image=2,
        roles={"calibration": 0.5, "test": 0.5},
    )  # fmt: skip
    first = drawn.in_role("calibration")[0]
    texts = [
        replace(
            first, id=f"text-{number}", content=(TextRef(question),), modality="text", task="open", options=(),
            answer_type="open", answer="yes", group=f"text-{number}", attributes={},
        )
        for number, question in enumerate(("Is it CT?", "Is there a lesion in the left lower lobe? Name its size."))
    ]  # fmt: skip
    return rewritten(drawn, folder, [*drawn.examples, *texts])


def rewritten(dataset: Dataset, folder: Path, examples: list[Example]) -> Path:
    return write_dataset(folder, examples, dataset.all_image_bytes(), name="set").folder
