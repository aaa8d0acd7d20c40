"""Runs the transformers Trainer over rows, from the last state that was saved whole; its logs become events.

Knows nothing of where rows come from or where the adapter goes.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import InfimedError
from ..runtime.events import Event, OnEvent
from ..runtime.files import write_bytes
from .checkpoint import Checkpoint
from .lora import attach_lora
from .sft_batches import Collator, Showings
from .sft_recipe import SftRecipe
from .torch_backend import load_model

_COMPLETE = "complete"


class SftError(InfimedError):
    """Training that cannot start, or that went astray."""


@dataclass(frozen=True)
class Run:
    """What of a run leaves no trace in its result."""

    device: str
    save_every_steps: int


def run_trainer(
    spec: SftRecipe,
    checkpoint: Checkpoint,
    showings: Showings,
    collator: Collator,
    state: Path,
    run: Run,
    on_event: OnEvent,
) -> tuple[Any, dict[str, Any]]:
    """Run the Trainer from the last saved step, if there is one; return the PeftModel and what was measured."""
    import transformers

    transformers.set_seed(spec.seed)
    on_gpu = run.device == "cuda"
    model = attach_lora(load_model(checkpoint, dtype="bfloat16" if on_gpu else "float32", device=run.device), spec.lora)
    steps = spec.train.steps or _steps(spec, len(showings.rows))
    per_step = spec.train.batch_rows * spec.train.accumulate
    listener = _listener(steps, state, on_event)
    arguments = transformers.TrainingArguments(
        output_dir=str(state),
        num_train_epochs=1,
        per_device_train_batch_size=spec.train.batch_rows,
        gradient_accumulation_steps=spec.train.accumulate,
        learning_rate=spec.train.learning_rate,
        max_grad_norm=spec.train.max_grad_norm,
        warmup_steps=round(spec.train.warmup * steps),
        **_schedule(spec, steps),
        train_sampling_strategy="sequential",
        seed=spec.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=run.save_every_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )
    shown = showings.times(steps * per_step)
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=shown,
        data_collator=collator,
        callbacks=[listener],
        optimizers=(_optimizer(model, spec), None),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=last_saved(state))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(1, len(losses) // 10) :]
    return trainer.model, {"steps": steps, "rows": len(showings.rows), "loss_of_last_tenth": sum(last) / len(last)}


def _steps(spec: SftRecipe, rows: int) -> int:
    per_epoch = math.ceil(rows / (spec.train.batch_rows * spec.train.accumulate))
    return max(1, round((spec.train.epochs or 0) * per_epoch))


def _schedule(spec: SftRecipe, steps: int) -> dict[str, Any]:
    if spec.train.schedule == "stable":
        falling = {"num_decay_steps": max(1, round(spec.train.decay * steps)), "decay_type": "linear"}
        return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": falling}
    named = "constant_with_warmup" if spec.train.schedule == "constant" else spec.train.schedule
    return {"lr_scheduler_type": named}


def _optimizer(model: Any, spec: SftRecipe) -> Any:
    """Return AdamW with LoRA's two halves at their own rates."""
    import torch
    from peft.optimizers import create_loraplus_optimizer

    return create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=spec.train.learning_rate,
        loraplus_lr_ratio=spec.train.b_rate_ratio,
        loraplus_weight_decay=spec.train.weight_decay,
        betas=(0.9, spec.train.beta2),
    )


def _listener(steps: int, folder: Path, on_event: OnEvent) -> Any:
    """Return a Trainer callback that turns its logs into events and marks each saved step as whole."""
    from transformers import TrainerCallback

    class Listener(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            loss = logs.get("loss")
            if loss is None:
                return
            if not math.isfinite(loss):
                raise SftError(f"the loss is {loss} at step {state.global_step}; lower learning_rate in the recipe")
            figures = {"loss": loss, "learning_rate": logs["learning_rate"]}
            on_event(Event("sft", state.global_step, steps, "steps", figures=figures))

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # The Trainer does not save in one piece; a step without this mark was cut short and is not trusted.
            write_bytes(folder / f"checkpoint-{state.global_step}" / _COMPLETE, b"")

    return Listener()


def last_saved(state: Path) -> str | None:
    """Return the last step that was saved whole; remove those that were not."""
    saved = {}
    for folder in state.glob("checkpoint-*"):
        if (folder / _COMPLETE).is_file():
            saved[int(folder.name.split("-")[1])] = folder
        else:
            shutil.rmtree(folder)
    return str(saved[max(saved)]) if saved else None
