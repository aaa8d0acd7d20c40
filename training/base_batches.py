"""The base model's training data: batch n is a pure function of the recipe, so a run can stop and go on anywhere.

Pictures and questions are made in a process of their own, a few batches ahead of the trainer. Knows no torch.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..evaluation.phantom_canvas import SIZE_PX
from ..evaluation.phantom_images import Phantom, kinds_named, phantom
from ..evaluation.phantom_questions import CAPTION, Question, caption, questions
from ..runtime.messages import ImagePart, TextPart, user
from ..runtime.preprocessing import PixelRules
from ..runtime.prompt import Prompter
from .dense import DenseTargets, dense_targets

IGNORED = -100
ROW_TOKENS = 320  # rows are filled up to about this length
AHEAD = 3  # batches made before they are asked for


@dataclass(frozen=True)
class BatchPlan:
    """Which pictures and questions a batch holds. seed: of the phantoms. asked: task -> share of its questions put."""

    seed: int
    images: int
    kinds: tuple[str, ...]
    rules: PixelRules
    asked: Mapping[str, float]


@dataclass(frozen=True)
class TextRows:
    """The questions of a batch in rows, one or more images to a row, so that little of a row is padding.

    An image is one shared beginning (system, image) and then blocks, one a question, that do not see each other.
    token_ids, targets: (rows, width), int64; targets hold the next token where it is part of an answer, else IGNORED.
    positions: (3, rows, width), int64. images: (rows, width), number of the image, -1 padding. blocks: (rows, width), 0
    the beginning, 1.. the questions. order: the images' numbers in the order in which the rows hold them.
    """

    token_ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    positions: NDArray[np.int64]
    images: NDArray[np.int64]
    blocks: NDArray[np.int64]
    order: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Pictures (images, 112, 112, 3) uint8, what is true of them, and the questions; None in the dense stage."""

    rgb: NDArray[np.uint8]
    dense: DenseTargets
    rows: TextRows | None


class Packer:
    """Turns questions into rows of tokens: exactly the tokens and positions of one prompt per question."""

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._end = prompter.encode("<|im_end|>")
        self._blank = ImagePart(np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8))
        self.prompt = functools.lru_cache(maxsize=65536)(self._prompt)

    def _prompt(self, text: str, answer: str) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
        """Return ids, positions, where the question begins and where the answer begins, end of turn included."""
        prompt = self._prompter.prompt((user(self._blank, TextPart(text)),))
        reply = np.array([*self._prompter.encode(answer), *self._end], dtype=np.int64)
        tail = np.arange(prompt.next_position, prompt.next_position + len(reply))
        positions = np.concatenate((prompt.positions, np.broadcast_to(tail, (3, len(reply)))), axis=1)
        image = prompt.images[0]
        begins = image.start + image.tokens + 1  # the end-of-vision token belongs to the shared beginning
        return np.concatenate((prompt.token_ids, reply)), positions, begins, len(prompt.token_ids)

    def rows(self, asked: Sequence[Sequence[tuple[str, str]]]) -> TextRows:
        """Return the rows of a batch. asked: (question as put, answer) pairs of each image, at least one."""
        built = [self._row(pairs) for pairs in asked]
        shelves = _shelves([len(ids) for ids, *_ in built])
        width = max(sum(len(built[image][0]) for image in shelf) for shelf in shelves)
        count = len(shelves)
        rows = TextRows(
            np.zeros((count, width), np.int64),
            np.full((count, width), IGNORED, np.int64),
            np.zeros((3, count, width), np.int64),
            np.full((count, width), -1, np.int64),
            np.zeros((count, width), np.int64),
            np.array([image for shelf in shelves for image in shelf], np.int64),
        )
        for row, shelf in enumerate(shelves):
            at = 0
            for image in shelf:
                ids, targets, positions, blocks = built[image]
                here = slice(at, at := at + len(ids))
                rows.token_ids[row, here] = ids
                rows.targets[row, here] = targets
                rows.positions[:, row, here] = positions
                rows.images[row, here] = image
                rows.blocks[row, here] = blocks
        return rows

    def _row(self, pairs: Sequence[tuple[str, str]]) -> tuple[NDArray[np.int64], ...]:
        ids, targets, positions, blocks = [], [], [], []
        for number, (text, answer) in enumerate(pairs, 1):
            own_ids, own_positions, begins, answer_at = self.prompt(text, answer)
            following = np.append(own_ids[1:], IGNORED)
            following[: answer_at - 1] = IGNORED
            for first, last, block in ((0, begins, 0), (begins, len(own_ids), number)):
                if block or number == 1:
                    ids.append(own_ids[first:last])
                    targets.append(following[first:last])
                    positions.append(own_positions[:, first:last])
                    blocks.append(np.full(last - first, block))
        return np.concatenate(ids), np.concatenate(targets), np.concatenate(positions, axis=1), np.concatenate(blocks)


