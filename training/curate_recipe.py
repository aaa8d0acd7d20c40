"""What a curation recipe may say: one frozen dataclass per TOML table, ranges checked, defaults stated.

Knows no data. The defaults of notes on curation stand here; a recipe file only says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..evaluation.example import ROLES, Role
from .curate_near import Nearness

# Licences that allow training and passing on what was trained; ids as the rows write them, compared without case.
ALLOWED_LICENCES = (
    "CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY", "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause",
    "Unlicense", "PDDL-1.0", "ODC-By-1.0", "ISC",
)  # fmt: skip


@dataclass(frozen=True)
class LicenceRules:
    """allow: the licence ids that pass; every other row is left out."""

    allow: tuple[str, ...] = ALLOWED_LICENCES

    def __post_init__(self) -> None:
        if not self.allow:
            raise ValueError("allow is empty; name at least one licence id")


@dataclass(frozen=True)
class ImageRules:
    """Which images carry something.

    min_contrast: standard deviation of the grey values, of 255. blur_percentile: images whose sharpness lies below this
    percentile of their modality are left out, where the modality has blur_min_images or more; 0 switches it off.
    """

    min_side_pixels: int = 64
    max_aspect: float = 4.0
    min_contrast: float = 2.0
    blur_percentile: float = 1.0
    blur_min_images: int = 100

    def __post_init__(self) -> None:
        _within(self, min_side_pixels=(1, 1 << 16), max_aspect=(1, 200), min_contrast=(0, 128))
        _within(self, blur_percentile=(0, 50), blur_min_images=(1, 1 << 30))


@dataclass(frozen=True)
class TextRules:
    """Length of a question in words and punctuation marks; text-only questions (vignettes) may be longer."""

    min_question_tokens: int = 3
    max_question_tokens: int = 128
    max_text_only_tokens: int = 1024

    def __post_init__(self) -> None:
        _within(self, min_question_tokens=(1, 1 << 20), max_question_tokens=(1, 1 << 20))
        _within(self, max_text_only_tokens=(1, 1 << 20))


@dataclass(frozen=True)
class DuplicateRules:
    """When two rows of the set are the same for training: see Nearness for the image rule, Jaccard for texts."""

    image_bits: int = 10
    image_correlation: float = 0.96
    image_detail: float = 0.78
    text_jaccard: float = 0.8

    def __post_init__(self) -> None:
        _within(self, image_bits=(0, 64), image_correlation=(-1, 1), image_detail=(0, 1), text_jaccard=(0.05, 1))

    @property
    def images(self) -> Nearness:
        """The image rule."""
        return Nearness(self.image_bits, self.image_correlation, self.image_detail)


@dataclass(frozen=True)
class LeakRules:
    """When a row is too near to test data: looser than the duplicate rule. own_test: hold it against our own test role.

    text_overlap: shared 8-word grams of the shorter text; counts between text-only rows, and with images only inside
    one image cluster, because questions about images repeat their wording by design.
    """

    own_test: bool = True
    image_bits: int = 12
    image_correlation: float = 0.93
    image_detail: float = 0.78
    text_overlap: float = 0.6

    def __post_init__(self) -> None:
        _within(self, image_bits=(0, 64), image_correlation=(-1, 1), image_detail=(0, 1), text_overlap=(0.05, 1))

    @property
    def images(self) -> Nearness:
        """The image rule."""
        return Nearness(self.image_bits, self.image_correlation, self.image_detail)


@dataclass(frozen=True)
class RoleRules:
    """How roles are given. divide "group": by the shares. "official": the split that the source states (attribute
    split) keeps its test rows, and validation becomes search; the rest is shared between the other roles by group.
    "keep": roles that the rows have stay.
    """

    divide: Literal["group", "official", "keep"] = "group"
    train: float = 0.7
    calibration: float = 0.05
    search: float = 0.05
    test: float = 0.2

    def __post_init__(self) -> None:
        _within(self, train=(0, 1), calibration=(0, 1), search=(0, 1), test=(0, 1))
        total = sum(self.shares.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the roles add up to {total:g}, not to 1")

    @property
    def shares(self) -> dict[Role, float]:
        """Share of the examples by role."""
        return {"train": self.train, "calibration": self.calibration, "search": self.search, "test": self.test}


@dataclass(frozen=True)
class BudgetRules:
    """How many examples each role keeps, 0 = all; spread over modality x task with n proportional to sqrt(N).

    balance_yes_no: roles in which every finding keeps as many yes as no.
    """

    train: int = 0
    calibration: int = 0
    search: int = 0
    test: int = 0
    balance_yes_no: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        most = 1 << 40
        _within(self, train=(0, most), calibration=(0, most), search=(0, most), test=(0, most))
        unknown = [role for role in self.balance_yes_no if role not in ROLES]
        if unknown:
            raise ValueError(f"balance_yes_no names {unknown[0]!r}; roles are {', '.join(ROLES)}")

    def of(self, role: str) -> int:
        """Return the budget of a role, 0 for all."""
        return {"train": self.train, "calibration": self.calibration, "search": self.search, "test": self.test}[role]


@dataclass(frozen=True)
class CurateRecipe:
    """A whole curation, stage by stage; the seed decides which group gets which role and what is chosen first."""

    seed: int = 0
    licences: LicenceRules = field(default_factory=LicenceRules)
    images: ImageRules = field(default_factory=ImageRules)
    texts: TextRules = field(default_factory=TextRules)
    duplicates: DuplicateRules = field(default_factory=DuplicateRules)
    leaks: LeakRules = field(default_factory=LeakRules)
    roles: RoleRules = field(default_factory=RoleRules)
    budget: BudgetRules = field(default_factory=BudgetRules)


def _within(rules: object, **ranges: tuple[float, float]) -> None:
    for name, (low, high) in ranges.items():
        value = getattr(rules, name)
        if not low <= value <= high:
            raise ValueError(f"{name} = {value:g} is outside {low:g} to {high:g}")
