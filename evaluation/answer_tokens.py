"""A reference's own reply, token by token, and how far a level lies from it when it is given the same tokens.

The reference answers greedily and keeps, at each token of its reply, the likeliest tokens with their log-probabilities
and of all others two numbers: their probability together and their entropy. A level is then given the very same tokens
(teacher forcing), and KL(reference || level) is measured at each of them without a row of either model's logits ever
being stored. Knows engines by their protocol; no run, no file.

What is measured and what can be missed. At one token let p be the reference, q the level, S the kept tokens, T all
others, p_T and q_T their probability together. Measured is

    K = sum over S of p log(p / q)  +  p_T log(p_T / q_T),

the KL divergence of the two once the tokens of T are counted as one. By the chain rule of relative entropy (Cover and
Thomas, Elements of Information Theory, theorem 2.5.3) KL(p || q) = K + p_T KL(p|T || q|T), so K is never above the
divergence of the whole rows. With H the entropy of p|T, kept by the reference, and q_low the level's smallest
probability in T, known to the level,

    KL(p|T || q|T) = -H - sum over T of p|T log q|T  <=  -H + log(q_T / q_low),

so the divergence is at most K + p_T (log q_T - log q_low - H). Both ends are kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from ..runtime.engine import Completion, Engine, Sampling, TokenLogprobs
from ..runtime.messages import Message
from .jsonform import FormError

TAIL = 1e-5
"""Tokens are kept, the likeliest first, until the others of the same place hold no more than this together."""
ENTRIES = 320
"""At most so many are kept of one reply (at least one at each token): those likeliest over all its places."""
RULES = f"kept: tail {TAIL:g}, at most {ENTRIES}"
"""What a reference's run is kept under; a run goes on only under the same."""
_DECIMALS = 9


class AnswerError(InfimedError):
    """A level that cannot be held against a reference's answer."""


@dataclass(frozen=True)
class KeptAnswer:
    """A reference's greedy reply and what it held likely at each token of it.

    token_ids: the reply's, (n,), the token that ended the turn included where one did. kept: how many tokens are kept
    at each place, (n,). top_ids, top_logprobs_nats: the kept tokens, place by place, the likeliest first. tail: the
    probability of all others together, 0..1; tail_entropy_nats: their entropy among themselves. All numbers are
    float32 values.
    """

    token_ids: tuple[int, ...]
    kept: tuple[int, ...]
    top_ids: tuple[int, ...]
    top_logprobs_nats: tuple[float, ...]
    tail: tuple[float, ...]
    tail_entropy_nats: tuple[float, ...]

    def __post_init__(self) -> None:
        places = len(self.token_ids)
        if not places or not len(self.kept) == len(self.tail) == len(self.tail_entropy_nats) == places:
            raise FormError(f"an answer of {places} tokens has {len(self.kept)}, {len(self.tail)} and "
                            f"{len(self.tail_entropy_nats)} values of its places")  # fmt: skip
        if min(self.kept) < 1 or not sum(self.kept) == len(self.top_ids) == len(self.top_logprobs_nats):
            raise FormError(f"an answer keeps {sum(self.kept)} tokens and names {len(self.top_ids)}")
        if min(*self.token_ids, *self.top_ids) < 0:
            raise FormError("an answer holds a token below 0")
        if max(self.top_logprobs_nats) > 1e-6 or not all(0 <= value <= 1.000001 for value in self.tail):
            raise FormError("an answer holds a probability above 1 or below 0")
        if any(len(set(named)) != len(named) for named in self.places()):
            raise FormError("an answer names a token twice at one place")

    def places(self) -> tuple[tuple[int, ...], ...]:
        """Return the kept tokens of each place."""
        ends = np.cumsum(self.kept).tolist()
        return tuple(self.top_ids[end - count : end] for end, count in zip(ends, self.kept, strict=True))

    def digest(self) -> str:
        """Return 16 hexadecimal digits that name this answer."""
        parts = (self.token_ids, self.kept, self.top_ids, self.top_logprobs_nats, self.tail, self.tail_entropy_nats)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ForcedAnswer:
    """A level at each token of a reference's reply.

    of: the digest of the reference's answer. kl_nats: KL(reference || level) as measured, never above the whole rows';
    missed_nats: what the whole rows' can be above it at most. same: whether the level's likeliest token is the
    reference's; where all are, the level's own greedy reply is the reference's, token for token.
    """

    of: str
    kl_nats: tuple[float, ...]
    missed_nats: tuple[float, ...]
    same: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not self.same or not len(self.kl_nats) == len(self.missed_nats) == len(self.same):
            raise FormError(f"an answer of {len(self.same)} tokens has {len(self.kl_nats)} divergences")


