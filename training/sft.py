"""Supervised fine-tuning: LoRA by peft, trained by the transformers Trainer, from a dataset to an adapter folder.

Killed and started again it goes on from its last saved step to the same bytes. Knows nothing of merging or scoring.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import MissingExtra
from ..evaluation.dataset import Dataset
from ..evaluation.example import Example
from ..runtime.events import OnEvent, ignore
from ..runtime.families import FAMILIES, family_of
from ..runtime.files import canonical_json, sha256_file, write_bytes
from ..runtime.prompt import Prompter
from ..runtime.publish import publishing
from .adapter import PIXELS_FILE, WEIGHTS_FILE, Adapter, base_name, write_adapter_config
from .checkpoint import Checkpoint
from .pixels import override_pixels
from .provenance import PROVENANCE_FILE, Provenance, versions
from .recipe import read_recipe
from .sft_batches import Collator, Showings
from .sft_data import ImageStore, RowMaker, pack
from .sft_recipe import SftRecipe
from .sft_trainer import Run, SftError, last_saved, run_trainer
from .torch_backend import open_rules, use_threads

_STATE = "state"
_LEAST_FREE_BYTES = 1 << 20


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
    if (family := family_of(checkpoint.config)).image_token is None:
        seeing = ", ".join(row.name for row in FAMILIES if row.image_token)
        raise SftError(f"{base}: {family.name} models take no images; fine-tuning here is for {seeing}")
    examples = dataset.in_role(*spec.data.roles)
    if not examples:
        raise SftError(f"{data}: no example has the role {' or '.join(spec.data.roles)}; run: infimed data curate")
    run = Run(_device(device), save_every_steps)
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
        identity = _identity(made_from, run.device)
        if not _is_finished(work, made_from, identity, restart):
            _prepare_state(work, identity, restart)
            try:
                measured = _make(spec, dataset, examples, checkpoint, work, base_name(base, out), run, on_event)
            except BaseException as error:
                full = isinstance(error, Exception) and shutil.disk_usage(work).free < _LEAST_FREE_BYTES
                if last_saved(work / _STATE) is None:
                    shutil.rmtree(work)
                if full:  # torch and safetensors have errors of their own for it
                    raise SftError(f"the disk of {out} is full; free some space and give the command again") from error
                raise
            Provenance(**{**vars(made_from), "attest": measured}).write(work)
        shutil.rmtree(work / _STATE, ignore_errors=True)
    return Adapter.open(out)


def _make(
    spec: SftRecipe,
    dataset: Dataset,
    examples: Sequence[Example],
    checkpoint: Checkpoint,
    work: Path,
    base: str,
    run: Run,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Train and write the adapter's files into `work`; return what was measured. base: what the adapter calls it."""
    write_bytes(work / PIXELS_FILE, override_pixels(checkpoint.folder / PIXELS_FILE, spec.images))
    prompter = Prompter.open(checkpoint.folder)
    prompter.rules = open_rules(work)
    store = ImageStore(dataset, prompter.rules)
    maker = RowMaker(store, prompter, spec.data.max_tokens)
    rows = Showings(maker, pack(examples, spec.data.questions_per_row, spec.seed), spec.seed, on_event)
    collator = Collator(store, spec.augment, spec.seed)
    trained, measured = run_trainer(spec, checkpoint, rows, collator, work / _STATE, run, on_event)
    _write_adapter(trained, work, base)
    images = {ref for example in examples for ref in example.images}
    return {**measured, "examples": len(examples), "images": len(images)}


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise SftError(f"device {name!r} is unknown; choose auto, cpu or cuda")
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _identity(made_from: Provenance, device: str) -> bytes:
    """Return what a broken run must share with the one that goes on with it."""
    # The processor computes in float32 and a GPU in bfloat16: a run that went on elsewhere would be neither.
    elsewhere = {} if device == "cpu" else {"device": device}
    return canonical_json({**made_from.inputs, "recipe": made_from.recipe_sha256, **made_from.libraries, **elsewhere})


def _is_finished(work: Path, made_from: Provenance, identity: bytes, restart: bool) -> bool:
    """Return whether a run killed in its last moment left a whole adapter: infimed.json is written last."""
    if restart or not (work / PROVENANCE_FILE).is_file():
        return False
    saved = work / _STATE / "identity.json"
    if saved.is_file() and saved.read_bytes() != identity:
        return False
    return {**vars(Provenance.read(work)), "attest": {}} == {**vars(made_from), "attest": {}}


def _prepare_state(work: Path, identity: bytes, restart: bool) -> None:
    """Keep the saved steps of a broken run of the same recipe, data, base and device; refuse those of another."""
    state = work / _STATE
    if state.is_dir() and restart:
        shutil.rmtree(state)
    if (state / "identity.json").is_file() and (state / "identity.json").read_bytes() != identity:
        raise SftError(
            f"{work} holds a broken run of another recipe, dataset, base, device or library version; "
            "add --restart to forget it, or name another folder"
        )
    (work / PROVENANCE_FILE).unlink(missing_ok=True)
    state.mkdir(exist_ok=True)
    write_bytes(state / "identity.json", identity)


def _write_adapter(model: Any, work: Path, base: str) -> None:
    """Write the trained adapter in PEFT's layout, without PEFT's card, which would hold a path."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    whole = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    write_bytes(work / WEIGHTS_FILE, save(whole, metadata={"format": "pt"}))
    settings = json.loads(json.dumps(model.peft_config["default"].to_dict(), default=str))
    write_adapter_config(work, {**settings, "base_model_name_or_path": base, "inference_mode": True})
