"""Examples become training rows: all questions about an image in one row, each seeing the image and itself only.

A row is a shared prefix (system text, images) followed by branches, one per question with its answer. A branch's
positions go on where the prefix ends and its tokens attend to the prefix and to the branch: what the model computes is
exactly the single question as it will be asked later, while the image is encoded once. Loss falls on each answer and
the end of its turn. Knows no trainer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from ..evaluation.dataset import Dataset
from ..evaluation.example import Example, ImageRef
from ..evaluation.prompting import messages_for, target_for
from ..runtime.messages import ImagePart, assistant
from ..runtime.preprocessing import PixelRules, resize
from ..runtime.prompt import Prompt, Prompter

UNLABELLED = -100
"""The label of a token that carries no loss, as transformers names it."""
PREFIX = -1
"""The branch of a token that every question of the row sees."""


class SftDataError(InfimedError):
    """Examples that no training row can be made of."""


@dataclass(frozen=True, eq=False)
class Row:
    """One sequence to train on.

    token_ids, branches, labels: (tokens,), int64. positions: (3, tokens). branches: PREFIX, else the question's number.
    labels: the token itself where it carries loss, else UNLABELLED. images: in the order of their tokens; their pixels
    stay in the ImageStore. tasks: of its questions.
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    branches: NDArray[np.int64]
    labels: NDArray[np.int64]
    images: tuple[ImageRef, ...]
    tasks: frozenset[str]

    @property
    def questions(self) -> int:
        """How many questions the row asks."""
        return int(self.branches.max()) + 1


def pack(examples: Sequence[Example], most: int, seed: int) -> list[tuple[Example, ...]]:
    """Divide examples into packs of at most `most` with the same images; examples without an image stay alone.

    An image with more questions than that gets packs of nearly equal size. Which questions share one is drawn once, by
    `seed`; the order of packs is that of their images.
    """
    groups: dict[object, list[Example]] = {}
    for example in examples:
        shown = _shown(example)
        groups.setdefault(shown or example.id, []).append(example)
    draw = random.Random(seed)
    packs: list[tuple[Example, ...]] = []
    for group in groups.values():
        draw.shuffle(group)
        count = math.ceil(len(group) / most)
        packs += [tuple(group[number::count]) for number in range(count)]
    return packs


class ImageStore:
    """Gives the images of a dataset at their final size.

    cache_bytes: how much is kept in memory; what finds no room is read again each time.
    """

    def __init__(self, dataset: Dataset, rules: PixelRules, cache_bytes: int = 1 << 30) -> None:
        self.rules = rules
        self._dataset = dataset
        self._room_bytes = cache_bytes
        self._images: dict[str, ImagePart] = {}

    def part(self, ref: ImageRef) -> ImagePart:
        """Return an image as a prompt takes it; resizing it once more changes nothing."""
        if ref.sha256 in self._images:
            return self._images[ref.sha256]
        part = ImagePart(resize(self._dataset.image(ref), self.rules))
        if part.rgb.nbytes <= self._room_bytes:
            self._room_bytes -= part.rgb.nbytes
            self._images[ref.sha256] = part
        return part


class RowMaker:
    """Makes rows through the one pixel path and the one token path. most_tokens: longer rows are refused."""

    def __init__(self, images: ImageStore, prompter: Prompter, most_tokens: int) -> None:
        self._store = images
        self._prompter = prompter
        self._most_tokens = most_tokens
        self._end: int | None = None

    def row(self, examples: Sequence[Example]) -> Row:
        """Return the row of a pack. Raises SftDataError naming the example that does not fit."""
        parts = [self._store.part(ref) for ref in examples[0].images]
        prompts = [self._prompter.prompt(messages_for(example, parts)) for example in examples]
        replies = [self._reply(example, parts, prompt) for example, prompt in zip(examples, prompts, strict=True)]
        shared = _shared_prefix(prompts)
        tokens, positions = [prompts[0].token_ids[:shared]], [prompts[0].positions[:, :shared]]
        branches, labels = [np.full(shared, PREFIX)], [np.full(shared, UNLABELLED)]
        for number, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            asked = len(prompt.token_ids) - shared
            tokens += [prompt.token_ids[shared:], reply]
            after = np.arange(prompt.next_position, prompt.next_position + len(reply))
            positions += [prompt.positions[:, shared:], np.tile(after, (3, 1))]
            branches.append(np.full(asked + len(reply), number))
            labels += [np.full(asked, UNLABELLED), reply]
        row = Row(
            np.concatenate(tokens),
            np.concatenate(positions, axis=1),
            np.concatenate(branches),
            np.concatenate(labels),
            examples[0].images,
            frozenset(example.task for example in examples),
        )
        if len(row.token_ids) > self._most_tokens:
            raise SftDataError(
                f"example {examples[0].id!r}: {len(examples)} question(s) make {len(row.token_ids)} tokens, "
                f"max_tokens is {self._most_tokens}; raise it, or lower questions_per_row or max_pixels"
            )
        return row

    def _reply(self, example: Example, parts: Sequence[ImagePart], prompt: Prompt) -> NDArray[np.int64]:
        """Return the tokens of an example's answer and of the end of its turn."""
        answer = self._prompter.encode(target_for(example))
        if not answer:
            raise SftDataError(f"example {example.id!r}: its answer has no tokens; leave it out")
        if self._end is None:
            told = [*messages_for(example, parts), assistant(target_for(example))]
            whole = self._prompter.prompt(told, reply_follows=False).token_ids
            reply = whole[len(prompt.token_ids) :]
            if list(reply[: len(answer)]) != answer or int(reply[len(answer)]) not in self._prompter.end_ids:
                raise SftDataError("the chat template ends no reply with an end-of-turn token; it cannot be trained")
            self._end = int(reply[len(answer)])
        return np.array([*answer, self._end], dtype=np.int64)


def _shown(example: Example) -> tuple[str, ...]:
    """Return what an example shows up to its last image, images by hash; empty where it shows none."""
    last = max((i for i, part in enumerate(example.content) if isinstance(part, ImageRef)), default=-1)
    return tuple(part.sha256 if isinstance(part, ImageRef) else part.text for part in example.content[: last + 1])


def _shared_prefix(prompts: Sequence[Prompt]) -> int:
    """Return how many tokens all prompts begin with; at least one token of each is left to its branch."""
    most = min(len(prompt.token_ids) for prompt in prompts) - 1
    first = prompts[0].token_ids[:most]
    for prompt in prompts[1:]:
        differs = np.flatnonzero(prompt.token_ids[:most] != first[:most])
        most = int(differs[0]) if len(differs) else most
    ends = [image.start + image.tokens for prompt in prompts for image in prompt.images]
    if ends and most < max(ends):
        raise SftDataError("the questions of one image do not share what stands before it; set questions_per_row = 1")
    return most
