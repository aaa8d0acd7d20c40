"""Which linear layers of a model LoRA trains: the recipe's table of parts, put into a model by peft.

Patterns match whole module names of the transformers model. Knows nothing of data or schedules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from .. import InfimedError, MissingExtra
from .adapter import Adapter, AdapterError

Part = Literal[
    "language", "language.attention", "language.mlp", "projector", "vision", "vision.attention", "vision.mlp"
]

_LAYER = r"model\.language_model\.layers\.\d+\."
_BLOCK = r"model\.visual\.blocks\.\d+\."
# Part -> patterns of the modules it means; Qwen2.5-VL as transformers names it.
PARTS: dict[str, tuple[str, ...]] = {
    "language.attention": (_LAYER + r"self_attn\.(q|k|v|o)_proj",),
    "language.mlp": (_LAYER + r"mlp\.(gate|up|down)_proj",),
    "projector": (r"model\.visual\.merger\.mlp\.(0|2)",),
    "vision.attention": (_BLOCK + r"attn\.(qkv|proj)",),
    "vision.mlp": (_BLOCK + r"mlp\.(gate|up|down)_proj",),
}
PARTS["language"] = PARTS["language.attention"] + PARTS["language.mlp"]
PARTS["vision"] = PARTS["vision.attention"] + PARTS["vision.mlp"]


class LoraError(InfimedError):
    """A model that has none of the layers a recipe wants to train."""


@dataclass(frozen=True)
class LoraSpec:
    """The recipe's [lora] table. dropout: share of a layer's inputs dropped while training, 0 up to below 1.

    scale of an update: alpha / rank, or alpha / sqrt(rank) where rank_stabilised (arXiv 2312.03732).
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    rank_stabilised: bool = False
    parts: tuple[Part, ...] = ("language", "projector", "vision")

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 4096:
            raise ValueError(f"rank = {self.rank}; 1 to 4096 is allowed")
        if self.alpha < 1:
            raise ValueError(f"alpha = {self.alpha}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout:g}; 0 up to below 1 is allowed")
        if not self.parts:
            raise ValueError(f"parts is empty; choose from {', '.join(sorted(PARTS))}")

    @property
    def pattern(self) -> str:
        """Return one pattern that whole module names are matched with."""
        return "|".join(dict.fromkeys(f"(?:{pattern})" for part in self.parts for pattern in PARTS[part]))


def attach_lora(model: Any, spec: LoraSpec) -> Any:
    """Return the model with fresh LoRA layers in it (a PeftModel); only they require gradients.

    A pattern rather than a list of names: PEFT writes lists as sets, whose order changes between processes.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise MissingExtra("train", error.name or "peft") from None
    if not any(re.fullmatch(spec.pattern, name) for name, _ in model.named_modules()):
        raise LoraError(f"the model has no layer of the parts {', '.join(spec.parts)}; choose other parts")
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        use_rslora=spec.rank_stabilised,
        target_modules=spec.pattern,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def load_lora(model: Any, adapter: Adapter) -> Any:
    """Return the model with a trained adapter's layers in it, unmerged (a PeftModel).

    Raises AdapterError where a layer of the adapter finds no place in the model: peft itself would only warn.
    """
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise MissingExtra("train", error.name or "peft") from None
    stored = {update.module for update in adapter.updates()}
    names = {name for name, _ in model.named_modules()}
    if lost := sorted(stored - names):
        raise AdapterError(f"{adapter.folder}: the base has no layer {lost[0]}; the adapter is of another architecture")
    loaded = PeftModel.from_pretrained(model, str(adapter.folder))
    _check_placed(loaded.get_base_model(), adapter, stored)
    return loaded


def check_lora(model: Any, adapter: Adapter) -> None:
    """Raise AdapterError where peft would put the adapter's layers into others of the model than its weights are for.

    model: used up; its layers may be without weights, and it gets none.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise MissingExtra("train", error.name or "peft") from None
    inject_adapter_in_model(LoraConfig.from_pretrained(str(adapter.folder)), model)
    _check_placed(model, adapter, {update.module for update in adapter.updates()})


def _check_placed(model: Any, adapter: Adapter, stored: set[str]) -> None:
    placed = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    if placed != stored:
        odd = sorted(placed ^ stored)[0]
        raise AdapterError(f"{adapter.folder}: layer {odd} is not in both its config and its weights; train it again")
