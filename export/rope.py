"""How Llama 3.x slows the rotary turns of a model that learnt short texts, so that it reads long ones.

Turns that go round often within the first length stay, slow ones are divided by a factor, those between are blended
(rope_type llama3; transformers modeling_rope_utils). Needs torch: the two formulas are those of transformers and of
llama.cpp's converter, operation for operation, so that both agree to the last bit. Knows no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import MissingExtra

if TYPE_CHECKING:
    import torch


ROPE_KINDS: Mapping[str, tuple[str, ...]] = {
    "sections": ("default", "mrope"),
    "plain": ("default",),
    "stretched": ("default", "llama3"),
}
"""Kinds of rotary positions that a checkpoint may ask for, by what the row of its family says of them."""


@dataclass(frozen=True)
class RopeScaling:
    """The four numbers of config.json. original_tokens: the length that the model learnt first."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_tokens: float

    @staticmethod
    def of(rope: Mapping[str, Any]) -> RopeScaling | None:
        """Read rope_parameters (or rope_scaling); None where nothing is scaled. Raises KeyError, ValueError, TypeError.

        A kind that is not known is not read: whether it may stand there is for the caller to say.
        """
        if rope_kind(rope) != "llama3":
            return None
        found = RopeScaling(
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_tokens=float(rope["original_max_position_embeddings"]),
        )
        ordered = 0 < found.low_freq_factor < found.high_freq_factor
        if not (ordered and found.factor > 0 and found.original_tokens > 0):
            raise ValueError(f"rope factors {found}")
        return found

    def frequencies(self, theta: float, head_dim: int) -> torch.Tensor:
        """Return the slowed frequencies, (head_dim / 2,), float32, by the operations of transformers."""
        plain = inverse_frequencies(theta, head_dim)
        import torch

        longest = self.original_tokens / self.low_freq_factor
        shortest = self.original_tokens / self.high_freq_factor
        wavelength = 2 * math.pi / plain
        slowed = torch.where(wavelength > longest, plain / self.factor, plain)
        share = (self.original_tokens / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        blended = (1 - share) * slowed / self.factor + share * slowed
        between = ~(wavelength < shortest) * ~(wavelength > longest)
        found: torch.Tensor = torch.where(between, blended, slowed)
        return found

    def divisors(self, theta: float, head_dim: int) -> tuple[float, ...]:
        """Return what each plain frequency is divided by, float32, by the operations of llama.cpp's converter."""
        longest = self.original_tokens / self.low_freq_factor
        shortest = self.original_tokens / self.high_freq_factor
        found: list[float] = []
        for frequency in inverse_frequencies(theta, head_dim):
            wavelength = 2 * math.pi / frequency
            if wavelength < shortest:
                found.append(1.0)
            elif wavelength > longest:
                found.append(self.factor)
            else:
                share = (self.original_tokens / wavelength - self.low_freq_factor) / (
                    self.high_freq_factor - self.low_freq_factor
                )
                found.append(float(1 / ((1 - share) / self.factor + share)))
        return tuple(found)


def rope_kind(rope: Mapping[str, Any]) -> str:
    """Return the kind of rotary positions, in the words of transformers 4 or 5."""
    return str(rope.get("rope_type") or rope.get("type") or "default")


def inverse_frequencies(theta: float, dim: int) -> torch.Tensor:
    """Return theta^(-2i / dim) for i < dim / 2, float32, by transformers' own operations. Raises MissingExtra."""
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingExtra("export", "torch") from None
    frequencies: torch.Tensor = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float) / dim))
    return frequencies
