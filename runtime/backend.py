"""The Backend protocol: the few calls an inference library must answer to become an engine.

Everything else (prompts, prefix reuse, option scoring, sampling, stop strings) is written once, in decoding.py, over
this protocol. A backend holds one sequence in its KV cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from .prompt import PreparedImage

MAX_THREADS = 512
"""More than any processor here has; libraries end the process where the system refuses them a thread."""
MAX_GPU_LAYERS = 2**31 - 1


class BackendError(InfimedError):
    """An engine was asked for more than the machine or the model has, or gave values that are no numbers."""


@dataclass(frozen=True, eq=False)
class Placed:
    """An image's embeddings and where they go: rows offset .. offset + len(embeddings) of the step's tokens.

    embeddings: (image tokens, hidden), float32.
    """

    offset: int
    embeddings: NDArray[np.float32]


class Backend(Protocol):
    """One model at one level inside one inference library.

    vocab_size: width of a row of logits. context_tokens: the longest sequence the KV cache takes.
    """

    vocab_size: int
    context_tokens: int

    def encode_image(self, image: PreparedImage) -> NDArray[np.float32]:
        """Return the vision tower's output for one image: (image tokens, hidden), float32."""

    def extend(
        self,
        token_ids: NDArray[np.int64],
        positions: NDArray[np.int64],
        images: Sequence[Placed],
        want: int,
    ) -> NDArray[np.float32]:
        """Append tokens to the sequence and return the logits of the last `want` of them: (want, vocab).

        token_ids: (n,). positions: (3, n), temporal, height, width (all equal for text). images: whole images only.
        """

    def truncate(self, tokens: int, next_position: int) -> None:
        """Keep the first `tokens` tokens of the sequence; the next token would sit at `next_position`."""

    def close(self) -> None:
        """Give back the library's memory."""


def check_settings(threads: int, context_tokens: int, limit_tokens: int, gpu_layers: int = 0) -> None:
    """Refuse what an inference library would end the process for, or cut to 32 bits. Raises BackendError.

    limit_tokens: the longest sequence the model was made for (its config's max_position_embeddings).
    """
    if not 1 <= threads <= MAX_THREADS:
        raise BackendError(f"{threads} threads asked for; 1 to {MAX_THREADS} can be had")
    if not 1 <= context_tokens <= limit_tokens:
        raise BackendError(f"a context of {context_tokens} tokens asked for; this model takes 1 to {limit_tokens}")
    if not -MAX_GPU_LAYERS <= gpu_layers <= MAX_GPU_LAYERS:
        raise BackendError(f"{gpu_layers} GPU layers asked for; no model has more than {MAX_GPU_LAYERS}")


def finite(values: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    """Return the values a library gave, if all are numbers: weights that are none must not give answers."""
    if not np.isfinite(values).all():
        raise BackendError(f"{source} returned values that are no numbers; its weights are damaged")
    return values
