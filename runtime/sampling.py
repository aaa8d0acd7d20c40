"""Picks the next token from a row of logits, and cuts a reply at its stop strings. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .distance import log_softmax
from .engine import Sampling


def pick_token(row: NDArray[np.float32], sampling: Sampling, random: np.random.Generator) -> tuple[int, float]:
    """Return a token and its log-probability in nats at temperature 1.

    row: (vocab,). Greedy at temperature 0, else a draw from the smallest set of tokens whose probability reaches
    top_p (nucleus sampling, arXiv 1904.09751).
    """
    plain = log_softmax(row[None])[0]
    if sampling.temperature == 0:
        token = int(plain.argmax())
        return token, float(plain[token])
    below = row.astype(np.float64) - row.max()  # first, so that the largest stays 0 however low the temperature
    with np.errstate(over="ignore"):
        warm = np.exp(log_softmax((below / sampling.temperature)[None])[0])
    order = np.argsort(-warm, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(warm[order]), sampling.top_p)) + 1]
    token = int(random.choice(kept, p=warm[kept] / warm[kept].sum()))
    return token, float(plain[token])


def visible_text(text: str, stop: Sequence[str], final: bool = False) -> tuple[str, bool]:
    """Return what of a growing reply may be shown, and whether a stop string has ended it.

    Held back while the reply grows: an unfinished character (U+FFFD at the end) and the beginning of a stop string.
    """
    found = [text.index(mark) for mark in stop if mark and mark in text]
    if found:
        return text[: min(found)], True
    if final:
        return text, False
    text = text.rstrip("\ufffd")
    held = max((size for mark in stop for size in range(1, len(mark)) if text.endswith(mark[:size])), default=0)
    return text[: len(text) - held], False
