"""Texts as curation compares them, held against a brute-force reference."""

from __future__ import annotations

import random

from infimed.training.curate_texts import GramIndex, grams, jaccard, near_texts, overlap, token_count, words

VOCABULARY = [f"word{number}" for number in range(400)]


def texts(number: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(VOCABULARY, k=60)) for _ in range(number)]


def test_grams_of_a_short_text_are_the_text_itself() -> None:
    assert grams("Is there a mass?", 5) == frozenset({"is there a mass"})
    assert grams("a b c d e f", 5) == frozenset({"a b c d e", "b c d e f"})
    assert grams(" ?! ", 5) == frozenset() and jaccard(frozenset(), frozenset()) == 0
    assert words("T2-weighted, FLAIR") == ["t2", "weighted", "flair"]
    assert token_count("Is there, really, a mass?") == 8


def test_near_texts_finds_what_comparing_every_pair_finds_above_the_threshold() -> None:
    draw = random.Random(1)
    originals = texts(150)
    everything = list(originals)
    for text in originals[:60]:
        changed = text.split()
        changed[draw.randrange(len(changed))] = "other"
        everything.append(" ".join(changed))
    shingles = [grams(text, 5) for text in everything]
    expected = {
        (left, right)
        for right in range(len(everything))
        for left in range(right)
        if jaccard(shingles[left], shingles[right]) >= 0.8
    }
    found = {(left, right): similarity for left, right, similarity in near_texts(everything, 0.8)}
    assert set(found) <= expected, "every pair that is yielded was measured exactly"
    assert len(found) >= 0.98 * len(expected) >= 50
    for (left, right), similarity in found.items():
        assert similarity == jaccard(shingles[left], shingles[right])


def test_the_gram_index_finds_the_text_that_shares_most() -> None:
    originals = texts(50)
    index = GramIndex(originals)
    half = " ".join(originals[7].split()[:30] + texts(1, seed=9)[0].split()[:30])
    position, share = index.best(half)
    assert position == 7 and share == overlap(half, originals[7]) == 23 / 53
    assert index.best(" ".join(originals[3].split()[10:40])) == (3, 1.0), "a part of a test text is all of it"
    assert index.best("nothing in common with any of the texts above at all") == (-1, 0.0)
