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

from .prompt import PreparedImage


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
