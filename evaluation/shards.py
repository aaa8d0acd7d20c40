"""Divides a dataset's questions into shards by what they show, so that no image is encoded in two of them.

Examples that share an image, directly or over others, stay together; of those without images the ones that share the
texts before the question. A probe's rows follow their example, and a picture that a probe swaps in is encoded where it
is shown. The division depends on the dataset, the role and the number of shards only. Knows no run and no engine.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .. import InfimedError
from .example import Example

SHARDS_FOLDER = "shards"
MAX_SHARDS = 10_000
_TEXT = re.compile(r"(\d{1,5})/(\d{1,5})")
_NAME = re.compile(r"(\d{1,5})-of-(\d{1,5})")


class ShardError(InfimedError):
    """A shard that does not exist, or shards that do not make one run."""


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a run. number: from 1."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= MAX_SHARDS:
            raise ShardError(
                f"shard {self.number}/{self.count} does not exist; they count from 1/N to N/N, N at most {MAX_SHARDS:,}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that a text such as "3/8" names. Raises ShardError."""
        if not (found := _TEXT.fullmatch(text)):
            raise ShardError(f"{text!r} is no shard; write NUMBER/COUNT, such as 1/8")
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def folder(self, runs: Path) -> Path:
        """Return where the shard's runs lie within the folder of the whole runs."""
        return runs / SHARDS_FOLDER / f"{self.number}-of-{self.count}"


def shards_in(runs: Path) -> tuple[Shard, ...]:
    """Return the shards of a folder of runs, all of one division, in their order. Raises ShardError."""
    folder = runs / SHARDS_FOLDER
    if not folder.is_dir():
        raise ShardError(f"{folder} does not exist; evaluate with --shard 1/N to N/N into {runs} first")
    found: set[Shard] = set()
    for path in sorted(folder.iterdir()):
        name = _NAME.fullmatch(path.name)
        if name is None or not path.is_dir():
            raise ShardError(f"{path} is no shard's folder; move it away")
        found.add(Shard(*map(int, name.groups())))
    counts = sorted({shard.count for shard in found})
    if len(counts) != 1:
        told = " and ".join(map(str, counts)) or "no"
        raise ShardError(f"{folder} holds shards of {told} divisions; leave those of one (1-of-N to N-of-N)")
    present = {shard.number for shard in found}
    if missing := [f"{number}/{counts[0]}" for number in range(1, counts[0] + 1) if number not in present]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ShardError(f"{folder} lacks the shard {missing[0]}{more}; evaluate with --shard {missing[0]}")
    return tuple(sorted(found, key=lambda shard: shard.number))


def divided(examples: Sequence[Example], count: int) -> dict[str, int]:
    """Return the number of each example's shard by its id; each shard gets the next part when it has the fewest rows.

    Raises ShardError where there are fewer parts than shards.
    """
    parts = _parts(examples)
    sizes: dict[Hashable, int] = {}
    for part in parts:
        sizes[part] = sizes.get(part, 0) + 1
    if len(sizes) < count:
        raise ShardError(
            f"the questions make {len(sizes):,} parts that share no image; {count:,} shards are more than that: ask "
            f"for at most {len(sizes):,}"
        )
    loads, numbers = [0] * count, dict.fromkeys(sizes, 0)
    for part, size in sizes.items():
        least = loads.index(min(loads))
        loads[least] += size
        numbers[part] = least + 1
    return {example.id: numbers[part] for example, part in zip(examples, parts, strict=True)}


def _parts(examples: Sequence[Example]) -> list[Hashable]:
    """Return what each example belongs to: equal for examples that are connected by what they show."""
    leader: dict[str, str] = {}

    def led_by(image: str) -> str:
        while leader.setdefault(image, image) != image:
            leader[image] = image = leader[leader[image]]
        return image

    for example in examples:
        for one, other in pairwise(example.images):
            leader[led_by(other.sha256)] = led_by(one.sha256)
    parts: list[Hashable] = []
    for example in examples:
        before = example.content[:-1]
        parts.append(led_by(example.images[0].sha256) if example.images else before or ("", example.id))
    return parts
