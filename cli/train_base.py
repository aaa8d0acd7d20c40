"""`infimed train base` and `train card`: the embedded base model is made and measured. Knows no model.

cli/train.py registers both commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .progress import drawn

_RECIPE = Path(__file__).parent.parent / "training" / "base" / "recipe.toml"


def base(
    recipe: Annotated[
        Path, typer.Argument(help="A TOML recipe, such as training/base/recipe.toml.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint's folder; it must not exist.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print where the checkpoint comes from as JSON.")] = False,
) -> None:
    """Train the tiny base model from nothing, on phantoms made as it goes.

    A run that was stopped or killed goes on from its last saved state when the same command is given again, to the
    same bytes.
    """
    from ..training.base_publish import train_base

    with drawn() as on_event:
        made = train_base(recipe, out, on_event)
    if as_json:
        typer.echo(json.dumps({"checkpoint": str(out), "sha256": made.sha256}, indent=2))
        return
    typer.echo(f"checkpoint: {out}  sha256 {made.sha256}")


def card(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint to measure.", show_default=False)],
    runs: Annotated[Path, typer.Option("--runs", help="Where datasets and predictions are kept; resumable.")],
    out: Annotated[Path, typer.Option("--out", help="The card to write (Markdown).")] = Path("CARD.md"),
    recipe: Annotated[Path, typer.Option("--recipe", help="The recipe that names what the model was shown.")] = _RECIPE,
    images: Annotated[int, typer.Option("--images", min=60, help="Unseen phantoms, half to fit the prior.")] = 1200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the unseen phantoms.")] = 977,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Processor threads.")] = 1,
) -> None:
    """Measure a base model on unseen phantoms, against the text-only prior and a grey image, and write its card."""
    from ..training.base_card import measure, write_card
    from ..training.base_recipe import BaseRecipe
    from ..training.recipe import read_recipe

    kinds = read_recipe(recipe, BaseRecipe).kinds
    with drawn() as on_event:
        measured = measure(checkpoint, runs, kinds, images=images, seed=seed, threads=threads, on_event=on_event)
    write_card(out, checkpoint, measured)
    typer.echo(f"card: {out}  mean over task x modality {measured.mean:.3f}")
