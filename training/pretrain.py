"""Trains the embedded base model: first the vision tower to see (dense), then the whole model to answer.

Every batch follows from the recipe and its number, and weights and optimiser are saved every few steps: a run that is
killed goes on where it was and ends with the same weights. Knows neither evaluation nor the command line.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
        self.heads = dense_heads(recipe.model.hidden, len(recipe.kinds), self.tokens, recipe.seed)
        named = [*self.model.named_parameters(), *((f"heads.{name}", p) for name, p in self.heads.named_parameters())]
        self.names = [name for name, _ in named]
        groups = [
            {"params": [p for _, p in named if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.parameters = dict(named)
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)

    def plan(self, stage: str) -> BatchPlan:
        """Return the data of a stage; the second stage sees phantoms of another seed."""
        of = self.stage(stage)
        seed = self.recipe.seed * 2 + (1 if stage == "questions" else 0)
        return BatchPlan(seed, of.images, self.recipe.kinds, self.rules.factor, self.recipe.asked)

    def stage(self, stage: str) -> StageRecipe:
        """Return the recipe of "dense" or "questions"."""
        return self.recipe.dense if stage == "dense" else self.recipe.questions

    def step(self, stage: str, number: int, batch: Batch) -> dict[str, float]:
        """Take step `number` of a stage and return its losses."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = self.stage(stage).rate(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            features = self.features(batch.rgb)
            answers = None if batch.rows is None else self.answer_loss(features, batch.rows)
        loss = dense_loss(self.heads, features, batch.dense)
        figures = {"dense": float(loss.detach())}
        if answers is not None:
            figures["answers"] = float(answers.detach())
            loss = answers + self.recipe.dense_weight * loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self.optimizer.step()
        return figures

    def features(self, rgb: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
        """Return the image tokens of a batch: (images, tokens, width)."""
        import torch

        pixels = np.concatenate([patches(picture, self.rules)[0] for picture in rgb])
        grid = torch.tensor([[1, self.grid, self.grid]] * len(rgb))
        seen = self.model.model.visual(torch.from_numpy(pixels), grid_thw=grid).pooler_output
        return seen.reshape(len(rgb), self.tokens, -1).float()  # type: ignore[no-any-return]

    def answer_loss(self, features: torch.Tensor, rows: TextRows) -> torch.Tensor:
        """Return the mean cross-entropy over the tokens of all answers."""
        import torch

        ids, targets = torch.from_numpy(rows.token_ids), torch.from_numpy(rows.targets)
        embedded = self.model.model.language_model.embed_tokens(ids)
        image = ids == self.model.config.image_token_id
        embedded = embedded.masked_scatter(image.unsqueeze(-1), features[torch.from_numpy(rows.order)].to(embedded.dtype))
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
            save_file(tensors, draft, {"stage": stage, "done": str(done)})

    def load(self) -> tuple[str, int]:
        """Read what `save` wrote; return the stage and how many of its steps are done."""
        import torch
        from safetensors import safe_open

        with safe_open(self.folder / STATE, "pt") as file, torch.no_grad():
            place = file.metadata()
            keys = set(file.keys())
            for name, parameter in self.parameters.items():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if f"{key}.{name}" in keys:
                        self.optimizer.state[parameter][key] = file.get_tensor(f"{key}.{name}")
        return place["stage"], int(place["done"])


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
    """Run both stages in the folder `work`, going on from what it holds; return the trainer.

    work: keeps settings files, state and log; a run of another recipe in it is refused. What on_event raises stops
    the run, to go on another time.
    """
    work.mkdir(parents=True, exist_ok=True)
    identity = canonical_json({"recipe": repr(recipe)})
    if (work / "identity.json").is_file() and (work / "identity.json").read_bytes() != identity:
        raise PretrainError(f"{work} holds a run of another recipe; remove it or name another folder")
    for name, data in settings_files(recipe.model, recipe.vocabulary, train_tokenizer(recipe.vocabulary)).items():
        write_bytes(work / name, data)
    write_bytes(work / "identity.json", identity)
    trainer = BaseTrainer(recipe, work)
    at, done = trainer.load() if (work / STATE).is_file() else ("dense", 0)
    log = _kept_log(work / LOG, at, done)
    for stage in ("dense", "questions"):
        if at == "questions" and stage == "dense":
            continue
        steps = trainer.stage(stage).steps
        begun, first = time.monotonic(), done
        with_text = work if stage == "questions" else None
        for number, batch in enumerate(batches(trainer.plan(stage), with_text, first, steps), first):
            figures = trainer.step(stage, number, batch)
            done = number + 1
            row = {"stage": stage, "step": done, **{name: round(value, 5) for name, value in figures.items()}}
            log.append(json.dumps(row))
            pace_s = (time.monotonic() - begun) / (done - first)
            on_event(Event(f"base {stage}", done, steps, "steps", "", {**figures, "left_s": pace_s * (steps - done)}))
            if done % recipe.save_every == 0 or done == steps:
                trainer.save(stage, done)
                write_bytes(work / LOG, ("\n".join(log) + "\n").encode())
        at, done = "questions", 0
    return trainer


def _kept_log(path: Path, stage: str, done: int) -> list[str]:
    """Return the rows of steps that the saved state holds."""
    rows = path.read_text("utf-8").splitlines() if path.is_file() else []
    order = {"dense": 0, "questions": 1}
    return [
        row for row in rows if (order[(said := json.loads(row))["stage"]], said["step"]) <= (order[stage], done)
    ]


def write_trained(trainer: BaseTrainer, folder: Path) -> None:
    """Write the trained model as a checkpoint into an empty folder."""
    recipe = trainer.recipe
    files = settings_files(recipe.model, recipe.vocabulary, train_tokenizer(recipe.vocabulary))
    write_base(folder, trainer.model, files)
