"""The first gates: the licence, images that carry something, texts that ask something.

Each gate yields the rows it leaves out and looks at one row at a time; only the blur limit is taken over a modality.
Knows neither duplicates nor roles.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..evaluation.example import Example
from .curate_fingerprints import Fingerprint
from .curate_ledger import LeftOut
from .curate_recipe import ImageRules, LicenceRules, TextRules
from .curate_texts import token_count, words

# Blanks, line ends and invisible formatting marks (zero-width space, soft hyphen) are ordinary text.
_BLANK = frozenset({"Zs", "Zl", "Zp", "Cf"})
_OFFERS = frozenset({"or", "vs", "versus"})


def licence_gate(examples: Sequence[Example], rules: LicenceRules) -> Iterator[LeftOut]:
    """Yield the rows whose licence is not on the list."""
    allowed = {licence.casefold() for licence in rules.allow}
    for example in examples:
        if example.license.casefold() not in allowed:
            yield LeftOut(example.id, "licence", "licence is not on the list", {"license": example.license})


def image_gate(
    examples: Sequence[Example], prints: Mapping[str, Fingerprint | str], rules: ImageRules
) -> Iterator[LeftOut]:
    """Yield the rows with an image that does not decode or carries nothing.

    prints: by ImageRef.path; a text says why the image cannot be opened.
    """
    blurred = _blur_limits(examples, prints, rules)
    for example in examples:
        for ref in example.images:
            image = prints[ref.path]
            if isinstance(image, str):
                yield LeftOut(example.id, "image", "image cannot be opened", {"image": ref.path, "error": image})
                break
            fault = _image_fault(image, blurred.get(example.modality, 0.0), rules)
            if fault:
                reason, name, value = fault
                yield LeftOut(example.id, "image", reason, {"image": ref.path, name: value})
                break


def _image_fault(image: Fingerprint, min_sharpness: float, rules: ImageRules) -> tuple[str, str, float] | None:
    short, long = sorted((image.height, image.width))
    if short < rules.min_side_pixels:
        return "image is too small", "side_pixels", short
    if long > rules.max_aspect * short:
        return "image is too long for its width", "aspect", round(long / short, 3)
    if image.contrast < rules.min_contrast:
        return "image is nearly constant", "contrast", round(image.contrast, 3)
    if image.sharpness < min_sharpness:
        return "image is blurred for its modality", "sharpness", round(image.sharpness, 3)
    return None


def _blur_limits(
    examples: Sequence[Example], prints: Mapping[str, Fingerprint | str], rules: ImageRules
) -> dict[str, float]:
    """Return the lowest sharpness by modality, over those of its images that pass the other tests."""
    if not rules.blur_percentile:
        return {}
    values: dict[str, dict[str, float]] = {}
    for example in examples:
        for ref in example.images:
            image = prints[ref.path]
            if isinstance(image, Fingerprint) and _image_fault(image, 0.0, rules) is None:
                values.setdefault(example.modality, {})[image.pixels] = image.sharpness
    return {
        modality: float(np.percentile(list(found.values()), rules.blur_percentile))
        for modality, found in values.items()
        if len(found) >= rules.blur_min_images
    }


def text_gate(examples: Sequence[Example], rules: TextRules) -> Iterator[LeftOut]:
    """Yield the rows whose question cannot be meant: too short or long, unreadable, or with its answer in it."""
    for example in examples:
        tokens = token_count(example.question)
        most = rules.max_question_tokens if example.images else rules.max_text_only_tokens
        if tokens < rules.min_question_tokens:
            yield LeftOut(example.id, "text", "question is too short", {"tokens": tokens})
        elif tokens > most:
            yield LeftOut(example.id, "text", "question is too long", {"tokens": tokens})
        elif (broken := unreadable(example)) is not None:
            yield LeftOut(example.id, "text", "text has unreadable characters", {"character": f"U+{ord(broken):04X}"})
        elif gives_answer_away(example):
            yield LeftOut(example.id, "text", "question gives its answer away", {"answer": example.answer})


def unreadable(example: Example) -> str | None:
    """Return the first character that shows a decoding fault: the replacement mark, or a control character."""
    for text in (*example.texts, example.answer, *example.options, *example.aliases):
        for character in text:
            if character == "\ufffd" or not (
                character.isprintable() or unicodedata.category(character) in _BLANK or character in "\n\r\t"
            ):
                return character
    return None


def gives_answer_away(example: Example) -> bool:
    """Return whether the question names the answer alone; one that offers a choice ("CT or MRI?") does not.

    A bare number is no give-away: it stands in a vignette for another reason.
    """
    asked = words(example.question)
    number = all(word.isdigit() or not word.isalnum() for word in words(example.answer))
    if example.answer_type == "yesno" or _OFFERS & set(asked) or number:
        return False
    others = [option for option in example.options if option != example.answer]
    return _named(example.answer, asked) and not any(_named(option, asked) for option in others)


def _named(text: str, asked: list[str]) -> bool:
    wanted = words(text)
    return bool(wanted) and any(
        asked[start : start + len(wanted)] == wanted for start in range(len(asked) - len(wanted) + 1)
    )
