"""What an engine answers to the golden prompts, kept on the disk, so that no two engines are in memory together.

Per prompt: image embeddings, rows of the prompt's logits, the rows that predict the stored reply, and the engine's own
greedy reply. Sees engines only through their protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtime.distance import ComparedRows, compare_rows
from ..runtime.engine import Engine, Sampling
from ..runtime.events import Event, OnEvent, ignore
from .parity import GAP_LOGITS, REPLY_TOKENS, Reference

ROWS_BYTES = 64 << 20
"""Of one prompt's logits at most this much is kept: rows evenly spread, the last one among them."""


@dataclass(frozen=True, eq=False)
class Answer:
    """One prompt's. embeddings: (image tokens, hidden) per image. prompt: (rows, vocab). reply: (1 + tokens, vocab).

    greedy: the engine's own reply, token by token.
    """

    embeddings: tuple[NDArray[np.float32], ...]
    prompt: NDArray[np.float32]
    reply: NDArray[np.float32]
    greedy: tuple[int, ...]


@dataclass(frozen=True)
class Answers:
    """All answers of one engine, in a folder, in the order of the prompts."""

    folder: Path
    count: int

    def __getitem__(self, index: int) -> Answer:
        if not 0 <= index < self.count:
            raise IndexError(index)
        with np.load(self.folder / f"{index}.npz", allow_pickle=False) as stored:
            images = int(stored["images"])
            return Answer(
                tuple(stored[f"image{number}"] for number in range(images)),
                stored["prompt"],
                stored["reply"],
                tuple(int(token) for token in stored["greedy"]),
            )

    def __len__(self) -> int:
        return self.count


def take_answers(
    engine: Engine, references: Sequence[Reference], folder: Path, stage: str, on_event: OnEvent = ignore
) -> Answers:
    """Ask an engine every golden prompt. stage: what the events call it."""
    folder.mkdir(parents=True)
    for index, reference in enumerate(references):
        messages = reference.probe.messages
        embeddings = engine.image_embeddings(messages)
        whole = engine.prompt_logits(messages)
        width = reference.rows.shape[1]
        keep = max(1, min(len(whole), ROWS_BYTES // (4 * width)))
        places = np.linspace(len(whole) - 1, 0, keep).astype(np.int64)[::-1]
        np.savez(
            folder / f"{index}.npz",
            images=np.array(len(embeddings)),
            prompt=whole[places, :width],
            reply=engine.logits(messages, reference.continuation)[:, :width],
            greedy=np.array(engine.generate(messages, Sampling(max_tokens=REPLY_TOKENS)).token_ids, dtype=np.int64),
            **{f"image{number}": made for number, made in enumerate(embeddings)},  # type: ignore[arg-type]
        )
        on_event(Event(stage, index + 1, len(references), "prompts"))
    return Answers(folder, len(references))


@dataclass(frozen=True, eq=False)
class Gap:
    """How far one engine's answers lie from another's.

    vision: largest difference of an embedding, relative to the largest value of the other's; None where no prompt holds
    an image. prompt, reply: their rows, compared. logits: root mean square of the difference of two rows' logits, each
    about its mean, relative to that of the reference's. greedy: index of the first prompt whose replies differ where
    the rows decide, None where none does.
    """

    vision: float | None
    prompt: tuple[ComparedRows, ...]
    reply: tuple[ComparedRows, ...]
    logits: float
    greedy: int | None


def compare_answers(reference: Answers, other: Answers) -> Gap:
    """Hold an engine's answers against another's to the same prompts."""
    apart: list[float] = []
    prompt, reply = [], []
    differ = size = 0.0
    greedy = None
    for index in range(len(reference)):
        ours, theirs = other[index], reference[index]
        for made, wanted in zip(ours.embeddings, theirs.embeddings, strict=True):
            apart.append(float(np.abs(made - wanted).max() / np.abs(wanted).max()))
        prompt.append(compare_rows(theirs.prompt, ours.prompt, GAP_LOGITS))
        reply.append(compare_rows(theirs.reply, ours.reply, GAP_LOGITS))
        for given, wanted in ((ours.prompt, theirs.prompt), (ours.reply, theirs.reply)):
            differ += float(np.square(centred(given) - centred(wanted)).sum())
            size += float(np.square(centred(wanted)).sum())
        if greedy is None and not _same_reply(theirs, ours):
            greedy = index
    # numpy's maximum keeps NaN, which Python's may lose
    seen = float(np.max(apart)) if apart else None
    return Gap(seen, tuple(prompt), tuple(reply), (differ / size) ** 0.5 if size else 0.0, greedy)


def centred(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return rows of logits about their means: what a softmax sees of them."""
    wide = rows.astype(np.float64)
    return np.asarray(wide - wide.mean(axis=-1, keepdims=True))


def _same_reply(reference: Answer, other: Answer) -> bool:
    """Whether two greedy replies agree up to where the reference's own rows no longer decide.

    The rows are those of the stored reply: they speak of a greedy reply only as far as it is the stored one, so a first
    difference that lies behind that point says nothing either way and counts as equal.
    """
    if reference.greedy == other.greedy:
        return True
    pairs = list(zip(reference.greedy, other.greedy, strict=False))
    first = next((place for place, (one, two) in enumerate(pairs) if one != two), len(pairs))
    if first >= len(reference.reply):
        return True
    row = np.sort(reference.reply[first].astype(np.float64))
    return bool(row[-1] - row[-2] <= GAP_LOGITS)
