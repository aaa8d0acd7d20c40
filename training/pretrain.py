"""Trains the embedded base model: the vision tower first learns to see (dense), then the whole model to answer.

Every batch follows from the recipe and its number, and weights and optimiser are saved every few steps: a run that is
killed goes on where it was and ends with the same weights. Knows neither evaluation nor the command line.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError, MissingExtra
from ..evaluation.phantom_canvas import SIZE_PX
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import canonical_json, write_bytes, writing
from ..runtime.preprocessing import PixelRules, patches
from .base_batches import IGNORED, Batch, BatchPlan, TextRows, batches
from .base_model import new_model, settings_files, write_base
from .base_recipe import BaseRecipe, StageRecipe
from .dense import dense_heads, dense_loss
from .tokenizer import train_tokenizer

if TYPE_CHECKING:
    import torch

STATE = "state.safetensors"
LOG = "log.jsonl"
IDENTITY = "identity.json"


class PretrainError(InfimedError):
    """A run that cannot start or go on."""


class BaseTrainer:
    """Model, heads and optimiser of a run, and how one step changes them."""

    def __init__(self, recipe: BaseRecipe, folder: Path) -> None:
        """folder: holds tokenizer, template and pixel rules, as written by `settings_files`."""
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingExtra("train", "torch") from error
        torch.set_num_threads(recipe.threads)
        self.recipe, self.folder = recipe, folder
        self.model: Any = new_model(recipe.model, recipe.vocabulary, recipe.seed)
        self.rules = PixelRules.from_json(json.loads((folder / "preprocessor_config.json").read_bytes()))
        self.grid = SIZE_PX // self.rules.patch_size
        self.tokens = (SIZE_PX // self.rules.factor) ** 2
        self.heads = dense_heads(
            recipe.model.hidden, recipe.model.vision_hidden, len(recipe.kinds), self.tokens, recipe.seed
        )
        named = [*self.model.named_parameters(), *((f"heads.{name}", p) for name, p in self.heads.named_parameters())]
        self.names = [name for name, _ in named]
        groups = [
            {"params": [p for _, p in named if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.parameters = dict(named)
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)

    def plan(self, stage: StageRecipe) -> BatchPlan:
        """Return the data of a stage."""
        return BatchPlan(stage.phantoms, stage.images, self.recipe.kinds, self.rules, stage.asked)

    def step(self, stage: StageRecipe, number: int, batch: Batch) -> dict[str, float]:
        """Take step `number` of a stage and return its losses."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = stage.rate(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            seen, features = self.features(batch.rgb)
            answers = None if batch.rows is None else self.answer_loss(features, batch.rows)
        loss = dense_loss(self.heads, seen, features, batch.dense)
        figures = {"dense": float(loss.detach())}
        if answers is not None:
            figures["answers"] = float(answers.detach())
            loss = answers + self.recipe.dense_weight * loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self.optimizer.step()
        return figures

    def features(self, rgb: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last layer's patches, (images, patches, vision width), and the tokens, (images, tokens, width).

        Both float32. The patches stand in the order of the tokens, because an image is no larger than a window.
        """
        import torch

        pixels = np.concatenate([patches(picture, self.rules)[0] for picture in rgb])
        grid = torch.tensor([[1, self.grid, self.grid]] * len(rgb))
        made = self.model.model.visual(torch.from_numpy(pixels), grid_thw=grid)
        shaped = (made.last_hidden_state, made.pooler_output)
        seen, features = (value.reshape(len(rgb), -1, value.shape[-1]).float() for value in shaped)
        return seen, features

    def answer_loss(self, features: torch.Tensor, rows: TextRows) -> torch.Tensor:
        """Return the mean cross-entropy over the tokens of all answers."""
        import torch

        ids, targets = torch.from_numpy(rows.token_ids), torch.from_numpy(rows.targets)
        embedded = self.model.model.language_model.embed_tokens(ids)
        image = ids == self.model.config.image_token_id
        embedded = embedded.masked_scatter(
            image.unsqueeze(-1), features[torch.from_numpy(rows.order)].to(embedded.dtype)
        )
        hidden = self.model.model.language_model(
            inputs_embeds=embedded,
            position_ids=torch.from_numpy(rows.positions),
            attention_mask=row_mask(torch.from_numpy(rows.images), torch.from_numpy(rows.blocks)),
            use_cache=False,
        ).last_hidden_state
        answered = targets != IGNORED
        logits = self.model.lm_head(hidden[answered]).float()
        return torch.nn.functional.cross_entropy(logits, targets[answered])

    def save(self, stage: str, done: int) -> None:
        """Write weights, heads, optimiser and place into the run's folder."""
        from safetensors.torch import save_file

        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weight.{name}"] = parameter.detach().contiguous()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value.contiguous()
        with writing(self.folder / STATE) as draft:
            save_file(tensors, draft, {"place": f"{done} {stage}"})  # one key: their order would not be fixed

    def load(self) -> tuple[str, int]:
        """Read what `save` wrote; return the stage and how many of its steps are done."""
        import torch
        from safetensors import safe_open

        with safe_open(self.folder / STATE, "pt") as file, torch.no_grad():
            done, stage = file.metadata()["place"].split(" ", 1)
            keys = set(file.keys())
            for name, parameter in self.parameters.items():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if f"{key}.{name}" in keys:
                        self.optimizer.state[parameter][key] = file.get_tensor(f"{key}.{name}")
        return stage, int(done)


def row_mask(images: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Return which token may look at which, (rows, 1, width, width) bool: back, in its own image, into the beginning or
    its own block. Padding looks at padding, so that no token looks at nothing.
    """
    import torch

    width = blocks.shape[1]
    back = torch.ones(width, width, dtype=torch.bool).tril()
    image = images[:, :, None] == images[:, None, :]
    block = (blocks[:, :, None] == blocks[:, None, :]) | (blocks == 0)[:, None, :]
    return (image & block & back)[:, None]


def pretrain(recipe: BaseRecipe, work: Path, on_event: OnEvent = ignore) -> BaseTrainer:
    """Run all stages in the folder `work`, going on from what it holds; return the trainer.

    work: keeps settings files, state and log; a run of another recipe in it is refused. What on_event raises stops
    the run, to go on another time.
    """
    work.mkdir(parents=True, exist_ok=True)
    identity = canonical_json(dataclasses.asdict(recipe))
    if (work / IDENTITY).is_file() and (work / IDENTITY).read_bytes() != identity:
        raise PretrainError(f"{work} holds a broken run of another recipe; remove it or name another folder")
    for name, data in settings_files(recipe.model, recipe.vocabulary, train_tokenizer(recipe.vocabulary)).items():
        write_bytes(work / name, data)
    write_bytes(work / IDENTITY, identity)
    trainer = BaseTrainer(recipe, work)
    names = [stage.name for stage in recipe.stage]
    at, done = trainer.load() if (work / STATE).is_file() else (names[0], 0)
    log = _kept_log(work / LOG, names, at, done)
    for stage in recipe.stage[names.index(at) :]:
        made = batches(trainer.plan(stage), work if stage.asked else None, done, stage.steps)
        for number, batch in enumerate(made, done):
            figures = trainer.step(stage, number, batch)
            done = number + 1
            log.append(json.dumps({"stage": stage.name, "step": done} | {k: round(v, 5) for k, v in figures.items()}))
            on_event(Event(f"base {stage.name}", done, stage.steps, "steps", figures=figures))
            if done % recipe.save_every == 0 or done == stage.steps:
                trainer.save(stage.name, done)
                write_bytes(work / LOG, ("\n".join(log) + "\n").encode())
        done = 0
    return trainer


def _kept_log(path: Path, names: list[str], stage: str, done: int) -> list[str]:
    """Return the rows of steps that the saved state holds."""
    rows = path.read_text("utf-8").splitlines() if path.is_file() else []
    last = (names.index(stage), done)
    return [row for row in rows if (names.index((said := json.loads(row))["stage"]), said["step"]) <= last]


def write_trained(trainer: BaseTrainer, folder: Path) -> None:
    """Write the trained model as a checkpoint into an empty folder."""
    recipe = trainer.recipe
    files = settings_files(recipe.model, recipe.vocabulary, train_tokenizer(recipe.vocabulary))
    write_base(folder, trainer.model, files)