class AnswerRule(Protocol):
    """What is done with a reference's reply beside asking the question."""

    @property
    def mark(self) -> str:
        """What a run is made under; it goes on only under the same."""

    def for_run(self, suffix: str) -> AnswerRule | None:
        """Return the rule of a run whose name ends in `suffix` (".grey", ".blur-3"; empty for the plain run)."""

    def take(
        self, engine: Engine, example_id: str, messages: Sequence[Message], reply: Completion | None, max_tokens: int
    ) -> tuple[KeptAnswer | None, ForcedAnswer | None]:
        """Return what a row keeps. reply: the greedy one, where it was generated already."""


@dataclass(frozen=True)
class KeepAnswers:
    """The reference's rule: generate a reply to every question and keep it."""

    mark: str = RULES

    def for_run(self, suffix: str) -> AnswerRule | None:
        """Return itself; a run on grey pictures is a prior, and nothing is held against its words."""
        return None if suffix == ".grey" else self

    def take(
        self, engine: Engine, example_id: str, messages: Sequence[Message], reply: Completion | None, max_tokens: int
    ) -> tuple[KeptAnswer | None, ForcedAnswer | None]:
        """Return the kept answer."""
        return keep_answer(engine, messages, reply or engine.generate(messages, Sampling(max_tokens=max_tokens))), None


@dataclass(frozen=True)
class ForceAnswers:
    """A level's rule: be given the reference's replies. answers: by the run's suffix, then by example.

    marks: what names the reference's answers, by suffix; a run goes on only under the same.
    """

    answers: Mapping[str, Mapping[str, KeptAnswer]]
    marks: Mapping[str, str]
    suffix: str = ""

    @property
    def mark(self) -> str:
        """What names the answers of this run's reference."""
        return self.marks[self.suffix]

    def for_run(self, suffix: str) -> AnswerRule | None:
        """Return the rule of this run; None where the reference kept no answers of it."""
        return ForceAnswers(self.answers, self.marks, suffix) if self.answers.get(suffix) else None

    def take(
        self, engine: Engine, example_id: str, messages: Sequence[Message], reply: Completion | None, max_tokens: int
    ) -> tuple[KeptAnswer | None, ForcedAnswer | None]:
        """Return the forced answer; none where the reference kept none of this question."""
        kept = self.answers[self.suffix].get(example_id)
        return None, force_answer(engine, messages, kept) if kept else None


def keep_answer(engine: Engine, messages: Sequence[Message], reply: Completion) -> KeptAnswer:
    """Return a greedy reply with what the engine held likely at each token of it."""
    tokens = (*reply.token_ids, *((reply.end_id,) if reply.end_id is not None else ()))
    found = engine.continuation_logprobs(messages, tokens, ENTRIES)
    counts = _counts(found)
    ids, logs, tails, entropies = [], [], [], []
    for one, count in zip(found, counts, strict=True):
        tail, entropy = _tail(one, count)
        ids += one.token_ids[:count].tolist()
        logs += [_float32(value) for value in one.logprobs_nats[:count]]
        tails.append(_float32(tail))
        entropies.append(_float32(entropy))
    return KeptAnswer(tokens, tuple(counts), tuple(ids), tuple(logs), tuple(tails), tuple(entropies))


