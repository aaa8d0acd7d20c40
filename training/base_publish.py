"""A base model's recipe becomes a checkpoint folder, whole or not at all. Knows how to publish, not how to train."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

from ..runtime.events import OnEvent, ignore
from ..runtime.files import sha256_file, write_bytes
from ..runtime.publish import publishing
from .base_recipe import BaseRecipe
from .checkpoint import Checkpoint
from .pretrain import LOG, pretrain, write_trained
from .provenance import Provenance, versions
from .recipe import read_recipe

LOG_EVERY = 10  # steps whose losses are averaged into one row of the published log
LOG_FILE = "log.csv"
_STATE = "state"


def train_base(recipe_file: Path, out: Path, on_event: OnEvent = ignore) -> Checkpoint:
    """Train the base model that `recipe_file` describes and publish it at `out`; return it opened.

    A broken run leaves `.NAME.partial` beside `out`, and the same call goes on from there to the same bytes.
    """
    recipe = read_recipe(recipe_file, BaseRecipe)
    with publishing(out, keep=True) as work:
        trainer = pretrain(recipe, work / _STATE, on_event)
        write_trained(trainer, work)
        rows = (work / _STATE / LOG).read_text("utf-8").splitlines()
        write_bytes(work / LOG_FILE, short_log(rows).encode())
        Provenance(
            step="base",
            inputs={},
            recipe_sha256=sha256_file(recipe_file),
            seed=recipe.seed,
            libraries=versions("torch", "transformers", "tokenizers", "numpy"),
        ).write(work)
        shutil.rmtree(work / _STATE)
    return Checkpoint.open(out)


def short_log(rows: list[str]) -> str:
    """Return the log as CSV: stage, last step, and the mean of each loss over LOG_EVERY steps."""
    means: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    for row in map(json.loads, rows):
        means[row["stage"], -(-row["step"] // LOG_EVERY) * LOG_EVERY].append(row)
    lines = ["stage,step,dense_loss,answers_loss"]
    for (stage, step), found in means.items():
        dense = sum(row["dense"] for row in found) / len(found)
        answers = sum(row["answers"] for row in found) / len(found) if "answers" in found[0] else None
        lines.append(f"{stage},{step},{dense:.4f},{'' if answers is None else f'{answers:.4f}'}")
    return "\n".join(lines) + "\n"
