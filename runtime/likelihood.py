"""Compares the options of a question by their log-likelihoods: per token, summed, or per character.

The one place for it: engines and evaluation compare options by this. Knows no engine and no question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError

Likelihood = Literal["per token", "raw sum", "per character"]
LIKELIHOODS: tuple[Likelihood, ...] = get_args(Likelihood)


class LikelihoodError(InfimedError):
    """A way of comparing options that does not exist."""


def likelihood_of(name: str) -> Likelihood:
    """Return the normalisation of this name. Raises LikelihoodError with the names that there are."""
    for likelihood in LIKELIHOODS:
        if name == likelihood:
            return likelihood
    raise LikelihoodError(f"options are compared {', '.join(map(repr, LIKELIHOODS))}, not {name!r}")


def option_values(
    logprobs_nats: Sequence[float], tokens: Sequence[int], options: Sequence[str], likelihood: Likelihood = "per token"
) -> NDArray[np.float64]:
    """Return one value per option in nats; the likeliest is the choice.

    logprobs_nats: summed over an option's tokens; tokens: their number. "per token" divides by it, "per character" by
    the characters of the option's text (lm-evaluation-harness: acc_norm), "raw sum" by nothing (its acc).
    """
    values = np.array(logprobs_nats, dtype=np.float64)
    if likelihood == "per token":
        return np.asarray(values / np.maximum(np.array(tokens), 1))
    if likelihood == "per character":
        return np.asarray(values / np.maximum(np.array([len(option) for option in options]), 1))
    return values


def log_shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of the softmax of option values, in nats."""
    shifted = values - values.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
