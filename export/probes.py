"""The golden prompts: a seeded mix of texts and images on which every level of a bundle is compared.

Drawn, not photographed: smooth fields with discs, at square, ragged and very unequal sizes. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtime.messages import ImagePart, Message, assistant, user
from ..runtime.preprocessing import PixelRules

QUESTIONS = (
    "Is there a lesion in this image?",
    "Which imaging modality was used?",
    "On which side of the image is the finding?\nOptions: left; right",
    "How many lesions are visible?\nOptions: 0; 1; 2; 3",
    "Is the finding small or large?\nOptions: small; large",
    "Describe what the image shows.",
)
TEXTS = (
    "Which imaging modality uses no ionising radiation?\nOptions: CT; ultrasound; X-ray",
    "A 63-year-old has had a fever of 39.1 \u00b0C for 4 days. Name two likely causes.",
    "Is an opacity in the right lower lobe a normal finding?",
    "Grade 2 retinopathy: what follows? \u2265 5 haemorrhages were seen.",
)
REPORT = (
    "Report {n}: the lungs are clear, the heart is of normal size, and there is no effusion on the right side. "
    "A nodule of {n} mm was seen in segment {n}; follow-up in {n} months is advised. "
)
KINDS = ("text", "square", "ragged", "two images", "long", "conversation")
TEXT_KINDS = ("text", "long", "conversation")
"""What is left of them for a family that takes no images."""


@dataclass(frozen=True)
class Probe:
    """One golden prompt. kind: one of KINDS."""

    id: str
    kind: str
    messages: tuple[Message, ...]


def make_probes(count: int, rules: PixelRules | None, seed: int = 0, long_tokens: int = 400) -> tuple[Probe, ...]:
    """Return `count` probes, the kinds in turn; same arguments, same probes.

    rules: their area limits bound the images; None for a family that takes none. long_tokens: about how long a
    "long" probe is.
    """
    draws = [np.random.default_rng((seed, index)) for index in range(count)]
    if rules is None:
        return tuple(_text_probe(index, random, long_tokens) for index, random in enumerate(draws))
    return tuple(_probe(index, rules, random, long_tokens) for index, random in enumerate(draws))


def _text_probe(index: int, random: np.random.Generator, long_tokens: int) -> Probe:
    kind = TEXT_KINDS[index % len(TEXT_KINDS)]
    text, other = (TEXTS[int(place)] for place in random.permutation(len(TEXTS))[:2])
    if kind == "text":
        messages: tuple[Message, ...] = (user(text),)
    elif kind == "long":
        messages = (user(_reports(random, long_tokens), text),)
    else:
        messages = (user(other), assistant("yes"), user(text))
    return Probe(f"probe-{index:04d}", kind, messages)


def _reports(random: np.random.Generator, long_tokens: int) -> str:
    """Return a text of about so many tokens."""
    return "".join(REPORT.format(n=int(random.integers(2, 30))) for _ in range(max(1, long_tokens // 50)))


def _probe(index: int, rules: PixelRules, random: np.random.Generator, long_tokens: int) -> Probe:
    kind = KINDS[index % len(KINDS)]
    question = QUESTIONS[int(random.integers(len(QUESTIONS)))]
    text = TEXTS[int(random.integers(len(TEXTS)))]
    if kind == "text":
        messages: tuple[Message, ...] = (user(text),)
    elif kind == "square":
        side = int(min(rules.max_pixels**0.5, 448))
        messages = (user(draw(random, side, side), question),)
    elif kind == "ragged":
        messages = (user(draw(random, *_ragged(random, rules)), question),)
    elif kind == "two images":
        first, second = draw(random, *_ragged(random, rules)), draw(random, *_ragged(random, rules))
        messages = (user("Prior: ", first, " Current: ", second, "What changed? " + question),)
    elif kind == "long":
        reports = _reports(random, long_tokens)
        messages = (user(draw(random, *_ragged(random, rules)), reports + question),)
    else:
        messages = (user(draw(random, *_ragged(random, rules)), question), assistant("yes"), user(text))
    return Probe(f"probe-{index:04d}", kind, messages)


def _ragged(random: np.random.Generator, rules: PixelRules) -> tuple[int, int]:
    """Return a (height, width) of unequal sides, from below the smallest area to above the largest (up to 672 px)."""
    top = min(int(1.5 * rules.max_pixels**0.5), 672)
    height, width = (int(side) for side in random.integers(rules.factor, top, 2))
    return height, width


def draw(random: np.random.Generator, height: int, width: int) -> ImagePart:
    """Return a smooth random field with a few discs."""
    from PIL import Image

    coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    field = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    y, x = np.mgrid[:height, :width]
    for _ in range(int(random.integers(1, 5))):
        centre_y, centre_x = random.random() * height, random.random() * width
        radius = (0.05 + 0.15 * random.random()) * min(height, width)
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        field[inside] += random.uniform(-90, 90)
    field += random.normal(0, 6, field.shape)
    pixels: NDArray[np.uint8] = np.clip(np.rint(field), 0, 255).astype(np.uint8)
    return ImagePart(pixels)
