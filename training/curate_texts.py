"""Texts as curation compares them: tokens, word shingles, MinHash neighbours, 8-gram overlap.

Knows words, not rows; needs datasketch for the neighbours.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from .. import MissingExtra

SHINGLE_WORDS = 5
OVERLAP_WORDS = 8
PERMUTATIONS = 128
_CANDIDATE_MARGIN = 0.15
_TOKEN = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Return the words of a text as they are compared: NFKC, case folded, without punctuation.

    Signs of comparison stay, for "< 3 cm" and "> 3 cm" are not the same.
    """
    return re.findall(r"\w+|[<>\u2264\u2265]", unicodedata.normalize("NFKC", text).casefold())


def as_written(text: str) -> str:
    """Return a text as closed answers are compared: NFC, case folded, blanks made one; every sign stays."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def token_count(text: str) -> int:
    """Return the number of words and punctuation marks: a model's tokenizer is not asked."""
    return len(_TOKEN.findall(text))


def grams(text: str, length: int) -> frozenset[str]:
    """Return the word n-grams of a text; a shorter text is one gram of all its words."""
    found = words(text)
    if len(found) <= length:
        return frozenset({" ".join(found)}) if found else frozenset()
    return frozenset(" ".join(found[start : start + length]) for start in range(len(found) - length + 1))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return shared over all; 0 where both are empty."""
    return len(left & right) / max(len(left | right), 1)


def near_texts(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Yield (left, right, jaccard) with left < right for texts whose 5-word shingles have at least that Jaccard.

    MinHash of 128 permutations finds the candidates at a lower threshold, so that few are missed; each is then measured
    exactly, so no pair below the threshold is yielded.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise MissingExtra("train", "datasketch") from None
    lower = max(threshold - _CANDIDATE_MARGIN, 0.05)
    index = MinHashLSH(threshold=lower, num_perm=PERMUTATIONS, weights=(0.2, 0.8))
    shingles = [grams(text, SHINGLE_WORDS) for text in texts]
    for right, found in enumerate(shingles):
        if not found:
            continue
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch([gram.encode() for gram in sorted(found)])
        for left in sorted(index.query(sketch)):
            similarity = jaccard(shingles[left], found)
            if similarity >= threshold:
                yield left, right, similarity
        index.insert(right, sketch)


class GramIndex:
    """Which texts share 8-word grams with a given one: overlap = shared grams over those of the shorter text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._sizes: list[int] = []
        self._holders: dict[str, list[int]] = {}
        for position, text in enumerate(texts):
            found = grams(text, OVERLAP_WORDS)
            self._sizes.append(len(found))
            for gram in found:
                self._holders.setdefault(gram, []).append(position)

    def best(self, text: str) -> tuple[int, float]:
        """Return the position and overlap of the text that shares most; (-1, 0.0) where none shares anything."""
        found = grams(text, OVERLAP_WORDS)
        shared = Counter(position for gram in found for position in self._holders.get(gram, ()))
        best, overlap = -1, 0.0
        for position in sorted(shared):
            share = shared[position] / min(len(found), self._sizes[position])
            if share > overlap:
                best, overlap = position, share
        return best, overlap


def overlap(left: str, right: str) -> float:
    """Return the shared 8-word grams over those of the shorter text."""
    one, other = grams(left, OVERLAP_WORDS), grams(right, OVERLAP_WORDS)
    return len(one & other) / max(min(len(one), len(other)), 1)
