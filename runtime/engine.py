"""The Engine protocol: what every engine answers, in types that serialise.

Engines reduce before they reply (option log-probabilities, top tokens, distances); whole rows of logits leave an
engine only through `logits`, which exists for parity. Knows no engine and no file format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from .likelihood import Likelihood, log_shares, option_values
from .messages import Message


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

    def values(self, likelihood: Likelihood = "per token") -> NDArray[np.float64]:
        """Return one value per option in nats, as `likelihood.option_values` has it."""
        return option_values(
            [one.logprob_nats for one in self.options], [one.tokens for one in self.options],
            [one.option for one in self.options], likelihood,
        )  # fmt: skip

    def probabilities(self, likelihood: Likelihood = "per token") -> NDArray[np.float64]:
        """Return the softmax over the options' values; it sums to 1."""
        return np.asarray(np.exp(log_shares(self.values(likelihood))))

    def choice(self, likelihood: Likelihood = "per token") -> str:
        """Return the likeliest option; the first of equals."""
        return self.options[int(self.values(likelihood).argmax())].option


class RequestError(InfimedError):
    """What was asked of an engine makes no sense, whatever the engine."""


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn. temperature 0 is greedy; `seed` makes any other repeatable on one engine.

    Raises RequestError for a temperature that is negative or no number, a top_p outside 0..1, a negative count or seed.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise RequestError(f"a temperature of {self.temperature} was given; 0 (greedy) or a positive number needed")
        if not 0 <= self.top_p <= 1:
            raise RequestError(f"a top_p of {self.top_p} was given; it is a share of probability, 0 to 1")
        if self.max_tokens < 0 or self.seed < 0:
            raise RequestError(f"{self.max_tokens} tokens and seed {self.seed} were given; neither can be negative")


def check_choice(question: str, options: Sequence[str]) -> None:
    """Refuse a choice that is none: no question, fewer than two options, a blank one, or one twice.

    Surrounding spaces do not count: an option given twice would share its likelihood with itself. Raises RequestError.
    """
    if not question.strip():
        raise RequestError("the question is empty; options are likely or not as the answer to a question")
    if len(options) < 2:
        raise RequestError(f"{len(options)} option(s) given; at least two are needed to choose")
    seen: set[str] = set()
    for option in options:
        if not option.strip():
            raise RequestError(f"option {option!r} is blank; remove it")
        if option.strip() in seen:
            raise RequestError(f"option {option.strip()!r} is given twice; remove one")
        seen.add(option.strip())


@dataclass(frozen=True)
class Completion:
    """A generated reply. finish: "stop" (end of turn or a stop string) or "length".

    end_id: the token that ended the turn, which is none of token_ids; None where no such token came.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs_nats: tuple[float, ...]
    finish: Literal["stop", "length"]
    prompt_tokens: int
    reused_tokens: int
    end_id: int | None = None


@dataclass(frozen=True)
class TopToken:
    """One of the likeliest next tokens."""

    token_id: int
    text: str
    logprob_nats: float


@dataclass(frozen=True, eq=False)
class TokenLogprobs:
    """What an engine holds likely at one place of a given continuation: some tokens by name, all others in sum.

    token_ids: (n,), int64; logprobs_nats: (n,), float64, at temperature 1. rest_nats: log of the others' probability
    together, -inf where there are none. rest_entropy_nats: entropy of the others among themselves. rest_lowest_nats:
    log-probability of the least likely of them. likeliest: the token of the largest log-probability, the first of
    equals.
    """

    token_ids: NDArray[np.int64]
    logprobs_nats: NDArray[np.float64]
    rest_nats: float
    rest_entropy_nats: float
    rest_lowest_nats: float
    likeliest: int


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
    """Names what an engine holds: the images of some messages. Valid until released, in the engine that gave it.

    engine: a random name of that engine. tokens: of the messages, images included.
    """

    engine: str
    id: int
    tokens: int


class Engine(Protocol):
    """A model at one level, ready to answer. One engine serves one caller at a time."""

    level: str

    def hold(self, messages: Sequence[Message]) -> PrefixHandle:
        """Take in messages, and keep their images encoded until the handle is released.

        Of texts an engine keeps those of its latest prompt, held or not: a prompt that begins as the latest one did is
        computed from where they part. So an image is worth holding always, a conversation while it is the latest.
        """

    def release(self, prefix: PrefixHandle) -> None:
        """Let go of what was held; its images stay encoded only as long as there is room."""

    def score(self, messages: Sequence[Message], options: Sequence[str], prefix: PrefixHandle | None = None) -> Scores:
        """Return each option's likelihood as the reply to `messages`.

        prefix: what the messages begin with, if it is held; the answer is the same without. A handle that this engine
        did not give or has released is refused. At least two options, none blank, none twice.
        """

    def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling = Sampling(),
        prefix: PrefixHandle | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Return a reply; `on_text` receives its text piece by piece as it appears. prefix: as for `score`."""

    def top_tokens(self, messages: Sequence[Message], count: int) -> tuple[TopToken, ...]:
        """Return the `count` likeliest first tokens of a reply, the likeliest first."""

    def logits(self, messages: Sequence[Message], continuation: Sequence[int] = ()) -> NDArray[np.float32]:
        """Return the rows that predict continuation[0], ..., and what follows it: (1 + len(continuation), vocab)."""

    def continuation_logprobs(
        self, messages: Sequence[Message], continuation: Sequence[int], at: int | Sequence[Sequence[int]]
    ) -> tuple[TokenLogprobs, ...]:
        """Return what is likely at each token of a given continuation, the tokens before it being given.

        The first entry is of what predicts continuation[0]. at: how many of the likeliest tokens to name, the
        likeliest first, or for each place the tokens to name, in that order. A token that the model does not have, or
        one twice, is refused.
        """

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
