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

so the divergence is at most K + p_T (log q_T - log q_low - H). Both ends are kept. Where the reference is diffuse they
lie far apart, so it also draws some tokens of T by p|T and keeps their log-probabilities. With r = q|T / p|T, p_T times
the mean of r - 1 - log r over them has the expectation p_T KL(p|T || q|T), for that of r is 1, and no term is below
zero; K plus it estimates the divergence. Without r - 1 the estimate would be as unbiased and far noisier where q is
near p (Schulman, Approximating KL divergence, 2020). At a single token it is rough; its mean over many is what to read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from ..runtime.engine import Completion, Engine, Sampling, TokenLogprobs
from ..runtime.messages import Message
from .jsonform import FormError

TAIL = 1e-5
"""Tokens are kept, the likeliest first, until the others of the same place hold no more than this together."""
ENTRIES = 224
"""At most so many are kept of one reply (at least one at each token): those likeliest over all its places."""
DRAWS = 32
"""So many of the others are drawn for one reply, as many at each token, but at least FEWEST_DRAWS."""
FEWEST_DRAWS = 2
RULES = f"kept: tail {TAIL:g}, at most {ENTRIES}, {DRAWS} drawn"
"""What a reference's run is kept under; a run goes on only under the same."""
_EVERY = 2**31  # more tokens than any vocabulary has
_DECIMALS = 9


class AnswerError(InfimedError):
    """A level that cannot be held against a reference's answer."""


@dataclass(frozen=True, eq=False)
class Place:
    """One place of a kept answer. See KeptAnswer for its parts."""

    ids: tuple[int, ...]
    logprobs_nats: NDArray[np.float64]
    tail: float
    tail_entropy_nats: float
    drawn_ids: tuple[int, ...]
    drawn_logprobs_nats: NDArray[np.float64]

    @property
    def named(self) -> tuple[int, ...]:
        """Every token with a log-probability of its own, each once."""
        return (*self.ids, *dict.fromkeys(self.drawn_ids))


