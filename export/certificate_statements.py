"""The three statements on a level, each from two engines' answers to the same prompts.

Graph: the dequantised engine against torch with the same weights. Kernel: the level's own engine against the
dequantised one. Drift: the level's own engine against the reference stored at export. Knows figures and limits;
runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.distance import compare_rows, summarise
from ..runtime.engine import Distance
from ..runtime.levels import QuantLevel
from .answers import Answers, centred, compare_answers
from .certificate import Finding, Statement
from .certificate_limits import EXACT_SHARE, FLOAT_STORAGES, FLOAT_TOWERS, STORED_KL_NATS, kernel_limit, tower_limit
from .parity import GAP_LOGITS, KL_LIMIT_NATS, VISION_LIMIT, Reference

NATS = "nats"


EMBEDDING = "of the largest embedding"


def graph_statement(
    row: QuantLevel, torch: Answers, dequantised: Answers, own: Answers | None, *, seeing: bool = True
) -> Statement:
    """Return whether the graph is the model's: every stage from the vision tower to the decoded reply.

    own: the level's own answers, None where its engine gave none; a level in floating point is held against torch as
    it is, too. seeing: whether the model takes images.
    """
    gap = compare_answers(torch, dequantised)
    findings = [
        Finding.unseen("vision", seeing)
        if gap.vision is None
        else Finding.of("vision", gap.vision, VISION_LIMIT, EMBEDDING),
        _equal("prompt logits", summarise(gap.prompt)),
        _equal("reply logits", summarise(gap.reply)),
        Finding("continuation", "held", f"{len(torch)} greedy replies are equal, token by token")
        if gap.greedy is None
        else Finding("continuation", "failed", f"the greedy reply to prompt {gap.greedy} is another"),
    ]
    if row.storage in FLOAT_STORAGES and row.vision in FLOAT_TOWERS and own is not None:
        stored = compare_answers(torch, own)
        found = summarise((*stored.prompt, *stored.reply))
        findings.append(
            Finding.of("as stored", found.kl_mean_nats, STORED_KL_NATS, NATS, "the level as it is, nothing dequantised")
        )
    return Statement("graph", tuple(findings))


def _equal(stage: str, found: Distance) -> Finding:
    said = f"{found.rows} rows; top-1 equal in {found.top1_decided:.1%} of the {found.decided} that decide"
    finding = Finding.of(stage, found.kl_mean_nats, KL_LIMIT_NATS, NATS, said)
    if found.top1_decided < 1.0:
        return Finding(stage, "failed", said, finding.value, finding.limit, NATS)
    return finding


def kernel_statement(
    row: QuantLevel,
    dequantised: Answers,
    own: Answers,
    references: Sequence[Reference],
    weight_error: float,
    *,
    seeing: bool = True,
) -> Statement:
    """Return whether the engine's own roundings (activations, KV cache, half-precision sums) stay within their bound.

    weight_error: the largest relative error of a tensor, by which a checkpoint that its type holds exactly is told.
    seeing: whether the model takes images.
    """
    gap = compare_answers(dequantised, own)
    findings = []
    tower, bound = tower_limit(row), kernel_limit(row)
    if gap.vision is None:
        findings.append(Finding.unseen("vision", seeing))
    elif tower is None:
        said = f"no bound was measured for {row.format} towers in {row.vision}"
        findings.append(Finding("vision", "not run", said, gap.vision, None, EMBEDDING))
    else:
        findings.append(Finding.of("vision", gap.vision, tower.embedding, EMBEDDING))
    found = summarise((*gap.prompt, *gap.reply))
    damage = f"mean KL {found.kl_mean_nats:.2g} nats over {found.rows} rows"
    if bound is None:
        findings.append(Finding("logits", "not run", f"{damage}; no bound was measured for {row.name}"))
    elif (
        bound.share is None or weight_error < EXACT_SHARE * bound.weight_error or found.kl_mean_nats <= bound.floor_nats
    ):
        findings.append(Finding.of("logits", found.kl_mean_nats, bound.kl_nats, NATS, f"{found.rows} rows"))
    else:
        share = kernel_share(dequantised, own, references)
        findings.append(Finding.of("logits", share, bound.share, "of the weights' damage", damage))
    return Statement("kernel", tuple(findings))


def kernel_share(dequantised: Answers, own: Answers, references: Sequence[Reference]) -> float:
    """Return how much the kernels move the reply's logits, in units of how much the weights' rounding moves them.

    Both as root mean squares over all rows, each row about its mean. Both grow alike with what a model makes of a small
    error, which therefore cancels.
    """
    kernel = weights = 0.0
    for index, reference in enumerate(references):
        middle = centred(dequantised[index].reply)
        kernel += float(np.square(centred(own[index].reply) - middle).sum())
        weights += float(np.square(middle - centred(reference.rows)).sum())
    return float((kernel / weights) ** 0.5) if weights else float("inf") if kernel else 0.0


def drift_statement(
    row: QuantLevel,
    dequantised: Answers | None,
    own: Answers,
    references: Sequence[Reference],
    limit_nats: float | None,
) -> Statement:
    """Return how far the level lies from unquantised torch, and how much of it the weights alone make.

    limit_nats: of the mean KL; None states it without a verdict, but for a level of full precision, which has one.
    """
    if limit_nats is None and row.full_precision and row.name == row.base:
        limit_nats = KL_LIMIT_NATS
    total = _to_reference(own, references)
    said = (
        f"{total.rows} rows; top-1 equal in {total.top1_decided:.1%} of the {total.decided} whose two largest logits "
        f"lie more than {GAP_LOGITS:g} apart"
    )
    findings = [
        Finding("logits", "stated", said, total.kl_mean_nats, None, NATS)
        if limit_nats is None
        else Finding.of("logits", total.kl_mean_nats, limit_nats, NATS, said)
    ]
    if dequantised is None:
        findings.append(Finding("parts", "not run", "the dequantised engine gave no answers"))
    else:
        weights = _to_reference(dequantised, references)
        kernel = summarise(
            [compare_rows(dequantised[index].reply, own[index].reply, GAP_LOGITS) for index in range(len(references))]
        )
        findings.append(Finding("weights' part", "stated", "", weights.kl_mean_nats, None, NATS))
        findings.append(Finding("kernels' part", "stated", "", kernel.kl_mean_nats, None, NATS))
    same = sum(own[index].greedy == reference.continuation for index, reference in enumerate(references))
    said = f"{same} of {len(references)} greedy replies are the reference's, token by token"
    findings.append(Finding("continuation", "stated", said))
    return Statement("drift", tuple(findings))


def _to_reference(answers: Answers, references: Sequence[Reference]) -> Distance:
    compared = [
        compare_rows(reference.rows, answers[index].reply, GAP_LOGITS) for index, reference in enumerate(references)
    ]
    return summarise(compared)
