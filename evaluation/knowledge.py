"""What the reference knows beyond the text-only prior: its lead over all, by modality and by task, with intervals.

Knows outcomes and clusters; a lead is no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .bounds import lower_bound, paired_clusters, upper_bound
from .comparison import Flags, outcomes, share
from .crossing import kinds_of
from .drift_report import Knowledge
from .prediction import Prediction
from .verdict import better_prior

Axis = Literal["all", "modality", "task", "items"]


def knowledge(
    reference: Sequence[Prediction],
    clusters: NDArray[np.str_],
    priors: Mapping[str, Flags] | str,
    confidence: float = 0.95,
) -> tuple[Knowledge, ...]:
    """Return the reference's lead over the better prior, over all and by part, small parts too.

    priors: outcomes by name, in the order of `reference`; a text (why they are missing) gives no rows. The interval is
    two-sided and cluster-robust.
    """
    if isinstance(priors, str):
        return ()
    right = outcomes(reference)
    parts: list[tuple[Axis, str, NDArray[np.bool_]]] = [("all", "", np.ones(len(reference), dtype=bool))]
    for axis in ("modality", "task"):
        values = np.array([getattr(row, axis) for row in reference])
        parts += [(axis, name, values == name) for name in sorted(set(values.tolist()))]
    parts += [("items", kind, here) for kind, here in kinds_of(reference).items()]
    rows = []
    for axis, name, here in parts:
        prior, known = better_prior({key: flags[here] for key, flags in priors.items()})
        pairs = paired_clusters(known, right[here], clusters[here])
        rows.append(
            Knowledge(
                axis=axis,
                name=name,
                items=int(here.sum()),
                clusters=pairs.clusters,
                reference=share(right[here], clusters[here]),
                prior=prior,
                prior_share=share(known, clusters[here]),
                lead=float(pairs.delta),
                lower=float(lower_bound(pairs, (1 - confidence) / 2)),
                upper=float(upper_bound(pairs, (1 - confidence) / 2)),
            )
        )
    return tuple(rows)
