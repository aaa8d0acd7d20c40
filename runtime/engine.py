"""The Engine protocol: what every engine answers, in types that serialise.

Engines reduce before they reply (option log-probabilities, top tokens, distances); whole rows of logits leave an
engine only through `logits`, which exists for parity. Knows no engine and no file format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .messages import Message

Normalisation = Literal["token", "sum"]


@dataclass(frozen=True)
class OptionScore:
    """How likely one option is as the reply.

    logprob_nats: sum of log p(token | prompt, earlier tokens) over the option's tokens. tokens: their number.
    """

    option: str
    logprob_nats: float
    tokens: int


@dataclass(frozen=True)
class Scores:
    """The options of one question with their likelihoods, in the order they were given."""

    options: tuple[OptionScore, ...]
    prompt_tokens: int
    reused_tokens: int

    def values(self, normalisation: Normalisation = "token") -> NDArray[np.float64]:
        """Return one score per option in nats: per token (the default) or summed."""
        return np.array(
            [o.logprob_nats / max(o.tokens, 1) if normalisation == "token" else o.logprob_nats for o in self.options]
        )

    def probabilities(self, normalisation: Normalisation = "token") -> NDArray[np.float64]:
        """Return the softmax over the options' scores; it sums to 1."""
        values = self.values(normalisation)
        weights = np.exp(values - values.max())
        return np.asarray(weights / weights.sum())

    def choice(self, normalisation: Normalisation = "token") -> str:
        """Return the likeliest option; the first of equals."""
        return self.options[int(self.values(normalisation).argmax())].option


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn. temperature 0 is greedy; `seed` makes any other repeatable on one engine."""

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """A generated reply. finish: "stop" (end of turn or a stop string) or "length"."""

    text: str
    token_ids: tuple[int, ...]
    logprobs_nats: tuple[float, ...]
    finish: Literal["stop", "length"]
    prompt_tokens: int
    reused_tokens: int


@dataclass(frozen=True)
class TopToken:
    """One of the likeliest next tokens."""

    token_id: int
    text: str
    logprob_nats: float


@dataclass(frozen=True)
class Distance:
    """How far an engine's rows of logits lie from a stored reference's.

    kl_mean_nats, kl_max_nats: KL(reference || engine) over rows. top1: share of rows with the same likeliest token.
    top1_decided: the same over the `decided` rows whose two largest reference logits differ by more than a stated gap.
    """

    rows: int
    kl_mean_nats: float
    kl_max_nats: float
    top1: float
    decided: int
    top1_decided: float


@dataclass(frozen=True)
class PrefixHandle:
    """Names a prefix (an image, a conversation) that an engine has taken in; valid until the engine closes."""

    id: int
    tokens: int


class Engine(Protocol):
    """A model at one level, ready to answer. One engine serves one caller at a time."""

    level: str

    def hold(self, messages: Sequence[Message]) -> PrefixHandle:
        """Take in messages whose last one may be unfinished, and keep them for prompts that begin the same."""

    def score(self, messages: Sequence[Message], options: Sequence[str], prefix: PrefixHandle | None = None) -> Scores:
        """Return each option's likelihood as the reply to `messages`."""

    def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling = Sampling(),
        prefix: PrefixHandle | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Return a reply; `on_text` receives its text piece by piece as it appears."""

    def top_tokens(self, messages: Sequence[Message], count: int) -> tuple[TopToken, ...]:
        """Return the `count` likeliest first tokens of a reply, the likeliest first."""

    def logits(self, messages: Sequence[Message], continuation: Sequence[int] = ()) -> NDArray[np.float32]:
        """Return the rows that predict continuation[0], ..., and what follows it: (1 + len(continuation), vocab)."""

    def prompt_logits(self, messages: Sequence[Message]) -> NDArray[np.float32]:
        """Return every row of the prompt's logits: (prompt tokens, vocab). For parity."""

    def image_embeddings(self, messages: Sequence[Message]) -> tuple[NDArray[np.float32], ...]:
        """Return what the vision tower makes of each image: (image tokens, hidden) each. For parity."""

    def distance(
        self, messages: Sequence[Message], continuation: Sequence[int], reference: NDArray[np.float32], gap: float
    ) -> Distance:
        """Return the distance of `logits(messages, continuation)` to a stored reference of the same shape."""

    def close(self) -> None:
        """Give back the engine's memory."""
