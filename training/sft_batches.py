"""Rows in the order of training, and the batches a transformers model takes: padded, with a mask of who sees whom.

What stands at a place of the order depends on rows and seed alone, so that a run can go on anywhere. Knows no trainer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.example import Example
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.preprocessing import patches
from .augment import AugmentSpec, augment
from .sft_data import PREFIX, UNLABELLED, ImageStore, Row, RowMaker

if TYPE_CHECKING:
    import torch

PADDING = -2
"""The branch of a token that fills a row up."""


@dataclass(frozen=True, eq=False)
class Showing:
    """A row at one place in the order of training. number: 0 for the first row trained on; it seeds augmentation."""

    row: Row
    number: int


class Showings:
    """A map-style dataset: every row of a run in the order of training, all rows made (and so checked) beforehand.

    Each pass shows all rows once in an order of its own. What stands at a place depends on rows and seed alone, so that
    a run can go on anywhere.
    """

    def __init__(
        self, maker: RowMaker, packs: Sequence[tuple[Example, ...]], seed: int, on_event: OnEvent = ignore
    ) -> None:
        self.rows: list[Row] = []
        self._seed = seed
        self._count = 0
        self._order: tuple[int, list[int]] = (-1, [])
        for examples in packs:
            self.rows.append(maker.row(examples))
            on_event(Event("prepare", len(self.rows), len(packs), "images"))

    def times(self, showings: int) -> Showings:
        """Set how many rows are shown in all, and return self."""
        self._count = showings
        return self

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Showing:
        turn, place = divmod(number, len(self.rows))
        if self._order[0] != turn:
            order = list(range(len(self.rows)))
            random.Random(f"{self._seed}/{turn}").shuffle(order)
            self._order = (turn, order)
        return Showing(self.rows[self._order[1][place]], number)


class Collator:
    """Makes the batch that a transformers model takes: right-padded rows and a mask of who sees whom."""

    def __init__(self, images: ImageStore, spec: AugmentSpec = AugmentSpec(), seed: int = 0) -> None:
        self._store = images
        self._spec = spec
        self._seed = seed

    def __call__(self, showings: Sequence[Showing]) -> dict[str, Any]:
        """Return input_ids, labels (rows, tokens), position_ids (3, rows, tokens), attention_mask (rows, 1, tokens,
        tokens; True where a token sees another) and, where there are images, their pixels and grids.
        """
        import torch

        rows = [showing.row for showing in showings]
        width = max(len(row.token_ids) for row in rows)
        branches = torch.from_numpy(np.stack([_padded(row.branches, width, PADDING) for row in rows]))
        batch: dict[str, Any] = {
            "input_ids": torch.from_numpy(np.stack([_padded(row.token_ids, width, 0) for row in rows])),
            "labels": torch.from_numpy(np.stack([_padded(row.labels, width, UNLABELLED) for row in rows])),
            "position_ids": torch.from_numpy(np.stack([_padded(row.positions, width, 0) for row in rows], axis=1)),
            "attention_mask": who_sees_whom(branches),
        }
        made = [patches(rgb, self._store.rules) for showing in showings for rgb in self._pictures(showing)]
        if made:
            batch["pixel_values"] = torch.from_numpy(np.concatenate([values for values, _ in made]))
            batch["image_grid_thw"] = torch.tensor([[grid.t, grid.h, grid.w] for _, grid in made])
        return batch

    def _pictures(self, showing: Showing) -> Iterator[NDArray[np.uint8]]:
        draw = np.random.Generator(np.random.PCG64([self._seed, showing.number]))
        may_mirror = showing.row.tasks <= set(self._spec.mirror)
        for ref in showing.row.images:
            rgb = self._store.part(ref).rgb
            yield augment(rgb, self._spec, draw, may_mirror) if self._spec.does_something else rgb


def who_sees_whom(branches: torch.Tensor) -> torch.Tensor:
    """Return the attention mask of packed rows: (rows, tokens) branch numbers -> (rows, 1, tokens, tokens), bool.

    A token sees what stands before it in the prefix and in its own branch. Padding sees padding, and nobody sees it.
    """
    import torch

    same = branches[:, :, None] == branches[:, None, :]
    prefix = (branches == PREFIX)[:, None, :]
    width = branches.shape[1]
    before = torch.ones(width, width, dtype=torch.bool, device=branches.device).tril()
    return ((same | prefix) & before)[:, None]


def _padded(values: NDArray[np.int64], width: int, value: int) -> NDArray[np.int64]:
    missing = width - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=value).astype(np.int64)