@dataclass(frozen=True)
class KeptAnswer:
    """A reference's greedy reply and what it held likely at each token of it.

    token_ids: the reply's, (n,), the token that ended the turn included where one did. kept: how many tokens are kept
    at each place, (n,). top_ids, top_logprobs_nats: the kept tokens, place by place, the likeliest first. tail: the
    probability of all others together, 0..1; tail_entropy_nats: their entropy among themselves. drawn: how many of the
    others were drawn at each place, (n,), with drawn_ids and drawn_logprobs_nats, one as often as it was drawn. All
    numbers are float32 values.
    """

    token_ids: tuple[int, ...]
    kept: tuple[int, ...]
    top_ids: tuple[int, ...]
    top_logprobs_nats: tuple[float, ...]
    tail: tuple[float, ...]
    tail_entropy_nats: tuple[float, ...]
    drawn: tuple[int, ...]
    drawn_ids: tuple[int, ...]
    drawn_logprobs_nats: tuple[float, ...]

    def __post_init__(self) -> None:
        places = len(self.token_ids)
        if not places or {len(self.kept), len(self.tail), len(self.tail_entropy_nats), len(self.drawn)} != {places}:
            raise FormError(f"an answer of {places} tokens has {len(self.kept)}, {len(self.tail)} and "
                            f"{len(self.tail_entropy_nats)} values of its places")  # fmt: skip
        if min(self.kept) < 1 or not sum(self.kept) == len(self.top_ids) == len(self.top_logprobs_nats):
            raise FormError(f"an answer keeps {sum(self.kept)} tokens and names {len(self.top_ids)}")
        if min(self.drawn) < 0 or not sum(self.drawn) == len(self.drawn_ids) == len(self.drawn_logprobs_nats):
            raise FormError(f"an answer draws {sum(self.drawn)} tokens and names {len(self.drawn_ids)}")
        if min(*self.token_ids, *self.top_ids, *self.drawn_ids) < 0:
            raise FormError("an answer holds a token below 0")
        if max(*self.top_logprobs_nats, *self.drawn_logprobs_nats, -1.0) > 1e-6 or not all(
            0 <= value <= 1.000001 for value in self.tail
        ):
            raise FormError("an answer holds a probability above 1 or below 0")
        for place in self.places():
            if len({*place.ids}) != len(place.ids) or {*place.ids} & {*place.drawn_ids}:
                raise FormError("an answer names a token twice at one place")
            if place.drawn_ids and not place.tail:
                raise FormError("an answer draws tokens where none is left")

    def places(self) -> tuple[Place, ...]:
        """Return what is kept, place by place."""
        found = []
        for place, (end, last) in enumerate(zip(accumulate(self.kept), accumulate(self.drawn), strict=True)):
            top, others = slice(end - self.kept[place], end), slice(last - self.drawn[place], last)
            logs, drawn = np.array(self.top_logprobs_nats[top]), np.array(self.drawn_logprobs_nats[others])
            tail = self.tail[place], self.tail_entropy_nats[place]
            found.append(Place(self.top_ids[top], logs, *tail, self.drawn_ids[others], drawn))
        return tuple(found)

    def digest(self) -> str:
        """Return 16 hexadecimal digits that name this answer."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ForcedAnswer:
    """A level at each token of a reference's reply.

    of: the digest of the reference's answer. kl_nats: KL(reference || level) as measured, never above the whole rows';
    missed_nats: what the whole rows' can be above it at most; drawn_nats: what it is above it by the drawn tokens,
    right on average and rough at one token. same: whether the level's likeliest token is the reference's; where all
    are, the level's own greedy reply is the reference's, token for token.
    """

    of: str
    kl_nats: tuple[float, ...]
    missed_nats: tuple[float, ...]
    drawn_nats: tuple[float, ...]
    same: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not self.same or {len(self.kl_nats), len(self.missed_nats), len(self.drawn_nats)} != {len(self.same)}:
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
    found = engine.continuation_logprobs(messages, tokens, _EVERY)
    counts = _counts([one.logprobs_nats for one in found])
    draws = max(FEWEST_DRAWS, DRAWS // len(tokens))
    tops, others = [], []
    tails, entropies, drawn = [], [], []
    for place, (one, count) in enumerate(zip(found, counts, strict=True)):
        rest = one.logprobs_nats[count:]
        mass = float(np.exp(rest).sum())
        among = np.exp(rest) / mass if mass > 0 else rest
        picked = count + _draw(among, draws, (*tokens, place)) if mass > 0 else np.empty(0, dtype=np.int64)
        tops += [(int(one.token_ids[rank]), _float32(one.logprobs_nats[rank])) for rank in range(count)]
        others += [(int(one.token_ids[rank]), _float32(one.logprobs_nats[rank])) for rank in picked]
        tails.append(_float32(mass))
        entropies.append(_float32(-float((among * np.log(np.maximum(among, 1e-300))).sum()) if mass > 0 else 0.0))
        drawn.append(len(picked))
    return KeptAnswer(
        token_ids=tokens,
        kept=tuple(counts),
        top_ids=tuple(token for token, _ in tops),
        top_logprobs_nats=tuple(value for _, value in tops),
        tail=tuple(tails),
        tail_entropy_nats=tuple(entropies),
        drawn=tuple(drawn),
        drawn_ids=tuple(token for token, _ in others),
        drawn_logprobs_nats=tuple(value for _, value in others),
    )


def _counts(found: Sequence[NDArray[np.float64]]) -> list[int]:
    """Return how many tokens are kept at each place: to a tail of TAIL, and of all places the likeliest ENTRIES.

    found: log-probabilities of every token at each place, the likeliest first.
    """
    wanted = []
    for logs in found:
        after = np.append(np.cumsum(np.exp(logs)[::-1])[::-1], 0.0)[1 : ENTRIES + 1]  # the tail where i + 1 are kept
        enough = np.flatnonzero(after <= TAIL)
        wanted.append(int(enough[0]) + 1 if enough.size else len(after))
    if sum(wanted) <= ENTRIES:
        return wanted
    # the first of each place, then the likeliest of the others; equal ones by place, then by rank
    others = [(-float(logs[rank]), place, rank) for place, logs in enumerate(found) for rank in range(1, wanted[place])]
    counts = [1] * len(found)
    for _, place, _ in sorted(others)[: max(0, ENTRIES - len(found))]:
        counts[place] += 1
    return counts


def _draw(shares: NDArray[np.float64], draws: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """Return indices drawn by their shares, spread evenly over them (systematic sampling: one random offset).

    Each index is drawn draws x share times in the mean, so a mean over the drawn is unbiased.
    """
    points = (np.random.default_rng(list(seed)).random() + np.arange(draws)) / draws
    return np.asarray(np.minimum(np.searchsorted(np.cumsum(shares), points, side="right"), len(shares) - 1))


def force_answer(engine: Engine, messages: Sequence[Message], kept: KeptAnswer) -> ForcedAnswer:
    """Return how far the engine lies from a kept answer when it is given the same tokens."""
    places = kept.places()
    found = engine.continuation_logprobs(messages, kept.token_ids, [place.named for place in places])
    values = [divergence(place, one) for place, one in zip(places, found, strict=True)]
    kl, missed, drawn = (tuple(round(value[part], _DECIMALS) for value in values) for part in range(3))
    same = tuple(one.likeliest == token for one, token in zip(found, kept.token_ids, strict=True))
    return ForcedAnswer(kept.digest(), kl, missed, drawn, same)


def divergence(place: Place, level: TokenLogprobs) -> tuple[float, float, float]:
    """Return K, what it can miss at most and what it misses by the drawn tokens, in nats (see the head of this file).

    level: of the tokens that `place` names, in their order. The kept numbers are float32, so the reference's are made
    to sum to 1 again.
    """
    count = len(place.ids)
    level_nats, drawn_level = level.logprobs_nats[:count], level.logprobs_nats[count:]
    total = float(np.exp(place.logprobs_nats).sum()) + place.tail
    logs = place.logprobs_nats - math.log(total)
    kl = float((np.exp(logs) * (logs - level_nats)).sum())
    if place.tail <= 0:
        return max(0.0, kl), 0.0, 0.0
    tail = place.tail / total
    level_tail = float(np.logaddexp.reduce([level.rest_nats, *drawn_level]))
    if not math.isfinite(level_tail):
        raise AnswerError(
            "the level has no token but those that the reference names; the two have other vocabularies: export the "
            "level from the reference's checkpoint"
        )
    lowest = min(level.rest_lowest_nats if math.isfinite(level.rest_nats) else math.inf, *drawn_level, math.inf)
    kl += tail * (math.log(tail) - level_tail)
    missed = tail * max(0.0, level_tail - lowest - place.tail_entropy_nats)
    by_token = dict(zip(place.named[count:], drawn_level.tolist(), strict=True))
    logs_of_ratio = np.array([
        (by_token[token] - level_tail) - (own - math.log(place.tail))
        for token, own in zip(place.drawn_ids, place.drawn_logprobs_nats.tolist(), strict=True)
    ])  # fmt: skip
    terms = np.expm1(logs_of_ratio) - logs_of_ratio
    return max(0.0, kl), missed, tail * float(np.maximum(terms, 0.0).mean()) if terms.size else 0.0


def _float32(value: float) -> float:
    """Return a float32's shortest decimal: what JSON writes in few digits and reads back as the same float32."""
    return float(str(np.float32(value)))
