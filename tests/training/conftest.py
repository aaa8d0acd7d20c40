"""A micro model, a micro dataset and an adapter trained on it, made once for the tests of fine-tuning and merging."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infimed.evaluation.dataset import Dataset, image_ref, write_dataset
from infimed.evaluation.example import Example, TextRef

from ..models import build_random_checkpoint

RECIPE = """seed = 3
[train]
learning_rate = 0.01
steps = 8
batch_rows = 2
[augment]
zoom = 0.1
[lora]
rank = 4
alpha = 8
dropout = 0.1
"""


def build_micro(folder: Path, dtype: str = "float32", tied: bool = True, seed: int = 5) -> Path:
    """Write a random model small enough that a test may train it."""
    return build_random_checkpoint(
        folder,
        seed,
        hidden=64,
        ffn=96,
        layers=2,
        heads=2,
        kv_heads=1,
        vision_hidden=64,
        vision_ffn=80,
        vision_depth=2,
        vision_heads=2,
        fullatt_block_indexes=(1,),
        vocabulary=640,
        dtype=dtype,
        tied=tied,
    )


def build_dataset(folder: Path, images: int = 6, side_px: int = 56) -> Dataset:
    """Write images that are bright or dark, with a yes/no, a choice and an open question each."""
    draw = np.random.default_rng(11)
    examples, files = [], {}
    for number in range(images):
        bright = number % 2 == 1
        pixels = draw.integers(0, 60, (side_px, side_px + 20 * (number % 2), 3)) + (180 if bright else 0)
        stream = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
        ref = image_ref(stream.getvalue())
        files[ref.path] = stream.getvalue()
        asked = (
            ("yesno", "Is the image bright?", "yes" if bright else "no", ("yes", "no")),
            ("choice", "How does the image look?", "bright" if bright else "dark", ("dark", "bright")),
            ("open", "Describe the image.", "a bright lesion" if bright else "a dark lesion", ()),
        )
        for kind, text, answer, options in asked:
            examples.append(
                Example(
                    id=f"q{number}-{kind}",
                    content=(ref, TextRef(text)),
                    answer=answer,
                    options=options,
                    answer_type=kind,  # type: ignore[arg-type]
                    modality="ct",
                    task="finding",
                    source="made",
                    license="CC0-1.0",
                    group=f"g{number}",
                    role="train",
                )
            )
    return write_dataset(folder, examples, files, name="micro")


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/, data/, recipe.toml and the adapter that `infimed train sft` makes of them."""
    from infimed.training.sft import train_sft

    folder = tmp_path_factory.mktemp("room")
    build_micro(folder / "base")
    build_dataset(folder / "data")
    (folder / "recipe.toml").write_text(RECIPE, "utf-8")
    train_sft(
        folder / "recipe.toml",
        data=folder / "data",
        base=folder / "base",
        out=folder / "adapter",
        threads=1,
        save_every_steps=100,
    )
    return folder
