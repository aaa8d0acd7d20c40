"""BLEU-1 and ROUGE-L of an open answer, over the normalised words. Token F1 of scoring.py stays the primary figure.

BLEU-1: clipped share of the reply's words that the answer has, times exp(1 - r / c) for a reply of c words shorter than
the answer's r (Papineni et al., ACL 2002). The +1 smoothing of Lin and Och (COLING 2004, section 4) is for n-grams of
two words and more, so BLEU-1 has none: on single words it would give one wrong word 1/2. NLTK's method2 and sacreBLEU's
add-k do the same. ROUGE-L: F1 of the longest common subsequence (Lin, ACL workshop 2004), as rouge-score has it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from .scoring import normalise


def bleu1(reply: str, answer: str) -> float:
    """Return BLEU-1, 0..1. Two empty texts give 1, one empty text 0."""
    said, wanted = normalise(reply).split(), normalise(answer).split()
    if not said or not wanted:
        return float(not said and not wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return min(1.0, math.exp(1 - len(wanted) / len(said))) * shared / len(said)


def rouge_l(reply: str, answer: str) -> float:
    """Return ROUGE-L's F1, 0..1. Two empty texts give 1, one empty text 0."""
    said, wanted = normalise(reply).split(), normalise(answer).split()
    if not said or not wanted:
        return float(not said and not wanted)
    row = [0] * (len(wanted) + 1)
    for word in said:
        above = row
        row = [0]
        for at, want in enumerate(wanted, 1):
            row.append(above[at - 1] + 1 if word == want else max(above[at], row[-1]))
    # with c of the s and w words in common, 2 P R / (P + R) is 2 c / (s + w)
    return 2 * row[-1] / (len(said) + len(wanted))


def best_bleu1(reply: str, answers: Iterable[str]) -> float:
    """Return the highest BLEU-1 over an answer and its aliases."""
    return max(bleu1(reply, answer) for answer in answers)


def best_rouge_l(reply: str, answers: Iterable[str]) -> float:
    """Return the highest ROUGE-L over an answer and its aliases."""
    return max(rouge_l(reply, answer) for answer in answers)
