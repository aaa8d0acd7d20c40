"""The recipe of the embedded base model: shape, vocabulary, and the stages of its training. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..evaluation.phantom_canvas import SIZE_PX
from ..evaluation.phantom_images import KINDS
from ..evaluation.phantom_questions import TASKS, WORDINGS
from .base_model import BaseShape
from .tokenizer import Vocabulary


@dataclass(frozen=True)
class StageRecipe:
    """One stage: how many steps, of how many images, at which rate.

    phantoms: seed of the pictures. asked: task, or one wording of it -> share of a phantom's questions that are put
    ("caption": the one sentence that says all); empty where the vision tower alone is trained. The rate rises linearly
    over `warmup` steps, stays, and falls linearly to a twentieth over the last `decay` steps.
    """

    name: str
    phantoms: int
    steps: int
    images: int
    learning_rate: float
    warmup: int
    decay: int
    asked: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.steps, self.images) < 1 or self.learning_rate <= 0:
            raise ValueError(f"stage {self.name!r}: steps, images and learning_rate must be above 0")
        if self.phantoms < 0:
            raise ValueError(f"stage {self.name!r}: phantoms {self.phantoms} is a seed, 0 or more")
        if self.warmup < 0 or self.decay < 0 or self.warmup + self.decay > self.steps:
            raise ValueError(
                f"stage {self.name!r}: warmup {self.warmup} and decay {self.decay} must fit in {self.steps}"
            )
        unknown = [name for name in self.asked if name not in (*TASKS, *WORDINGS, "caption")]
        if unknown or not all(0 <= share <= 1 for share in self.asked.values()):
            raise ValueError(
                f"stage {self.name!r}: asked {self.asked} gives shares 0..1 of {', '.join(TASKS)}, caption"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.steps - step) / self.decay if self.decay else 1.0
        return self.learning_rate * rising * max(0.05, min(1.0, left))


@dataclass(frozen=True)
class BaseRecipe:
    """How the base model is made. kinds: modalities it sees; the others are left out. seed: of the first weights.

    dense_weight: of the dense loss beside the loss on answers, where questions are put. bfloat16: products of matrices
    in bfloat16, weights and optimiser in float32. threads: part of the recipe, because sums depend on it.
    """

    seed: int
    kinds: tuple[str, ...]
    stage: tuple[StageRecipe, ...]
    dense_weight: float = 0.3
    weight_decay: float = 0.01
    save_every: int = 50
    threads: int = 1
    bfloat16: bool = True
    model: BaseShape = field(default_factory=BaseShape)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def __post_init__(self) -> None:
        unknown = [name for name in self.kinds if name not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"kinds {list(self.kinds)}: choose among {', '.join(KINDS)}")
        if self.model.window_px < SIZE_PX:
            raise ValueError(f"window_px {self.model.window_px} is below a phantom's side of {SIZE_PX}")
        if self.save_every < 1 or self.threads < 1:
            raise ValueError("save_every and threads are above 0")
        names = [one.name for one in self.stage]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"stages {names}: at least one, each with a name of its own")