def _shelves(lengths: Sequence[int]) -> list[list[int]]:
    """Return which items share a row: first fit, longest first, rows as long as the longest item or ROW_TOKENS."""
    capacity = max(ROW_TOKENS, *lengths)
    shelves: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        shelf = next((index for index, left in enumerate(room) if left >= lengths[item]), None)
        if shelf is None:
            shelves.append([])
            room.append(capacity)
            shelf = len(room) - 1
        shelves[shelf].append(item)
        room[shelf] -= lengths[item]
    return shelves


def put(question: Question) -> str:
    """Return the question as examples of a dataset are put: the options of a choice on a line of their own."""
    if question.answer_type != "choice":
        return question.text
    return f"{question.text}\nOptions: {'; '.join(question.options)}"


def make_batch(plan: BatchPlan, packer: Packer | None, number: int) -> Batch:
    """Return batch `number` of a plan. packer: None in the dense stage, which asks nothing."""
    kinds = kinds_named(plan.kinds)
    phantoms = []
    for index in range(number * plan.images, (number + 1) * plan.images):
        phantoms.append(phantom(kinds[index % len(kinds)], plan.seed, index // len(kinds)))
    rgb = np.stack([one.rgb for one in phantoms])
    dense = dense_targets(phantoms, plan.kinds, plan.rules.patch_size, plan.rules.merge_size)
    if packer is None:
        return Batch(rgb, dense, None)
    rng = np.random.Generator(np.random.PCG64([plan.seed, 7, number]))
    return Batch(rgb, dense, packer.rows([_asked(rng, plan, one) for one in phantoms]))


def _asked(rng: np.random.Generator, plan: BatchPlan, one: Phantom) -> list[tuple[str, str]]:
    """Return what is asked about a phantom: each question by the share of its wording, else its task."""
    pairs = [(_share(plan, question), put(question), question.answer) for question in _of(plan, one)]
    pairs.append((plan.asked.get("caption", 0.0), CAPTION, caption(one)))
    kept = [(text, answer) for share, text, answer in pairs if rng.random() < share]
    return kept or [pairs[int(rng.integers(len(pairs)))][1:]]


def _of(plan: BatchPlan, one: Phantom) -> tuple[Question, ...]:
    return questions(one, kinds_named(plan.kinds))


def _share(plan: BatchPlan, question: Question) -> float:
    return plan.asked.get(question.wording, plan.asked.get(question.task, 0.0))


_PACKER: list[Packer | None] = [None]


def _start(folder: Path | None, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _PACKER[0] = None if folder is None else Packer(Prompter.open(folder))


def _end_with(parent: int) -> None:
    """End this process when the trainer is gone: a killed one cannot say so."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def _make(plan: BatchPlan, number: int) -> Batch:
    return make_batch(plan, _PACKER[0], number)


def batches(plan: BatchPlan, folder: Path | None, first: int, last: int) -> Iterator[Batch]:
    """Yield batches first..last-1, made AHEAD of time in another process.

    folder: holds tokenizer, template and pixel rules; None in the dense stage, which asks nothing.
    """
    from concurrent.futures import Future, ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, get_context("spawn"), _start, (folder, os.getpid())) as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for number in range(first, last):
                waiting.append(pool.submit(_make, plan, number))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
