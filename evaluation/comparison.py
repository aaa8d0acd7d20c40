"""Compares two runs on the same items: counts, bounds, divergence, competence, verdict and the reason for it.

Knows predictions in one fixed order, not where they come from; drift.py pairs the runs and the cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..runtime.likelihood import Likelihood, log_shares, option_values
from .bootstrap import paired_bootstrap
from .bounds import PairedClusters, from_counts, hidden_loss, lower_bound, p_below, paired_clusters, upper_bound
from .drift_figures import Competence, Divergence, Share
from .drift_report import Comparison
from .intervals import mcnemar_exact, special, tango_bound, wilson
from .prediction import Prediction
from .scoring import normalise
from .settle import items_to_settle
from .verdict import ALPHA, ALPHA_PASS_COMPETENCE, NOT_ENOUGH, VERDICTS, better_prior, verdict_codes

Flags = NDArray[np.bool_]


def outcomes(rows: Sequence[Prediction]) -> Flags:
    """Return which rows are right."""
    return np.array([row.correct for row in rows], dtype=bool)


def compare(
    items: Sequence[Prediction],
    clusters: NDArray[np.str_],
    reference: Sequence[Prediction],
    level: Sequence[Prediction],
    priors: Mapping[str, Flags] | str,
    margin: float,
    likelihood: Likelihood = "per token",
) -> Comparison:
    """Return one comparison on the same items. priors: outcomes by name, or why they are missing.

    likelihood: how the runs normalise an option's log-likelihood.
    """
    before, after = outcomes(reference), outcomes(level)
    pairs = paired_clusters(before, after, clusters)
    lead, competence = _competence(before, priors, clusters)
    code = int(verdict_codes(pairs, lead, margin))
    harmful, healing, z = int(pairs.harmful), int(pairs.healing), float(special().ndtri(1 - ALPHA))
    lower, upper = float(lower_bound(pairs, ALPHA)), float(upper_bound(pairs, ALPHA))
    cells = {(row.modality, row.task) for row in items}
    modality, task = cells.pop() if len(cells) == 1 else ("", "")
    return Comparison(
        modality=modality,
        task=task,
        margin=margin,
        items=len(items),
        clusters=pairs.clusters,
        reference=share(before, clusters),
        level=share(after, clusters),
        delta=float(pairs.delta),
        lower=lower,
        upper=upper,
        item_lower=float(tango_bound(harmful, healing, len(items), z)),
        item_upper=float(tango_bound(harmful, healing, len(items), -z)),
        harmful=harmful,
        healing=healing,
        agreement=float(np.mean([says_same(one, other) for one, other in zip(reference, level, strict=True)])),
        mcnemar_p=mcnemar_exact(harmful, healing),
        design_effect=float(pairs.design_effect),
        discordant_clusters=int(pairs.clusters_discordant),
        largest_cluster_share=pairs.largest_share,
        divergence=_divergence(reference, level, likelihood),
        competence=competence,
        verdict=VERDICTS[code],
        reason=_reason(code, lower, upper, margin, competence, pairs),
        items_to_settle=_settling(pairs, lead, lower, margin) if code == NOT_ENOUGH else None,
        p_worse=float(p_below(pairs, margin)),
        bootstrap=paired_bootstrap(before, after, clusters),
    )


def _competence(
    reference: Flags, priors: Mapping[str, Flags] | str, clusters: NDArray[np.str_]
) -> tuple[PairedClusters | None, Competence]:
    if isinstance(priors, str):
        return None, Competence("", 0.0, 0.0, 0.0, 0.0, missing=priors)
    name, right = better_prior(dict(priors))
    lead = paired_clusters(right, reference, clusters)
    return lead, Competence(
        prior=name,
        accuracy=float(np.mean(right)),
        lead=float(lead.delta),
        lead_lower=float(lower_bound(lead, ALPHA)),
        lead_lower_pass=float(lower_bound(lead, ALPHA_PASS_COMPETENCE)),
    )


def _settling(pairs: PairedClusters, lead: PairedClusters | None, lower: float, margin: float) -> int | None:
    """Return the items that would settle an open verdict: by the margin, and by the lead that a PASS asks for."""
    if lower <= -margin or lead is None:
        by_margin = items_to_settle(pairs, margin, ALPHA)
        if by_margin is None or float(pairs.delta) <= -margin or lead is None:
            return by_margin
        if float(lower_bound(lead, ALPHA_PASS_COMPETENCE)) > 0:
            return by_margin
        by_lead = items_to_settle(lead, 0.0, ALPHA_PASS_COMPETENCE)
        return None if by_lead is None else max(by_margin, by_lead)
    return items_to_settle(lead, 0.0, ALPHA_PASS_COMPETENCE)


def _reason(code: int, lower: float, upper: float, margin: float, competence: Competence, pairs: PairedClusters) -> str:
    """Return one sentence that says why the verdict is what it is."""
    if competence.missing:
        return competence.missing
    kind = VERDICTS[code]
    hidden, warning = float(hidden_loss(pairs.held, ALPHA)), ""
    if pairs.largest_share >= margin:
        warning = (
            f"; one cluster holds {pairs.largest_share:.0%} of the items: harm to it alone would exceed the margin"
        )
    elif kind == "NOT ENOUGH ITEMS" and hidden >= margin:
        warning = f"; clusters of these sizes could hide a loss of {_points(hidden, False)} with no harm seen"
    if kind == "REFERENCE NOT COMPETENT":
        return (
            f"the reference leads the {competence.prior} by {_points(competence.lead)}, "
            f"lower bound {_points(competence.lead_lower)}: not above 0{warning}"
        )
    if kind == "FAIL":
        return f"a loss of more than {_points(margin, False)} is shown: upper bound {_points(upper)}{warning}"
    if kind == "PASS":
        return f"a loss of {_points(margin, False)} or more is ruled out: lower bound {_points(lower)}{warning}"
    if lower > -margin:
        return (
            "the loss is within the margin, but a PASS asks more of the reference's lead over the "
            f"{competence.prior}, at 0.001 %: lower bound {_points(competence.lead_lower_pass)}{warning}"
        )
    span = f"bounds {_points(lower)} to {_points(upper)}"
    return f"the loss may be on either side of {_points(margin, False)}: {span}{warning}"


def _points(value: float, signed: bool = True) -> str:
    if not signed:
        return f"{100 * value:.3g} point{'' if value == 0.01 else 's'}"
    return f"{100 * value:+.1f} points".replace("-", "\u2212")


def _divergence(
    reference: Sequence[Prediction], level: Sequence[Prediction], likelihood: Likelihood
) -> Divergence | None:
    """Return KL(reference || level) over the options, from log-likelihoods as the runs compare them."""
    values = []
    for one, other in zip(reference, level, strict=True):
        if one.options:
            p, q = (
                log_shares(option_values(row.option_logprobs_nats, row.option_tokens, row.options, likelihood))
                for row in (one, other)
            )
            values.append(max(0.0, float((np.exp(p) * (p - q)).sum())))
    return divergence_of(values) if values else None


def divergence_of(values_nats: Sequence[float]) -> Divergence:
    """Return mean, 99th percentile and maximum of divergences."""
    return Divergence(
        len(values_nats), float(np.mean(values_nats)), float(np.quantile(values_nats, 0.99)), float(np.max(values_nats))
    )


def says_same(one: Prediction, other: Prediction) -> bool:
    """Return whether two rows give the same answer: the option chosen, or the same text after normalising."""
    if one.options:
        return one.choice == other.choice
    return normalise(one.extracted or "") == normalise(other.extracted or "")


def accuracy(rows: Sequence[Prediction]) -> Share:
    """Return the share of right answers with its interval, clustered by patient or group."""
    return share(outcomes(rows), np.array([row.group for row in rows]))


def share(right: Flags, clusters: NDArray[np.str_]) -> Share:
    """Return a share of right answers with Wilson's 95 % interval on items / D."""
    design = design_effect(right, clusters)
    correct, items = int(right.sum()), len(right)
    interval = wilson(correct / design, items / design)
    return Share(correct, items, interval.lower, interval.upper)


def design_effect(right: Flags, clusters: NDArray[np.str_]) -> float:
    """Return D, by which a share of right answers has fewer independent items than it has items; at least 1.

    The design effect of bounds.py, drawn towards the mean size where few clusters hold the rarer outcome: patients
    that are all alike say little of the next one.
    """
    labels, index = np.unique(clusters, return_inverse=True)
    counts = np.bincount(index, weights=right.astype(np.float64), minlength=len(labels))
    sizes = np.bincount(index)
    return max(float(from_counts(np.zeros(len(labels)), part, sizes).inflation) for part in (counts, sizes - counts))