def _counts(found: Sequence[TokenLogprobs]) -> list[int]:
    """Return how many tokens are kept at each place: to a tail of TAIL, and of all places the likeliest ENTRIES."""
    wanted = []
    for one in found:
        left = math.exp(one.rest_nats) + np.cumsum(np.exp(one.logprobs_nats)[::-1])[::-1]  # tail if i are kept
        after = np.append(left[1:], math.exp(one.rest_nats))
        enough = np.flatnonzero(after <= TAIL)
        wanted.append(int(enough[0]) + 1 if enough.size else len(after))
    if sum(wanted) <= ENTRIES:
        return wanted
    # the first of each place, then the likeliest of the others; equal ones by place, then by rank
    others = [
        (-float(one.logprobs_nats[rank]), place, rank)
        for place, one in enumerate(found)
        for rank in range(1, wanted[place])
    ]
    counts = [1] * len(found)
    for _, place, _ in sorted(others)[: max(0, ENTRIES - len(found))]:
        counts[place] += 1
    return counts


def _tail(one: TokenLogprobs, count: int) -> tuple[float, float]:
    """Return probability and entropy of all tokens but the first `count`, from the engine's own rest and the others."""
    logs = one.logprobs_nats[count:]
    rest = math.exp(one.rest_nats)
    mass = rest + float(np.exp(logs).sum())
    if mass <= 0:
        return 0.0, 0.0
    spread = -float((np.exp(logs) * logs).sum())
    if rest > 0:
        spread += rest * (one.rest_entropy_nats - one.rest_nats)
    return mass, max(0.0, spread / mass + math.log(mass))


def force_answer(engine: Engine, messages: Sequence[Message], kept: KeptAnswer) -> ForcedAnswer:
    """Return how far the engine lies from a kept answer when it is given the same tokens."""
    found = engine.continuation_logprobs(messages, kept.token_ids, kept.places())
    ends = np.cumsum(kept.kept).tolist()
    values = [
        divergence(
            np.array(kept.top_logprobs_nats[end - count : end]), kept.tail[place], kept.tail_entropy_nats[place],
            found[place],
        )
        for place, (end, count) in enumerate(zip(ends, kept.kept, strict=True))
    ]  # fmt: skip
    return ForcedAnswer(
        of=kept.digest(),
        kl_nats=tuple(round(kl, _DECIMALS) for kl, _ in values),
        missed_nats=tuple(round(missed, _DECIMALS) for _, missed in values),
        same=tuple(one.likeliest == token for one, token in zip(found, kept.token_ids, strict=True)),
    )


def divergence(
    reference_nats: NDArray[np.float64], tail: float, tail_entropy_nats: float, level: TokenLogprobs
) -> tuple[float, float]:
    """Return K and what it can miss at most, in nats (see the head of this file).

    reference_nats: log-probabilities of the tokens that `level` names. The kept numbers are float32, so the reference's
    are made to sum to 1 again.
    """
    chances = np.append(np.exp(reference_nats), tail)
    chances = chances / chances.sum()
    named = chances[:-1] > 0
    p = chances[:-1][named]
    kl = float((p * (np.log(p) - level.logprobs_nats[named])).sum())
    missed = 0.0
    if chances[-1] > 0:
        rest = float(chances[-1])
        if not math.isfinite(level.rest_nats):
            raise AnswerError(
                "the level has no token but those that the reference names; the two have other vocabularies: export "
                "the level from the reference's checkpoint"
            )
        kl += rest * (math.log(rest) - level.rest_nats)
        missed = rest * max(0.0, level.rest_nats - level.rest_lowest_nats - tail_entropy_nats)
    return max(0.0, kl), missed


def _float32(value: float) -> float:
    """Return a float32's shortest decimal: what JSON writes in few digits and reads back as the same float32."""
    return float(str(np.float32(value)))
