"""The figures that a comparison measures, as frozen records: shares, KL, calibration, what changed in the answers.

Knows no statistics and no layout; docs/drift.md defines every figure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A share of right answers with Wilson's 95 % interval on items / D, the design effect.

    correct: right answers. lower, upper: the interval, 0..1.
    """

    correct: int
    items: int
    lower: float
    upper: float

    @property
    def value(self) -> float:
        """The share, 0..1."""
        return self.correct / self.items


@dataclass(frozen=True)
class Competence:
    """Whether the reference beats the text-only prior on these items.

    prior: the better of "majority answer" and "grey image". accuracy: of that prior, 0..1. lead: reference minus prior.
    lead_lower: its lower bound at 5 %; above 0 it is competent. lead_lower_pass: the bound at 0.001 % that a PASS asks
    for. missing: which part of the prior was not run, and how to run it; then no figure is known.
    """

    prior: str
    accuracy: float
    lead: float
    lead_lower: float
    lead_lower_pass: float
    missing: str = ""


@dataclass(frozen=True)
class Divergence:
    """KL(reference || level) in nats: over the options' probabilities, or at the tokens of the reference's replies.

    items: those with options, or those tokens. mean_nats: over these. p99_nats: their 99th percentile. max_nats: the
    largest.
    """

    items: int
    mean_nats: float
    p99_nats: float
    max_nats: float


@dataclass(frozen=True)
class Change:
    """A figure of the reference and of the level, and level minus reference with a clustered 95 % interval.

    reference: its figure. level: its figure. change: level minus reference. lower, upper: the interval of the change.
    """

    reference: float
    level: float
    change: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Calibration:
    """How well confidence, the largest option probability, fits the answers; every figure is better where smaller.

    items: those with options. ece: expected calibration error, 15 bins of equal mass. brier: squared distance of all
    options' probabilities, 0..2. aurc: area under the risk-coverage curve. risk_at_80: wrong answers among the four
    fifths answered most confidently.
    """

    items: int
    clusters: int
    ece: Change
    brier: Change
    aurc: Change
    risk_at_80: Change


@dataclass(frozen=True)
class TokenDrift:
    """A level that is given the reference's own greedy replies, token by token.

    items: replies. kl: as measured, from the tokens that the reference kept. kl_at_most: that of the whole rows lies
    between kl and this. mean_nats: the mean of the whole rows', estimated by tokens that the reference drew of the
    others. top1: tokens at which the level's likeliest is the reference's. replies: those where it is at every token,
    so that the level by itself would say the same.
    """

    items: int
    kl: Divergence
    kl_at_most: Divergence
    mean_nats: float
    top1: Share
    replies: Share


@dataclass(frozen=True)
class TextDrift:
    """How the words of answers to open questions changed: means 0..1, better where larger.

    items: open questions. clusters: patients or groups among them. f1: over their words, the primary figure. exact:
    share of exact matches. bleu1: BLEU of single words. rouge_l: F1 of the longest common subsequence of words. An
    INVALID reply is worth 0 in all.
    """

    items: int
    clusters: int
    f1: Change
    exact: Change
    bleu1: Change
    rouge_l: Change


@dataclass(frozen=True)
class AnswerDrift:
    """What changed in the answers themselves. top1: items with options whose likeliest option is the same.

    invalid: replies that name no answer, where both runs generated one. calibration: of the items with options. tokens:
    where the level was given the reference's replies. text: of open questions. Null where nothing is there to measure.
    """

    items: int
    top1: Share | None
    invalid: Change | None
    calibration: Calibration | None
    tokens: TokenDrift | None = None
    text: TextDrift | None = None


@dataclass(frozen=True)
class ProbeDrift:
    """The same under a probe.

    probe: its label, "blur-3". agreement: rows with the same answer. answers: what changed in them.
    """

    probe: str
    agreement: Share
    answers: AnswerDrift


@dataclass(frozen=True)
class Abstention:
    """What a run leaves unanswered, at a threshold of the largest option probability, or by saying so.

    threshold: that probability. answerable: rows that can be answered. unanswerable: rows whose picture does not show
    what is asked (grey, or another patient's). coverage: answered of all rows; selective_accuracy: right of those,
    where an answer to an unanswerable row is wrong; recall: unanswerable rows left alone; over_refusal: answerable rows
    left alone.
    """

    threshold: float
    answerable: int
    unanswerable: int
    coverage: Share
    selective_accuracy: Share | None
    recall: Share | None
    over_refusal: Share | None


@dataclass(frozen=True)
class Bootstrap:
    """Limits of a paired difference by drawing whole clusters; they decide nothing.

    lower, upper: one-sided, 95 %. draws: how many. seed: of the draws.
    """

    lower: float
    upper: float
    draws: int
    seed: int


@dataclass(frozen=True)
class RationaleShare:
    """How often reasoning has one outcome.

    outcome: "right", "wrong" or "not named"; of what follows "consistent", "contradicts" or "undecidable". change: of
    its share.
    """

    outcome: str
    change: Change


@dataclass(frozen=True)
class RationalePart:
    """What reasoning says of one thing, over replies that reason in either run, of items whose record knows it.

    name: "modality", "organ", "side", or "follows" (the answer from the finding). items: such replies. shares: one for
    each outcome.
    """

    name: str
    items: int
    clusters: int
    shares: tuple[RationaleShare, ...]


@dataclass(frozen=True)
class RationaleDrift:
    """How reasoning changed, by rule; no verdict hangs on it.

    items: replied to by both runs. with_reasoning: those that reason in either. carried: the share that reasons. parts:
    what is named of the record, and what follows. words: mean length of those that reason in either.
    """

    items: int
    with_reasoning: int
    carried: Change
    parts: tuple[RationalePart, ...]
    words: Change


@dataclass(frozen=True)
class JudgedDrift:
    """How reasoning changed to a judge, a model that was asked; apart from the rules, and no verdict hangs on it.

    model: the judge's name. items: replies that it read in both runs. unread: of either run, where its answer was not
    what was asked for. agreement: of its labels for the level, those that the rules give too. parts: as by rule.
    """

    model: str
    items: int
    unread: int
    agreement: Share
    parts: tuple[RationalePart, ...]
