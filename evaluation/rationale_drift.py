"""What became of the reasoning: two runs' rationales on the same rows, by rule, with cluster-robust intervals.

Reasoning may break before answers do. A figure is over the rows whose reply carries reasoning in either run: a level
that stops reasoning names nothing. Knows rows in one fixed order, no folder and no judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .answer_drift import share_change
from .confidence import change, clustered_errors
from .drift_figures import Change, RationaleDrift, RationalePart, RationaleShare
from .prediction import Prediction
from .rationale import ASPECTS, NAMINGS, Rationale, rationale
from .rationale_follows import FOLLOWS

Read = Sequence[Rationale | None]


def rationale_of(row: Prediction) -> Rationale | None:
    """Return what the rules read in a row's generated reply; None where it carries no reasoning."""
    if row.generated is None:
        return None
    return rationale(
        row.generated, row.record, answer_type=row.answer_type, options=row.options, question=row.wording
    )  # fmt: skip


def rationale_drift(
    reference: Sequence[Prediction], level: Sequence[Prediction], clusters: NDArray[np.str_]
) -> RationaleDrift | None:
    """Return how reasoning changed; None where no row that both runs replied to carries any in either."""
    asked = [
        index
        for index, rows in enumerate(zip(reference, level, strict=True))
        if all(row.generated is not None for row in rows)
    ]
    runs = [[rationale_of(rows[index]) for index in asked] for rows in (reference, level)]
    carried = [np.array([one is not None for one in run], dtype=bool) for run in runs]
    if not asked or not (carried[0] | carried[1]).any():
        return None
    either, groups = np.flatnonzero(carried[0] | carried[1]).tolist(), clusters[asked]
    told = [[run[index] for index in either] for run in runs]
    known = [reference[asked[index]].record for index in either]
    return RationaleDrift(
        items=len(asked),
        with_reasoning=len(either),
        carried=share_change(carried[0], carried[1], groups),
        parts=reasoning_parts(told, known, groups[either]),
        words=_words(told, groups[either]),
    )


def reasoning_parts(
    told: Sequence[Read], records: Sequence[Mapping[str, str]], clusters: NDArray[np.str_]
) -> tuple[RationalePart, ...]:
    """Return what two runs' reasoning says, on the same items. told: of the reference and of the level."""
    parts = [_part(name, NAMINGS, told, clusters, [name in one for one in records], _of(name)) for name in ASPECTS]
    parts.append(_part("follows", FOLLOWS, told, clusters, [True] * len(records), _of("follows")))
    return tuple(part for part in parts if part is not None)


def _of(name: str) -> Callable[[Rationale | None], str]:
    """Return what reads an aspect of a rationale; of a reply without reasoning the outcome that claims nothing."""
    silent = FOLLOWS[-1] if name == "follows" else NAMINGS[-1]
    return lambda one: silent if one is None else str(getattr(one, name))


def _part(
    name: str,
    outcomes: Sequence[str],
    told: Sequence[Read],
    clusters: NDArray[np.str_],
    known: Sequence[bool],
    outcome: Callable[[Rationale | None], str],
) -> RationalePart | None:
    index = np.flatnonzero(known).tolist()
    if not index:
        return None
    said = [np.array([outcome(run[i]) for i in index]) for run in told]

    def shares() -> Iterator[RationaleShare]:
        for each in outcomes:
            yield RationaleShare(each, share_change(said[0] == each, said[1] == each, clusters[index]))

    return RationalePart(name, len(index), len(set(clusters[index].tolist())), tuple(shares()))


def _words(told: Sequence[Read], clusters: NDArray[np.str_]) -> Change:
    """Return the mean length in words and its change, by Student's interval over draws of whole clusters."""
    lengths = [np.array([one.words if one else 0 for one in run], dtype=np.float64) for run in told]
    labels, index = np.unique(clusters, return_inverse=True)
    longer = lengths[1] - lengths[0]

    def mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((weights @ longer / weights.sum(1))[None])

    (error,) = clustered_errors(mean, index, len(labels))
    before, after = (float(each.mean()) for each in lengths)
    reach = change(before, after, float(error), len(labels))
    if len(labels) > 1:
        return reach
    most = float(np.abs(longer).max(initial=0.0)) + max(before, after)
    return Change(before, after, after - before, -most, most)
