"""Cuts a request to extend the sequence into steps that llama.cpp takes: tokens or embeddings, and never too many.

Refuses what llama.cpp would take wrongly or end the process over. Knows numbers only, no library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .backend import Placed
from .llama_library import LlamaError


@dataclass(frozen=True, eq=False)
class Piece:
    """Tokens start .. stop of a request; embeddings: (stop - start, hidden) of an image, None for text."""

    start: int
    stop: int
    embeddings: NDArray[np.float32] | None


def split_images(count: int, images: Sequence[Placed], hidden: int) -> list[Piece]:
    """Return `count` tokens as pieces of text and images, in order. Raises LlamaError for images that do not fit."""
    pieces: list[Piece] = []
    at = 0
    for placed in sorted(images, key=lambda placed: placed.offset):
        stop = placed.offset + len(placed.embeddings)
        if placed.offset < at or stop > count or placed.embeddings.shape[1:] != (hidden,):
            raise LlamaError(
                f"image embeddings {placed.embeddings.shape} at token {placed.offset} do not fit {count} tokens of "
                f"width {hidden}"
            )
        if placed.offset > at:
            pieces.append(Piece(at, placed.offset, None))
        pieces.append(Piece(placed.offset, stop, np.ascontiguousarray(placed.embeddings, np.float32)))
        at = stop
    if at < count:
        pieces.append(Piece(at, count, None))
    return pieces


def check_pieces(
    pieces: Sequence[Piece], token_ids: NDArray[np.int64], positions: NDArray[np.int64], last: int, vocabulary: int
) -> None:
    """Raise LlamaError for foreign tokens, text off the diagonal, or time that does not go on from `last`.

    positions: (3, tokens), time, height, width.
    """
    for piece in pieces:
        here, times = positions[:, piece.start : piece.stop], positions[0, piece.start : piece.stop]
        least_step = 1 if piece.embeddings is None else 0  # an image's tokens share one time
        if times[0] <= last or (np.diff(times) < least_step).any() or here.min() < 0 or here.max() >= 2**31:
            raise LlamaError(f"positions {int(times[0])} to {int(times[-1])} do not follow position {last}")
        if piece.embeddings is None:
            if (here != times).any():
                raise LlamaError("a text token sits at three different positions; only image tokens may")
            ids = token_ids[piece.start : piece.stop]
            if ids.min() < 0 or ids.max() >= vocabulary:
                raise LlamaError(f"tokens {int(ids.min())} to {int(ids.max())} exceed the vocabulary of {vocabulary}")
        last = int(times[-1])


def cut_pieces(pieces: Sequence[Piece], first_wanted: int, batch_tokens: int, rows_at_once: int) -> list[Piece]:
    """Cut the pieces so that no step exceeds the batch, nor the rows of logits that are held at once.

    first_wanted: the logits of this token and all after it are wanted.
    """
    steps = []
    for piece in pieces:
        at = piece.start
        while at < piece.stop:
            end = min(piece.stop, at + batch_tokens, max(at, first_wanted) + rows_at_once)
            part = None if piece.embeddings is None else piece.embeddings[at - piece.start : end - piece.start]
            steps.append(Piece(at, end, part))
            at = end
    return steps
