"""Measures how far one set of logits lies from another: KL divergence and top-1 agreement, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine import Distance


def log_softmax(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return log-probabilities in nats of rows of logits, (rows, vocab), in float64."""
    wide = rows.astype(np.float64)
    wide = wide - wide.max(axis=-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True)))


def kl_rows(reference: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return KL(reference || other) in nats for each row of logits: (rows,)."""
    p, q = log_softmax(reference), log_softmax(other)
    return np.asarray((np.exp(p) * (p - q)).sum(axis=-1))


def distance(reference: NDArray[Any], other: NDArray[Any], gap: float) -> Distance:
    """Return the distance of `other` to `reference`, both (rows, vocab) logits.

    gap: top-1 must agree only where the reference's two largest logits differ by more than this.
    """
    if reference.shape != other.shape:
        raise ValueError(f"logits of shape {other.shape} cannot be held against {reference.shape}")
    kl = kl_rows(reference, other)
    same = reference.argmax(axis=-1) == other.argmax(axis=-1)
    best = np.partition(reference.astype(np.float64), -2, axis=-1)[:, -2:]
    decided = best[:, 1] - best[:, 0] > gap
    return Distance(
        rows=len(kl),
        kl_mean_nats=float(kl.mean()),
        kl_max_nats=float(kl.max()),
        top1=float(same.mean()),
        decided=int(decided.sum()),
        top1_decided=float(same[decided].mean()) if decided.any() else 1.0,
    )
