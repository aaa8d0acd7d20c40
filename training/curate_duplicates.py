"""Rows that say the same again: exactly, nearly, or with an answer that contradicts.

Exact: the same decoded pixels and the same normalised question and answer. Near: images near one by one and the
question's 5-word shingles alike, with the same answer. Templates repeat by design, so a question about another image is
no duplicate. Knows neither roles nor test data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..evaluation.example import JSON, Example
from .curate_groups import NearImages
from .curate_ledger import LeftOut
from .curate_near import Near
from .curate_texts import SHINGLE_WORDS, as_written, grams, jaccard, near_texts, words


@dataclass(frozen=True)
class Row:
    """A row as duplicates see it. pixels: of its images in order. question: all texts, normalised to words.

    answer: of an open question in words, of a closed one as it is written: options may differ by a sign alone.
    """

    example: Example
    pixels: tuple[str, ...]
    question: str
    answer: str


def rows_of(examples: Sequence[Example], pixels_of: Mapping[str, str]) -> list[Row]:
    """Return the rows in the order of the examples. pixels_of: pixel hash by ImageRef.path."""
    return [
        Row(
            example,
            tuple(pixels_of[ref.path] for ref in example.images),
            " ".join(words(" ".join(example.texts))),
            " ".join(words(example.answer)) if example.answer_type == "open" else as_written(example.answer),
        )
        for example in examples
    ]


def contradictions(rows: Sequence[Row]) -> Iterator[LeftOut]:
    """Yield all rows that ask the same of the same pixels and answer differently: one of them is wrong.

    A choice contradicts only where both answers could be chosen in both; open questions may have several answers.
    """
    asked: dict[tuple[tuple[str, ...], str, str], list[Row]] = {}
    for row in rows:
        if row.example.answer_type != "open":
            asked.setdefault((row.pixels, row.question, row.example.answer_type), []).append(row)
    for same in asked.values():
        for row in same:
            other = next((twin for twin in same if _contradict(row, twin)), None)
            if other is not None:
                evidence: dict[str, JSON] = {"twin": other.example.id, "answers": [row.answer, other.answer]}
                yield LeftOut(row.example.id, "duplicate", "answers contradict", evidence)


def _contradict(one: Row, other: Row) -> bool:
    if one.answer == other.answer:
        return False
    return one.example.answer in other.example.options and other.example.answer in one.example.options


def exact_duplicates(rows: Sequence[Row]) -> Iterator[LeftOut]:
    """Yield every row but the first of those with equal pixels, question and answer."""
    first: dict[tuple[tuple[str, ...], str, str], Row] = {}
    for row in rows:
        twin = first.setdefault((row.pixels, row.question, row.answer), row)
        if twin is not row:
            yield LeftOut(row.example.id, "duplicate", "exact duplicate", {"twin": twin.example.id})


def near_duplicates(rows: Sequence[Row], near: NearImages, text_jaccard: float) -> Iterator[LeftOut]:
    """Yield the rows about images that are nearly those of a row kept before them, and ask and answer the same.

    Each is near to a kept row itself, never only through a third one.
    """
    kept: dict[str, list[Row]] = {}
    for row in rows:
        if not row.pixels:
            continue
        found = _near_twin(row, kept, near, text_jaccard)
        if found is None:
            kept.setdefault(row.pixels[0], []).append(row)
            continue
        twin, pair, similarity = found
        evidence: dict[str, JSON] = {"twin": twin.example.id, "text_jaccard": round(similarity, 4), **_told(pair)}
        yield LeftOut(row.example.id, "duplicate", "near duplicate", evidence)


def _near_twin(
    row: Row, kept: Mapping[str, list[Row]], near: NearImages, threshold: float
) -> tuple[Row, Near | None, float] | None:
    shingles = grams(row.question, SHINGLE_WORDS)
    for pixels in (row.pixels[0], *sorted(near.neighbours(row.pixels[0]))):
        for twin in kept.get(pixels, ()):
            if twin.answer != row.answer or len(twin.pixels) != len(row.pixels):
                continue
            images = zip(row.pixels, twin.pixels, strict=True)
            if not all(left == right or right in near.neighbours(left) for left, right in images):
                continue
            similarity = jaccard(shingles, grams(twin.question, SHINGLE_WORDS))
            if similarity >= threshold:
                return twin, near.neighbours(row.pixels[0]).get(pixels), similarity
    return None


def _told(pair: Near | None) -> dict[str, JSON]:
    if pair is None:
        return {"image": "the same pixels"}
    return {"distance_bits": pair.distance, "correlation": pair.correlation, "detail": pair.detail}


@dataclass(frozen=True)
class NearText:
    """Two text-only rows with nearly the same text. same_answer: the later one says nothing new."""

    kept: Example
    later: Example
    similarity: float
    same_answer: bool


def near_text_rows(rows: Sequence[Row], threshold: float) -> list[NearText]:
    """Return the near pairs of text-only rows: texts and options together, at least `threshold` Jaccard."""
    plain = [row for row in rows if not row.pixels]
    full = [" ".join([row.question, *sorted(row.example.options)]) for row in plain]
    return [
        NearText(plain[left].example, plain[right].example, similarity, plain[left].answer == plain[right].answer)
        for left, right, similarity in near_texts(full, threshold)
    ]


def near_text_duplicates(pairs: Sequence[NearText]) -> Iterator[LeftOut]:
    """Yield the later row of each near pair with one answer, where the earlier one was kept."""
    gone: set[str] = set()
    for pair in sorted(pairs, key=lambda pair: -pair.similarity):
        if pair.same_answer and pair.kept.id not in gone and pair.later.id not in gone:
            gone.add(pair.later.id)
            evidence: dict[str, JSON] = {"twin": pair.kept.id, "text_jaccard": round(pair.similarity, 4)}
            yield LeftOut(pair.later.id, "duplicate", "near duplicate", evidence)
