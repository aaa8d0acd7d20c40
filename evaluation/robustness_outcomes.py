"""The outcomes of one run under one probe, paired with the clean run: who is right, and who says the same.

Knows rows of predictions, no folder and no statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .mirror import mirror_text
from .predict_probes import ProbeRecord
from .prediction import Prediction, Run
from .probe import source_of
from .scoring import normalise

Flags = NDArray[np.bool_]


def said(row: Prediction) -> str:
    """Return what a row answers, normalised: the option's text, or the open reply; empty for INVALID."""
    return normalise((row.choice if row.options else row.extracted) or "")


def said_mirrored(row: Prediction) -> str:
    """Return what a row answers with left and right exchanged."""
    return normalise(mirror_text((row.choice if row.options else row.extracted) or ""))


@dataclass(frozen=True)
class ProbedRun:
    """A run under a probe. clean, grey: rows of the run without the probe and on grey images, by example."""

    name: str
    record: ProbeRecord
    probed: Run
    clean: Mapping[str, Prediction]
    grey: Mapping[str, Prediction] | None

    @cached_property
    def variants(self) -> dict[str, list[tuple[str, Prediction]]]:
        """The rows by example, examples in the alphabet: (variant, row) each."""
        found: dict[str, list[tuple[str, Prediction]]] = {}
        for row in self.probed.predictions:
            example, variant = source_of(row.example_id)
            found.setdefault(example, []).append((variant, row))
        return dict(sorted(found.items()))

    @cached_property
    def sources(self) -> list[Prediction]:
        """The clean rows of the examples that the probe covers, in the order of `variants`."""
        return [self.clean[example] for example in self.variants]

    @cached_property
    def clusters(self) -> NDArray[np.str_]:
        """The group of each example."""
        return np.array([row.group for row in self.sources])

    @cached_property
    def clean_right(self) -> Flags:
        """Which examples are right without the probe."""
        return np.array([row.correct for row in self.sources], dtype=bool)

    @cached_property
    def share_right(self) -> NDArray[np.float64]:
        """Share of each example's rows that are right."""
        return np.array([np.mean([row.correct for _, row in rows]) for rows in self.variants.values()])

    def rows(self, variant: str = "") -> list[tuple[Prediction, str, Prediction]]:
        """Return (clean row, variant, row) of all variants, or of those whose name begins so."""
        return [
            (clean, name, row)
            for clean, rows in zip(self.sources, self.variants.values(), strict=True)
            for name, row in rows
            if name.split("-")[0] == variant or not variant
        ]

    def agrees(self, clean: Prediction, row: Prediction) -> bool:
        """Return whether a row says what the clean one says, or its mirror image; an INVALID reply agrees with none."""
        wanted = said_mirrored(clean) if self.record.key == "mirrored" else said(clean)
        return bool(wanted) and said(row) == wanted

    @cached_property
    def stable(self) -> Flags:
        """Which examples have every variant agree with the clean answer."""
        return np.array(
            [
                all(self.agrees(clean, row) for _, row in rows)
                for clean, rows in zip(self.sources, self.variants.values(), strict=True)
            ],
            dtype=bool,
        )

    @cached_property
    def all_right(self) -> Flags:
        """Which examples have every variant right, and the clean answer too where the question is the same."""
        every: Flags = self.share_right == 1.0
        return every & self.clean_right if self.record.key in ("same", "mirrored") else every

    @cached_property
    def blind(self) -> Flags:
        """Which examples are answered alike with a grey image; False where there was none."""
        grey = self.grey or {}
        return np.array(
            [
                bool(said(row)) and row.example_id in grey and said(grey[row.example_id]) == said(row)
                for row in self.sources
            ],
            dtype=bool,
        )
