"""What a run loses where a part is left out: accuracy without it, and how much the run relies on it.

An item that needs all its parts must fall to chance without any of them. Knows rows, no folder.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .bounds import lower_bound, paired_clusters, upper_bound
from .robustness_outcomes import ProbedRun
from .robustness_report import Measured


def rows_without(run: ProbedRun) -> Iterator[tuple[str, list[tuple[str, bool, bool]]]]:
    """Yield (part, rows) of a run under this probe, a row being (group, right with all parts, right without it)."""
    rows = run.rows()
    for name in sorted({variant_name for _, variant_name, _ in rows}):
        yield name, [(clean.group, clean.correct, row.correct) for clean, each, row in rows if each == name]


def chance(run: ProbedRun) -> float:
    """Return what guessing among the options gets right, mean over the examples; open ones count 0."""
    return float(np.mean([1 / len(row.options) if row.options else 0.0 for row in run.sources]))


def part_reliance(run: ProbedRun, confidence: float) -> Iterator[Measured]:
    """Yield, for each part, accuracy with all parts minus accuracy without it, with a cluster-robust interval."""
    alpha = (1 - confidence) / 2
    for name, rows in rows_without(run):
        groups, whole, without = zip(*rows, strict=True)
        pairs = paired_clusters(without, whole, groups)
        bounds = float(lower_bound(pairs, alpha)), float(upper_bound(pairs, alpha))
        yield Measured(run.name, f"{spoken(name)} reliance", len(rows), float(pairs.delta), *bounds)


def spoken(part: str) -> str:
    """Return a part's name as reports say it: "image-1" is "image 1"."""
    return part.replace("-", " ")
