"""Makes examples to be probed: phantoms with their lesions' places, and questions written out. Knows no engine."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from infimed.evaluation.example import YES_NO, Example, ImageRef, TextRef
from infimed.evaluation.phantom_images import KINDS, Phantom
from infimed.evaluation.phantoms import TASKS, asked_of, example_of, phantoms


def image(name: str) -> ImageRef:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return ImageRef(f"images/{digest[:16]}.png", digest)


def question(text: str, answer: str, options: tuple[str, ...] = (), **more: object) -> Example:
    """Return an example with one image; choice, yes/no or open by its options."""
    kind = "open" if not options else "yesno" if options == YES_NO else "choice"
    given = {
        "id": "q", "content": (image("one"), TextRef(text)), "answer": answer, "options": options, "answer_type": kind,
        "modality": "xray", "task": "finding", "source": "made", "license": "CC0-1.0", "group": "patient",
        "role": "test",
    }  # fmt: skip
    return Example(**{**given, **more})  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def phantom_examples(count: int = 60, seed: int = 1) -> tuple[tuple[Phantom, Example], ...]:
    """Return every question about `count` phantoms of all kinds, each with its phantom; no picture is painted."""
    kinds = list(KINDS.values())
    return tuple(
        (one, example_of(one, asked, number, image(one.id), "test"))
        for one in phantoms(kinds, count, seed)
        for number, asked in enumerate(asked_of(one, kinds, TASKS, None))
    )
