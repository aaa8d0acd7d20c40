"""The recipe of the embedded base model: shape, vocabulary, and the two stages of its training. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..evaluation.phantom_images import KINDS
from ..evaluation.phantom_questions import TASKS
from .base_model import BaseShape
from .tokenizer import Vocabulary


@dataclass(frozen=True)
class StageRecipe:
    """One stage: how many steps, of how many images, at which rate.

    The rate rises linearly over `warmup` steps, stays, and falls linearly to a twentieth over the last `decay` steps.
    """

    steps: int
    images: int
    learning_rate: float
    warmup: int
    decay: int

    def __post_init__(self) -> None:
        if min(self.steps, self.images) < 1 or self.learning_rate <= 0:
            raise ValueError("steps, images and learning_rate must be above 0")
        if self.warmup < 0 or self.decay < 0 or self.warmup + self.decay > self.steps:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} must fit into {self.steps} steps")

    def rate(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.steps - step) / self.decay if self.decay else 1.0
        return self.learning_rate * rising * max(0.05, min(1.0, left))


@dataclass(frozen=True)
class BaseRecipe:
    """How the base model is made. kinds: modalities it sees; the others are left out. seed: of weights and phantoms.

    dense_weight: of the dense loss beside the loss on answers, in the second stage. asked: task -> share of a phantom's
    questions of that task that are put to the model ("caption": the one sentence that says all). bfloat16: products of
    matrices in bfloat16, weights and optimiser in float32. threads: part of the recipe, because sums depend on it.
    """

    seed: int
    kinds: tuple[str, ...]
    dense: StageRecipe
    questions: StageRecipe
    asked: dict[str, float]
    dense_weight: float = 0.3
    weight_decay: float = 0.01
    save_every: int = 50
    threads: int = 2
    bfloat16: bool = True
    model: BaseShape = field(default_factory=BaseShape)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def __post_init__(self) -> None:
        unknown = [name for name in self.kinds if name not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"kinds {list(self.kinds)}: choose among {', '.join(KINDS)}")
        if set(self.asked) != {*TASKS, "caption"}:
            raise ValueError(f"asked names {', '.join(self.asked)}; it must name {', '.join(TASKS)} and caption")
        if not all(0 <= share <= 1 for share in self.asked.values()) or self.save_every < 1 or self.threads < 1:
            raise ValueError("shares in asked lie in 0..1; save_every and threads are above 0")
