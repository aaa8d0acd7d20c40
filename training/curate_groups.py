"""Which images and which patients belong together: near images form clusters, and groups that share one are merged.

Knows fingerprints and groups; says nothing of what is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..evaluation.example import Example
from .curate_fingerprints import Fingerprint
from .curate_near import Near, Nearness, near_pairs

Member = tuple[str, str]
"""A group as a source states it: (source, group)."""


class Together:
    """Disjoint sets of names (union-find), each called by its smallest name: the order of joining does not show."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, one: str, other: str) -> None:
        """Put two names into one set."""
        left, right = self.of(one), self.of(other)
        if left != right:
            self._parent[max(left, right)] = min(left, right)

    def of(self, name: str) -> str:
        """Return the smallest name of the set that `name` is in."""
        root = name
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while (parent := self._parent.get(name, name)) != root:
            self._parent[name], name = root, parent
        return root


class NearImages:
    """The images of a set, each once by its pixels, and which of them are near."""

    def __init__(self, images: Iterable[Fingerprint], rule: Nearness) -> None:
        self.images: tuple[Fingerprint, ...] = tuple({image.pixels: image for image in images}.values())
        self.pairs: tuple[Near, ...] = tuple(near_pairs(self.images, rule))
        self._near: dict[str, dict[str, Near]] = {}
        for pair in self.pairs:
            left, right = self.images[pair.left].pixels, self.images[pair.right].pixels
            self._near.setdefault(left, {})[right] = pair
            self._near.setdefault(right, {})[left] = pair

    def neighbours(self, pixels: str) -> Mapping[str, Near]:
        """Return the near images of one, by their pixels, without itself."""
        return self._near.get(pixels, {})

    def links(self) -> Iterable[tuple[str, str]]:
        """Yield the pixels of every near pair."""
        return ((self.images[pair.left].pixels, self.images[pair.right].pixels) for pair in self.pairs)


def members_of(
    examples: Iterable[Example], earlier: Mapping[str, Sequence[str]], merged: Mapping[str, Sequence[str]] | None = None
) -> dict[str, frozenset[Member]]:
    """Return, by group, the (source, group) pairs that it holds as the sources state them.

    earlier: what groups of `examples` were made of when curation merged them before. merged: likewise, where they are
    merged now; the result then goes by the new names.
    """
    name_of = {part: name for name, parts in (merged or {}).items() for part in parts}
    found: dict[str, set[Member]] = {}
    for example in examples:
        held = found.setdefault(name_of.get(example.group, example.group), set())
        held.update((example.source, part) for part in earlier.get(example.group, (example.group,)))
    return {group: frozenset(held) for group, held in found.items()}


def merge_groups(
    examples: Sequence[Example],
    pixels_of: Mapping[str, str],
    near: NearImages,
    text_twins: Iterable[tuple[str, str]],
) -> dict[str, str]:
    """Return the merged group of every group: groups that share an image, a near image or a near text are one.

    pixels_of: pixel hash by ImageRef.path. text_twins: groups of near text-only questions.
    """
    holders: dict[str, list[str]] = {}
    for example in examples:
        for ref in example.images:
            holders.setdefault(pixels_of[ref.path], []).append(example.group)
    together = Together()
    for groups in holders.values():
        for group in groups[1:]:
            together.join(groups[0], group)
    for left, right in near.links():
        together.join(holders[left][0], holders[right][0])
    for left, right in text_twins:
        together.join(left, right)
    return {example.group: together.of(example.group) for example in examples}
