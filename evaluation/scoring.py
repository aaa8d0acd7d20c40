"""Scores a reply against its answer: exact match with aliases, token F1, yes/no. A scorer is also a reward.

Knows the normalisation of notes and nothing of engines, prompts or runs. What a reply says is found in extraction.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .extraction import Extraction, extract
from .reply_text import NUMBERS, SIGN

ARTICLES = frozenset({"a", "an", "the"})
# A slash, hyphen or point stays where it stands between two characters of one token: "3.5", "t2-weighted", "and/or".
_OUTER = re.compile(r"(?<!\w)[/.\-]|[/.\-](?!\w)")
_FRAMED = re.compile(r"\s*-\s(.*)\s-\s*", re.DOTALL)  # dashes on both sides are a frame, not a sign
_PUNCTUATION = re.compile(r"[^\w\s/.\-]|_")


def normalise(text: str) -> str:
    """Return the text as it is compared: NFKC, lower case, no articles, digits for number words, no punctuation.

    An article that ends the text is kept: "hepatitis A" is not "hepatitis". So are signs: "< 5 mm" is not "> 5 mm".
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("<=", "\u2264").replace(">=", "\u2265")
    framed = _FRAMED.fullmatch(plain)
    plain = framed.group(1) if framed else plain
    tokens, start = [], 0
    for sign in SIGN.finditer(plain):
        tokens += [*_words(plain[start : sign.start()]), sign.group()]
        start = sign.end()
    tokens += _words(plain[start:])
    kept = [token for index, token in enumerate(tokens) if token not in ARTICLES or index == len(tokens) - 1]
    return " ".join(NUMBERS.get(token, token) for token in kept)


def _words(text: str) -> list[str]:
    plain = _PUNCTUATION.sub(" ", text)
    while (stripped := _OUTER.sub(" ", plain)) != plain:
        plain = stripped
    return plain.split()


@dataclass(frozen=True)
class TokenOverlap:
    """How far two texts share their words, counted with repetition."""

    precision: float
    recall: float
    f1: float


def token_overlap(reply: str, answer: str) -> TokenOverlap:
    """Return precision (of the reply), recall (of the answer) and F1 over normalised words.

    Two empty texts overlap fully; one empty text overlaps not at all.
    """
    said, wanted = Counter(normalise(reply).split()), Counter(normalise(answer).split())
    if not said or not wanted:
        value = float(not said and not wanted)
        return TokenOverlap(value, value, value)
    common = sum((said & wanted).values())
    precision, recall = common / sum(said.values()), common / sum(wanted.values())
    return TokenOverlap(precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0)


def best_overlap(reply: str, answers: Iterable[str]) -> TokenOverlap:
    """Return the overlap with the answer or alias that gives the highest F1."""
    return max((token_overlap(reply, answer) for answer in answers), key=lambda overlap: overlap.f1)


def exact_match(reply: str, answers: Iterable[str]) -> bool:
    """Return whether the reply equals the answer or one of its aliases after normalising; an empty reply never does."""
    said = normalise(reply)
    return bool(said) and any(said == normalise(answer) for answer in answers)


@dataclass(frozen=True)
class Score:
    """What a reply is worth. value: 0..1, the token F1 of an open answer, else 1 or 0.

    extraction: what the reply was taken to say. Nothing found is INVALID: wrong, and worth nothing.
    """

    correct: bool
    value: float
    extraction: Extraction

    @property
    def invalid(self) -> bool:
        """Whether the reply names no answer."""
        return self.extraction.answer is None


def score_choice(choice: str, answer: str) -> bool:
    """Return whether an option, chosen by likelihood, is the answer."""
    return choice == answer


def score_reply(
    reply: str,
    answer: str,
    *,
    answer_type: str,
    options: Sequence[str] = (),
    aliases: Sequence[str] = (),
    question: str = "",
) -> Score:
    """Score a generated reply: what it says is extracted first and never guessed.

    answer_type: "choice", "yesno" or "open". options: of a choice, in the order they were shown.
    question: what was asked, which a reply like "there is no effusion" answers only together with it.
    """
    found = extract(reply, answer_type=answer_type, options=options, question=question)
    if found.answer is None:
        return Score(False, 0.0, found)
    if answer_type == "open":
        answers = (answer, *aliases)
        return Score(exact_match(found.answer, answers), best_overlap(found.answer, answers).f1, found)
    correct = found.answer == answer
    return Score(correct, float(correct), found)
