"""The golden record of a prompt: token ids, positions, grids and pixels as they were at export, and how it was read.

Held against what a bundle makes of the same messages now, stage by stage. Knows no engine and no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.messages import Message
from ..runtime.preprocessing import patches
from ..runtime.prompt import Prompter

SAMPLE = 256
"""How many pixel values of an image are kept, evenly spread over its patches."""


@dataclass(frozen=True)
class Reading:
    """By what prompts are made and replies ended, whether or not a golden prompt shows it.

    end_ids: the tokens that end a reply, in order. image_token_id: -1 of a family that takes no images.
    pixel_rules: as a manifest states them; empty of such a family.
    """

    end_ids: tuple[int, ...]
    image_token_id: int
    pixel_rules: Mapping[str, Any]

    @classmethod
    def of(cls, prompter: Prompter) -> Reading:
        """Return what a prompter goes by."""
        return cls(tuple(sorted(prompter.end_ids)), prompter.image_token_id, prompter.preprocessing)


@dataclass(frozen=True, eq=False)
class Golden:
    """What a prompt was. token_ids: (tokens,), int64. positions: (3, tokens), int64. grids: (images, 3), int64.

    pixels_sha256: of each image's bytes at its final size. pixel_sample: (images, SAMPLE), float32, of its patches.
    reading: None of a bundle that did not record it.
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    grids: NDArray[np.int64]
    pixels_sha256: tuple[str, ...]
    pixel_sample: NDArray[np.float32]
    reading: Reading | None = None


def golden(prompter: Prompter, messages: Sequence[Message]) -> Golden:
    """Return the record of a prompt as `prompter` makes it."""
    prompt = prompter.prompt(messages)
    grids, hashes, samples = [], [], []
    for image in prompt.images:
        values, grid = patches(image.rgb, prompter.rules)
        grids.append((grid.t, grid.h, grid.w))
        hashes.append(hashlib.sha256(np.ascontiguousarray(image.rgb).tobytes()).hexdigest())
        samples.append(values.reshape(-1)[np.linspace(0, values.size - 1, SAMPLE).astype(np.int64)])
    return Golden(
        prompt.token_ids,
        prompt.positions,
        np.array(grids, dtype=np.int64).reshape(-1, 3),
        tuple(hashes),
        np.array(samples, dtype=np.float32).reshape(-1, SAMPLE),
        Reading.of(prompter),
    )


def pixel_fault(stored: Golden, made: Golden, limit: float) -> str | None:
    """Return how the pixels differ from the record, None where they do not. limit: of a normalised pixel value."""
    if not np.array_equal(stored.grids, made.grids):
        return f"grids are {made.grids.tolist()}, at export they were {stored.grids.tolist()}"
    difference = float(np.abs(stored.pixel_sample - made.pixel_sample).max(initial=0.0))
    if not difference <= limit:
        return f"pixel values differ from those at export by {difference:.2g}"
    if stored.pixels_sha256 != made.pixels_sha256:
        return "an image at its final size has other bytes than at export"
    if stored.reading and made.reading:
        before, now = stored.reading.pixel_rules, made.reading.pixel_rules
        for rule in sorted({*before, *now}):
            if before.get(rule) != now.get(rule):
                return f"{rule} is {now.get(rule)}, at export it was {before.get(rule)}"
    return None


def token_fault(stored: Golden, made: Golden) -> str | None:
    """Return how the token ids differ from the record, None where they do not."""
    if np.array_equal(stored.token_ids, made.token_ids):
        return _reading_fault(stored.reading, made.reading)
    shorter = min(len(stored.token_ids), len(made.token_ids))
    apart = np.flatnonzero(stored.token_ids[:shorter] != made.token_ids[:shorter])
    return (
        f"{len(made.token_ids)} token ids, at export {len(stored.token_ids)}; the first that differs is number "
        f"{int(apart[0]) if len(apart) else shorter}"
    )


def _reading_fault(stored: Reading | None, made: Reading | None) -> str | None:
    """Return which of the tokens that no golden prompt shows is another than at export."""
    if not stored or not made:
        return None
    if stored.end_ids != made.end_ids:
        return f"a reply ends at the tokens {list(made.end_ids)}, at export at {list(stored.end_ids)}"
    if stored.image_token_id != made.image_token_id:
        return f"the image token is {made.image_token_id}, at export {stored.image_token_id}"
    return None


def position_fault(stored: Golden, made: Golden) -> str | None:
    """Return how the positions differ from the record, None where they do not."""
    if np.array_equal(stored.positions, made.positions):
        return None
    return "rotary positions are not those at export"
