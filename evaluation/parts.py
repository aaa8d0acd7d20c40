"""The parts of an example: its images, and the texts that stand before the question (a report, laboratory values).

A text that ends with a colon and stands before an image is that image's label ("Prior image:") and one part with it.
Knows no pixels, no engine and no run.
"""

from __future__ import annotations

from dataclasses import dataclass

from .example import Example, ImageRef, TextRef


@dataclass(frozen=True)
class Shown:
    """One part. name: "image-1", "text-2", each kind counted in its order. places: in the example's content."""

    name: str
    places: tuple[int, ...]


def parts_of(example: Example) -> tuple[Shown, ...]:
    """Return what an example shows before its question, in order."""
    found: list[Shown] = []
    counts = {"image": 0, "text": 0}
    label: int | None = None
    for place, part in enumerate(example.content[:-1]):
        after = example.content[place + 1]
        if isinstance(part, TextRef) and part.text.rstrip().endswith(":") and isinstance(after, ImageRef):
            label = place
            continue
        kind = "image" if isinstance(part, ImageRef) else "text"
        counts[kind] += 1
        places = (place,) if label is None else (label, place)
        found.append(Shown(f"{kind}-{counts[kind]}", places))
        label = None
    return tuple(found)


def is_cross_modal(images: int, parts: int) -> bool:
    """Return whether an item of so many images and parts shows an image together with another part."""
    return images > 0 and max(images, parts) > 1
