"""Level x probe: whether a level loses more under a probe than the reference does, with a verdict as drift gives it.

Knows paired outcomes, no files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from .bounds import is_above, paired_clusters
from .prediction import Prediction
from .report_text import margin_text, points
from .robustness_figures import Excess, excess
from .robustness_outcomes import Flags, ProbedRun
from .robustness_report import Contrast
from .verdict import ALPHA, ALPHA_PASS_COMPETENCE, Verdict, better_prior, holm


def contrasts(
    reference: Mapping[str, ProbedRun],
    level: Mapping[str, ProbedRun],
    priors: Mapping[str, Mapping[str, Prediction]] | str,
    margin: float,
) -> tuple[Contrast, ...]:
    """Return one contrast for each probe that both ran, the p-values adjusted by Holm over those that are judged.

    reference, level: by probe label. priors: rows of the text-only priors by name and example, or why they are missing.
    Probes whose key is "abstain" are left out: their rows have no right answer.
    """
    found = [
        contrast(reference[label], level[label], priors, margin)
        for label in reference
        if label in level and reference[label].record.key != "abstain"
    ]
    judged = [row for row in found if row.verdict != "REFERENCE NOT COMPETENT"]
    adjusted = iter(holm([row.p_more for row in judged]))
    return tuple(
        row if row.verdict == "REFERENCE NOT COMPETENT" else dataclasses.replace(row, p_more_holm=next(adjusted))
        for row in found
    )


def contrast(
    reference: ProbedRun,
    level: ProbedRun,
    priors: Mapping[str, Mapping[str, Prediction]] | str,
    margin: float,
) -> Contrast:
    """Return the difference of differences of one level and one probe, per example and then over all."""
    per_item = (level.share_right - reference.share_right) - (
        level.clean_right.astype(np.float64) - reference.clean_right.astype(np.float64)
    )
    measured = excess(per_item, reference.clusters)
    lower, upper = float(measured.lower(ALPHA)), float(measured.upper(ALPHA))
    verdict, reason = _verdict(reference, priors, lower, upper, margin)
    record = reference.record
    return Contrast(
        run=level.name,
        reference=reference.name,
        probe=record.probe,
        severity=record.severity,
        margin=margin,
        items=len(per_item),
        clusters=len(set(reference.clusters.tolist())),
        reference_clean=float(reference.clean_right.mean()),
        reference_probed=float(reference.share_right.mean()),
        level_clean=float(level.clean_right.mean()),
        level_probed=float(level.share_right.mean()),
        excess=_value(measured),
        lower=lower,
        upper=upper,
        verdict=verdict,
        reason=reason,
        p_more=float(measured.p_more(margin)),
    )


def _value(measured: Excess) -> float:
    return float(measured.value)


def _verdict(
    reference: ProbedRun,
    priors: Mapping[str, Mapping[str, Prediction]] | str,
    lower: float,
    upper: float,
    margin: float,
) -> tuple[Verdict, str]:
    """Return the verdict and one sentence that says why it is so."""
    if isinstance(priors, str):
        return "REFERENCE NOT COMPETENT", priors
    flags: dict[str, Flags] = {
        name: np.array([rows[example].correct for example in reference.variants], dtype=bool)
        for name, rows in priors.items()
    }
    name, known = better_prior(flags)
    lead = paired_clusters(known, reference.clean_right, reference.clusters)
    wanted = margin_text(margin)
    if not is_above(lead, 0.0, ALPHA):
        return (
            "REFERENCE NOT COMPETENT",
            f"without the probe the reference does not beat the {name} on these examples, so it has nothing to lose",
        )
    if upper < -margin:
        return (
            "FAIL",
            f"more than {wanted} of extra loss are shown: upper bound {points(upper)} points",
        )
    if lower > -margin and is_above(lead, 0.0, ALPHA_PASS_COMPETENCE):
        return "PASS", f"an extra loss of {wanted} or more is ruled out: lower bound {points(lower)} points"
    if lower > -margin:
        return (
            "NOT ENOUGH ITEMS",
            f"the extra loss is within the margin, but a PASS asks more of the reference's lead over the {name}",
        )
    span = f"bounds {points(lower)} to {points(upper)} points"
    if upper < 0:
        return (
            "NOT ENOUGH ITEMS",
            f"some extra loss is shown, more than {wanted} is neither shown nor ruled out: {span}",
        )
    return "NOT ENOUGH ITEMS", f"an extra loss of {wanted} is neither shown nor ruled out: {span}"
