"""The recipe of supervised fine-tuning: what is trained, on which rows, how long and how fast. Knows no library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .augment import AugmentSpec
from .lora import LoraSpec


@dataclass(frozen=True)
class DataSpec:
    """[data]. roles: which examples are trained on, never the test's.

    questions_per_row: most questions about one image that share a row. max_tokens: a longer row is refused.
    """

    roles: tuple[Literal["train", "calibration", "search"], ...] = ("train",)
    questions_per_row: int = 16
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if not self.roles:
            raise ValueError("roles is empty; name at least one, such as 'train'")
        if self.questions_per_row < 1:
            raise ValueError(f"questions_per_row = {self.questions_per_row}; it must be at least 1")
        if self.max_tokens < 16:
            raise ValueError(f"max_tokens = {self.max_tokens}; it must be at least 16")


@dataclass(frozen=True)
class ImageSpec:
    """[images]. min_pixels, max_pixels: area an image is resized into, in place of the base's; kept by the merge."""

    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_pixels", "max_pixels"):
            value = getattr(self, name)
            if value is not None and not 28 * 28 <= value <= 1 << 26:
                raise ValueError(f"{name} = {value}; {28 * 28} to {1 << 26} is allowed")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels = {self.min_pixels} is above max_pixels = {self.max_pixels}")


@dataclass(frozen=True)
class TrainSpec:
    """[train]. Exactly one of epochs and steps. batch_rows: rows per forward pass; times accumulate = rows per step.

    schedule: after the warm-up the rate stays ("constant"), falls to 0 at the last step ("linear", "cosine"), or stays
    and falls over the last `decay` of the steps ("stable"). warmup, decay: shares of the steps. b_rate_ratio: how much
    faster LoRA's B is trained than A (LoRA+, arXiv 2402.12354). beta2: AdamW's. max_grad_norm: gradients are scaled
    down to it.
    """

    learning_rate: float
    epochs: float | None = None
    steps: int | None = None
    batch_rows: int = 8
    accumulate: int = 1
    schedule: Literal["constant", "linear", "cosine", "stable"] = "stable"
    warmup: float = 0.05
    decay: float = 0.3
    b_rate_ratio: float = 1.0
    beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("set exactly one of epochs and steps")
        if (self.epochs or self.steps or 0) <= 0:
            raise ValueError("epochs or steps must be above 0")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate = {self.learning_rate:g}; above 0 and up to 1 is allowed")
        if self.batch_rows < 1 or self.accumulate < 1:
            raise ValueError("batch_rows and accumulate must be at least 1")
        if not (0 <= self.warmup < 1 and 0 < self.decay <= 1 and self.warmup + self.decay <= 1):
            raise ValueError(f"warmup = {self.warmup:g}, decay = {self.decay:g}; shares of the steps that fit into 1")
        if not (1 <= self.b_rate_ratio <= 64 and 0 < self.beta2 < 1):
            raise ValueError("b_rate_ratio lies between 1 and 64, beta2 between 0 and 1")
        if self.weight_decay < 0 or self.max_grad_norm <= 0:
            raise ValueError("weight_decay must not be negative, max_grad_norm must be above 0")


@dataclass(frozen=True)
class SftRecipe:
    """A whole recipe of `infimed train sft`. seed: of LoRA's first weights, dropout, order and augmentation."""

    train: TrainSpec
    lora: LoraSpec = field(default_factory=LoraSpec)
    data: DataSpec = field(default_factory=DataSpec)
    images: ImageSpec = field(default_factory=ImageSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed = {self.seed}; 0 up to below 2^32 is allowed")
