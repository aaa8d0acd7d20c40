"""Makes an engine of a backend: prompts, prefix reuse, option likelihoods, generation, stop strings.

Written once for every engine. What is reused from an earlier prompt ends at the prompt's own boundaries, and every
prompt is computed in the same steps whether or not something was reused: so a warm engine answers bit for bit what a
cold one does. Knows no inference library.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from .backend import Backend, Placed
from .distance import distance, log_softmax, token_logprobs
from .engine import (
    Completion,
    Distance,
    OptionScore,
    PrefixHandle,
    Sampling,
    Scores,
    TokenLogprobs,
    TopToken,
    check_choice,
)
from .image_store import ImageStore
from .messages import Message, TextPart
from .prompt import PreparedImage, Prompt, Prompter
from .sampling import pick_token, visible_text

IMAGE_CACHE_BYTES = 256 * 2**20


class EngineError(InfimedError):
    """The engine cannot answer this request."""


class Decoder:
    """An Engine over one backend. See runtime/engine.py for what each method promises.

    images: where embeddings are shared with other levels that have the same vision tower, if they are.
    """

    def __init__(
        self,
        backend: Backend,
        prompter: Prompter,
        level: str,
        image_cache_bytes: int = IMAGE_CACHE_BYTES,
        images: ImageStore | None = None,
    ) -> None:
        self.level = level
        self.backend = backend
        self.prompter = prompter
        self._cells: list[int | str] = []
        self._embeddings: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._cache_bytes = image_cache_bytes
        self._store = images
        # A handle may have been pickled or kept from another run: a random name tells whose it is.
        self._name = secrets.token_hex(8)
        self._held: dict[int, frozenset[str]] = {}
        self._handles = count()

    def hold(self, messages: Sequence[Message]) -> PrefixHandle:
        """Take in messages and keep their images encoded until the handle is released, as far as the cache has room."""
        prompt = self.prompter.prompt(messages, reply_follows=False)
        self._check_room(prompt, 0)
        handle = PrefixHandle(self._name, next(self._handles), len(prompt.token_ids))
        self._held[handle.id] = frozenset(image.key for image in prompt.images)
        try:
            self._take_in(prompt, want=1)
            # Taking in skips images whose cells are there already; their embeddings may be gone.
            for image in prompt.images:
                self._embed(image)
            held_bytes = sum(self._embeddings[key].nbytes for key in self._pinned())
            if held_bytes > self._cache_bytes:
                raise EngineError(
                    f"the images held would take {held_bytes:,} bytes, the cache has {self._cache_bytes:,}; release a "
                    "handle first"
                )
        except BaseException:
            del self._held[handle.id]
            raise
        return handle

    def release(self, prefix: PrefixHandle) -> None:
        """Let go of a handle's images: they stay encoded only as long as there is room."""
        self._check_handle(prefix)
        del self._held[prefix.id]
        self._make_room()

    def score(self, messages: Sequence[Message], options: Sequence[str], prefix: PrefixHandle | None = None) -> Scores:
        """Return each option's log-likelihood: one pass over the prompt, then each option's own tokens."""
        check_choice(_last_text(messages), options)
        for option in options:
            self.prompter.check_text(option)
        self._check_handle(prefix)
        prompt = self.prompter.prompt(messages)
        coded = [self.prompter.encode(option) for option in options]
        if empty := [option for option, ids in zip(options, coded, strict=True) if not ids]:
            raise EngineError(f"option {empty[0]!r} has no tokens; remove it")
        self._check_room(prompt, max(map(len, coded)))
        last, reused = self._take_in(prompt, want=1)
        first = log_softmax(last)[0]
        scored = []
        for option, ids in zip(options, coded, strict=True):
            logprob = float(first[ids[0]])
            if len(ids) > 1:
                rows = log_softmax(self._continue(prompt, ids[:-1], want=len(ids) - 1))
                logprob += float(sum(rows[row, token] for row, token in enumerate(ids[1:])))
            scored.append(OptionScore(option, logprob, len(ids)))
        return Scores(tuple(scored), prompt_tokens=len(prompt.token_ids), reused_tokens=reused)

    def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling = Sampling(),
        prefix: PrefixHandle | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Return a reply token by token, until the turn ends, a stop string appears or max_tokens are made."""
        self._check_handle(prefix)
        prompt = self.prompter.prompt(messages)
        self._check_room(prompt, sampling.max_tokens)
        row, reused = self._take_in(prompt, want=1)
        random = np.random.default_rng(sampling.seed)
        ids: list[int] = []
        logprobs: list[float] = []
        told = ""
        finish, end_id = "length", None
        position = prompt.next_position
        while len(ids) < sampling.max_tokens:
            token, logprob = pick_token(row[-1], sampling, random)
            if token in self.prompter.end_ids:
                finish, end_id = "stop", token
                break
            ids.append(token)
            logprobs.append(logprob)
            text, stopped = visible_text(self.prompter.decode(ids), sampling.stop)
            if on_text and len(text) > len(told) and text.startswith(told):
                on_text(text[len(told) :])
                told = text
            if stopped:
                finish = "stop"
                break
            if len(ids) < sampling.max_tokens:
                row = self.backend.extend(
                    np.array([token]), np.full((3, 1), position + len(ids) - 1, dtype=np.int64), (), 1
                )
        text, stopped = visible_text(self.prompter.decode(ids), sampling.stop, final=True)
        if on_text and len(text) > len(told):
            on_text(text[len(told) :])
        self.backend.truncate(len(prompt.token_ids), prompt.next_position)
        return Completion(
            text, tuple(ids), tuple(logprobs), "stop" if finish == "stop" else "length", len(prompt.token_ids), reused,
            end_id,
        )  # fmt: skip

    def top_tokens(self, messages: Sequence[Message], count: int) -> tuple[TopToken, ...]:
        """Return the likeliest first tokens of a reply."""
        row = log_softmax(self.logits(messages))[0]
        order = np.argsort(-row, kind="stable")[:count]
        return tuple(TopToken(int(i), self.prompter.token_text(int(i)), float(row[i])) for i in order)

    def logits(self, messages: Sequence[Message], continuation: Sequence[int] = ()) -> NDArray[np.float32]:
        """Return the rows that predict each token of the continuation and the one after it."""
        prompt = self.prompter.prompt(messages)
        self._check_room(prompt, len(continuation))
        last, _ = self._take_in(prompt, want=1)
        if not continuation:
            return last
        return np.concatenate([last, self._continue(prompt, list(continuation), want=len(continuation))])

    def continuation_logprobs(
        self, messages: Sequence[Message], continuation: Sequence[int], at: int | Sequence[Sequence[int]]
    ) -> tuple[TokenLogprobs, ...]:
        """Return what is likely at each token of a continuation: one pass, then row by row in float64."""
        if not continuation:
            return ()
        places: list[int | Sequence[int]] = (
            [at] * len(continuation) if isinstance(at, int) else [list(named) for named in at]
        )
        if len(places) != len(continuation):
            raise EngineError(f"tokens were named for {len(places)} places of a continuation of {len(continuation)}")
        if isinstance(at, int) and at < 1:
            raise EngineError(f"the {at} likeliest tokens were asked for; at least 1 is needed")
        for named in (continuation, *(place for place in places if not isinstance(place, int))):
            if wrong := [token for token in named if not 0 <= token < self.backend.vocab_size]:
                raise EngineError(f"token {wrong[0]} is none of this model's {self.backend.vocab_size}")
            if named is not continuation and len(set(named)) != len(named):
                raise EngineError(f"a token is named twice among {list(named)[:8]}; name it once")
        rows = self.logits(messages, continuation[:-1])
        return tuple(token_logprobs(row, place) for row, place in zip(rows, places, strict=True))

    def prompt_logits(self, messages: Sequence[Message]) -> NDArray[np.float32]:
        """Return every row of the prompt's logits, computed afresh."""
        prompt = self.prompter.prompt(messages)
        self._check_room(prompt, 0)
        self._forget()
        rows, _ = self._take_in(prompt, want=len(prompt.token_ids))
        return rows

    def image_embeddings(self, messages: Sequence[Message]) -> tuple[NDArray[np.float32], ...]:
        """Return the vision tower's output for each image of the messages."""
        return tuple(self._embed(image) for image in self.prompter.prompt(messages).images)

    def distance(
        self, messages: Sequence[Message], continuation: Sequence[int], reference: NDArray[np.float32], gap: float
    ) -> Distance:
        """Return how far this engine's rows lie from the reference's."""
        return distance(reference, self.logits(messages, continuation), gap)

    def close(self) -> None:
        """Give back the backend's memory."""
        self._embeddings.clear()
        self.backend.close()

    def _check_handle(self, prefix: PrefixHandle | None) -> None:
        if prefix is not None and (prefix.engine != self._name or prefix.id not in self._held):
            raise EngineError(f"prefix {prefix.id} is not held by this engine; call hold first, or go on without it")

    def _check_room(self, prompt: Prompt, more: int) -> None:
        needed, room = len(prompt.token_ids) + more, self.backend.context_tokens
        if needed > room:
            raise EngineError(f"the prompt and its reply need {needed} tokens, the context holds {room}; shorten them")

    def _forget(self) -> None:
        self._cells = []
        self.backend.truncate(0, 0)

    def _take_in(self, prompt: Prompt, want: int) -> tuple[NDArray[np.float32], int]:
        """Bring the sequence to `prompt`; return the logits of its last `want` tokens and how many were reused."""
        cells = _cells(prompt)
        total = len(cells)
        same = 0
        while same < min(len(self._cells), total) and self._cells[same] == cells[same]:
            same += 1
        keep = max((cut for cut in prompt.boundaries if cut <= min(same, total - want)), default=0)
        self._cells = []  # if the backend fails midway nothing of the sequence is trusted
        self.backend.truncate(keep, _position(prompt, keep))
        rows: list[NDArray[np.float32]] = []
        cuts = [keep, *(cut for cut in prompt.boundaries if cut > keep), total]
        for start, stop in pairwise(cuts):
            placed = [
                Placed(image.start - start, self._embed(image))
                for image in prompt.images
                if start <= image.start < stop
            ]
            wanted = max(0, stop - max(start, total - want))
            rows.append(
                self.backend.extend(prompt.token_ids[start:stop], prompt.positions[:, start:stop], placed, wanted)
            )
        self._cells = cells
        return np.concatenate(rows)[-want:], keep

    def _continue(self, prompt: Prompt, ids: list[int], want: int) -> NDArray[np.float32]:
        """Return logits of tokens after the prompt, and bring the sequence back to the prompt."""
        positions = np.tile(np.arange(prompt.next_position, prompt.next_position + len(ids)), (3, 1))
        rows = self.backend.extend(np.array(ids, dtype=np.int64), positions, (), want)
        self.backend.truncate(len(prompt.token_ids), prompt.next_position)
        return rows

    def _embed(self, image: PreparedImage) -> NDArray[np.float32]:
        if image.key in self._embeddings:
            self._embeddings.move_to_end(image.key)
            return self._embeddings[image.key]
        made = self._store.get(image.key) if self._store else None
        if made is None:
            made = self.backend.encode_image(image)
            if self._store:
                self._store.put(image.key, made)
        if made.shape[0] != image.tokens:
            raise EngineError(f"the vision tower gave {made.shape[0]} tokens for an image of {image.tokens}")
        self._embeddings[image.key] = made
        self._make_room(keep=image.key)
        return made

    def _make_room(self, keep: str = "") -> None:
        """Forget embeddings of images that nobody holds, the longest unused first, until the rest fits the cache."""
        pinned = self._pinned()
        for key in [key for key in self._embeddings if key not in pinned and key != keep]:
            if sum(value.nbytes for value in self._embeddings.values()) <= self._cache_bytes:
                break
            del self._embeddings[key]

    def _pinned(self) -> frozenset[str]:
        return frozenset[str]().union(*self._held.values())


def _last_text(messages: Sequence[Message]) -> str:
    """Return the texts of the last message: the question."""
    return "".join(part.text for part in messages[-1].parts if isinstance(part, TextPart)) if messages else ""


def _cells(prompt: Prompt) -> list[int | str]:
    """Return the sequence with each image token named by its image: equal cells are equal inputs."""
    cells: list[int | str] = [int(token) for token in prompt.token_ids]
    for image in prompt.images:
        for index in range(image.tokens):
            cells[image.start + index] = f"{image.key}:{index}"
    return cells


def _position(prompt: Prompt, index: int) -> int:
    """Return the position at which token `index` begins: an image's own start, not its rows or columns."""
    return int(prompt.positions[0, index]) if index < len(prompt.token_ids) else prompt.next_position
