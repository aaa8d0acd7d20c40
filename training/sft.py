"""Supervised fine-tuning: LoRA by peft, trained by the transformers Trainer, from a dataset to an adapter folder.

Killed and started again it goes on from its last saved step to the same bytes. Knows nothing of merging or scoring.
"""

from __future__ import annotations

import importlib
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from .. import InfimedError, MissingExtra
from ..evaluation.dataset import Dataset
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import canonical_json, sha256_file, write_bytes
from ..runtime.prompt import Prompter
from ..runtime.publish import publishing
from .adapter import PIXELS_FILE, WEIGHTS_FILE, Adapter, base_name, write_adapter_config
from .checkpoint import Checkpoint
from .lora import attach_lora
from .pixels import override_pixels
from .provenance import PROVENANCE_FILE, Provenance, versions
from .recipe import read_recipe
from .sft_data import Collator, ImageStore, RowMaker, Rows, pack
from .sft_recipe import SftRecipe
from .torch_backend import load_model, open_rules, use_threads

_STATE = "state"
_COMPLETE = "complete"


class SftError(InfimedError):
    """Training that cannot start, or that went astray."""


def train_sft(
    recipe: Path,
    *,
    data: Path,
    base: Path,
    out: Path,
    threads: int = 2,
    device: str = "auto",
    save_every_steps: int = 50,
    restart: bool = False,
    on_event: OnEvent = ignore,
) -> Adapter:
    """Train an adapter as `recipe` says and publish it at `out`; return it opened.

    data: a dataset folder. base: a checkpoint folder. device: "auto", "cpu" or "cuda" (bfloat16). restart: forget what
    a broken run left. The weights' bytes depend on recipe, data, base, threads and library versions, not on where the
    run was killed or where things lie. Raises InfimedError of several kinds, each before `out` appears.
    """
    try:
        for library in ("torch", "transformers", "peft", "accelerate"):
            importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise MissingExtra("train", error.name or "torch") from None
    spec = read_recipe(recipe, SftRecipe)
    dataset = Dataset.open(data)
    checkpoint = Checkpoint.open(base)
    examples = dataset.in_role(*spec.data.roles)
    if not examples:
        raise SftError(f"{data}: no example has the role {' or '.join(spec.data.roles)}; run: infimed data curate")
    device = _device(device)
    use_threads(threads)
    made_from = Provenance(
        step="sft",
        inputs={"base": checkpoint.sha256, "dataset": dataset.sha256},
        recipe_sha256=sha256_file(recipe),
        seed=spec.seed,
        libraries=versions("torch", "transformers", "peft", "accelerate"),
        licences=dict(sorted(Counter(example.license for example in examples).items())),
    )
    with publishing(out, keep=True) as work:
        if not _is_finished(work, made_from, restart):
            _prepare_state(work, made_from, restart)
            write_bytes(work / PIXELS_FILE, override_pixels(base / PIXELS_FILE, spec.images))
            prompter = Prompter.open(base)
            prompter.rules = open_rules(work)
            store = ImageStore(dataset, prompter.rules)
            maker = RowMaker(store, prompter, spec.data.max_tokens)
            rows = Rows(maker, pack(examples, spec.data.questions_per_row, spec.seed), on_event)
            trained, measured = _train(
                spec, checkpoint, rows, Collator(store), work / _STATE, device, save_every_steps, on_event
            )
            _write_adapter(trained, work, base_name(base, out))
            measured |= {"examples": len(examples), "images": len({ref for e in examples for ref in e.images})}
            Provenance(**{**vars(made_from), "attest": measured}).write(work)
        shutil.rmtree(work / _STATE, ignore_errors=True)
    return Adapter.open(out)


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise SftError(f"device {name!r} is unknown; choose auto, cpu or cuda")
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _is_finished(work: Path, made_from: Provenance, restart: bool) -> bool:
    """Return whether a run killed in its last moment left a whole adapter: infimed.json is written last."""
    if restart or not (work / PROVENANCE_FILE).is_file():
        return False
    return {**vars(Provenance.read(work)), "attest": {}} == {**vars(made_from), "attest": {}}


def _prepare_state(work: Path, made_from: Provenance, restart: bool) -> None:
    """Keep the saved steps of a broken run of the same recipe, data and base; refuse those of another."""
    state = work / _STATE
    identity = canonical_json({**made_from.inputs, "recipe": made_from.recipe_sha256, **made_from.libraries})
    if state.is_dir() and restart:
        shutil.rmtree(state)
    if (state / "identity.json").is_file() and (state / "identity.json").read_bytes() != identity:
        raise SftError(
            f"{work} holds a broken run of another recipe, dataset, base or library version; "
            "add --restart to forget it, or name another folder"
        )
    (work / PROVENANCE_FILE).unlink(missing_ok=True)
    state.mkdir(exist_ok=True)
    write_bytes(state / "identity.json", identity)


def _train(
    spec: SftRecipe,
    checkpoint: Checkpoint,
    rows: Rows,
    collator: Collator,
    state: Path,
    device: str,
    save_every_steps: int,
    on_event: OnEvent,
) -> tuple[Any, dict[str, Any]]:
    """Run the Trainer from the last saved step, if there is one; return the PeftModel and what was measured."""
    import transformers

    transformers.set_seed(spec.seed)
    on_gpu = device.startswith("cuda")
    model = attach_lora(load_model(checkpoint, dtype="bfloat16" if on_gpu else "float32", device=device), spec.lora)
    steps = spec.train.steps or _steps(spec, len(rows))
    listener = _listener(steps, state, on_event)
    arguments = transformers.TrainingArguments(
        output_dir=str(state),
        max_steps=steps,
        per_device_train_batch_size=spec.train.batch_rows,
        gradient_accumulation_steps=spec.train.accumulate,
        learning_rate=spec.train.learning_rate,
        lr_scheduler_type=spec.train.schedule,
        warmup_steps=round(spec.train.warmup * steps),
        weight_decay=spec.train.weight_decay,
        max_grad_norm=spec.train.max_grad_norm,
        optim="adamw_torch",
        seed=spec.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save_every_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[listener]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=_last_saved(state))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(1, len(losses) // 10) :]
    return trainer.model, {"steps": steps, "rows": len(rows), "loss_of_last_tenth": sum(last) / len(last)}


def _steps(spec: SftRecipe, rows: int) -> int:
    per_epoch = math.ceil(rows / (spec.train.batch_rows * spec.train.accumulate))
    return max(1, round((spec.train.epochs or 0) * per_epoch))


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


def _last_saved(state: Path) -> str | None:
    """Return the last step that was saved whole; remove those that were not."""
    saved = {}
    for folder in state.glob("checkpoint-*"):
        if (folder / _COMPLETE).is_file():
            saved[int(folder.name.split("-")[1])] = folder
        else:
            shutil.rmtree(folder)
    return str(saved[max(saved)]) if saved else None


def _write_adapter(model: Any, work: Path, base: str) -> None:
    """Write the trained adapter in PEFT's layout, without PEFT's card, which would hold a path."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    whole = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    save_file(whole, str(work / WEIGHTS_FILE), metadata={"format": "pt"})
    settings = json.loads(json.dumps(model.peft_config["default"].to_dict(), default=str))
    write_adapter_config(work, {**settings, "base_model_name_or_path": base, "inference_mode": True})
