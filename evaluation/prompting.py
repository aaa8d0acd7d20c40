"""How an example is put to a model: one user message, and the reply it is trained to give.

Training, calibration and evaluation all ask through this file, so that no level ever sees another wording. Knows no
template and no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.messages import ImagePart, Message, Part, TextPart
from .example import DatasetError, Example, TextRef


def messages_for(example: Example, images: Sequence[ImagePart]) -> tuple[Message, ...]:
    """Return ONE user message: images and texts in their order, the question last.

    images: one per ImageRef of the example, in order. A choice question is followed by its options on a new line.
    """
    if len(images) != len(example.images):
        raise DatasetError(f"example {example.id!r} shows {len(example.images)} image(s), not {len(images)}")
    remaining = iter(images)
    last = len(example.content) - 1
    parts: list[Part] = []
    for index, part in enumerate(example.content):
        if isinstance(part, TextRef):
            parts.append(TextPart(question_text(example) if index == last else part.text))
        else:
            parts.append(next(remaining))
    return (Message("user", tuple(parts)),)


def question_text(example: Example) -> str:
    """Return the question as it is asked: the options of a choice are named, those of yes/no are not."""
    return with_options(example.question, example.options) if example.answer_type == "choice" else example.question


def with_options(question: str, options: Sequence[str]) -> str:
    """Return a choice question with its options named on a line of their own."""
    return f"{question}\nOptions: {'; '.join(options)}"


def target_for(example: Example) -> str:
    """Return the reply that a model is trained to give: the answer itself."""
    return example.answer
