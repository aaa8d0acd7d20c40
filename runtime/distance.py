"""Measures how far one set of logits lies from another: KL divergence and top-1 agreement, in float64.

And reduces a row of logits to some tokens and the rest, from which such a distance can be bounded elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine import Distance, TokenLogprobs


def log_softmax(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return log-probabilities in nats of rows of logits, (rows, vocab), in float64."""
    wide = rows.astype(np.float64)
    wide = wide - wide.max(axis=-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True)))


def kl_rows(reference: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return KL(reference || other) in nats for each row of logits: (rows,)."""
    p, q = log_softmax(reference), log_softmax(other)
    return np.asarray((np.exp(p) * (p - q)).sum(axis=-1))


def token_logprobs(row: NDArray[Any], at: int | Sequence[int]) -> TokenLogprobs:
    """Reduce one row of logits, (vocab,). at: how many of the likeliest tokens to name (of equals the first), or which.

    The rest is summed over its own terms, never taken as 1 minus the named ones: a rest of 1e-12 is as exact as any.
    """
    logs = log_softmax(row[None])[0]
    likeliest = int(logs.argmax())
    named = _likeliest(logs, at) if isinstance(at, int) else np.asarray(at, dtype=np.int64)
    others = np.ones(len(logs), dtype=bool)
    others[named] = False
    rest = logs[others]
    if not rest.size:
        return TokenLogprobs(named, logs[named], -math.inf, 0.0, -math.inf, likeliest)
    peak = rest.max()
    mass = float(peak + np.log(np.exp(rest - peak).sum()))
    among = rest - mass
    entropy = max(0.0, -float((np.exp(among) * among).sum()))
    return TokenLogprobs(named, logs[named], mass, entropy, float(rest.min()), likeliest)


def _likeliest(logs: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the `count` likeliest tokens, the likeliest first, of equals the first; all where there are fewer."""
    if count < len(logs):
        # everything at least as likely as the last one wanted, so that equals are parted by their place alone
        floor = np.partition(logs, len(logs) - count)[len(logs) - count] if count else np.inf
        chosen = np.flatnonzero(logs >= floor)
    else:
        chosen = np.arange(len(logs))
    return np.asarray(chosen[np.argsort(-logs[chosen], kind="stable")][:count], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ComparedRows:
    """Rows of logits held against a reference's, row by row.

    kl_nats: (rows,), float64. same: whether the likeliest token is the same. decided: whether the reference's two
    largest logits differ by more than the gap; only there must it be.
    """

    kl_nats: NDArray[np.float64]
    same: NDArray[np.bool_]
    decided: NDArray[np.bool_]


def compare_rows(reference: NDArray[Any], other: NDArray[Any], gap: float) -> ComparedRows:
    """Hold `other` against `reference`, both (rows, vocab) logits. gap: in logits."""
    if reference.shape != other.shape:
        raise ValueError(f"logits of shape {other.shape} cannot be held against {reference.shape}")
    best = np.partition(reference.astype(np.float64), -2, axis=-1)[:, -2:]
    return ComparedRows(
        kl_rows(reference, other),
        reference.argmax(axis=-1) == other.argmax(axis=-1),
        best[:, 1] - best[:, 0] > gap,
    )


def summarise(parts: Sequence[ComparedRows]) -> Distance:
    """Return the distance over all rows of several comparisons."""
    kl = np.concatenate([part.kl_nats for part in parts])
    same = np.concatenate([part.same for part in parts])
    decided = np.concatenate([part.decided for part in parts])
    return Distance(
        rows=len(kl),
        kl_mean_nats=float(kl.mean()),
        kl_max_nats=float(kl.max()),
        top1=float(same.mean()),
        decided=int(decided.sum()),
        top1_decided=float(same[decided].mean()) if decided.any() else 1.0,
    )


def distance(reference: NDArray[Any], other: NDArray[Any], gap: float) -> Distance:
    """Return the distance of `other` to `reference`, both (rows, vocab) logits.

    gap: top-1 must agree only where the reference's two largest logits differ by more than this.
    """
    return summarise([compare_rows(reference, other, gap)])
