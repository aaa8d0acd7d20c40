"""How an example becomes a message: order kept, options named for a choice only."""

from __future__ import annotations

import numpy as np
import pytest

from infimed.evaluation.dataset import image_ref
from infimed.evaluation.example import AnswerType, DatasetError, Example, TextRef
from infimed.evaluation.prompting import messages_for, target_for
from infimed.runtime.messages import ImagePart, TextPart

REFS = [image_ref(b"\x89PNG\r\n\x1a\n" + bytes([number])) for number in range(2)]
IMAGES = [ImagePart(np.full((4, 4, 3), number, np.uint8)) for number in range(2)]


def example(options: tuple[str, ...], answer_type: AnswerType, answer: str) -> Example:
    return Example(
        id="q",
        content=(REFS[0], TextRef("The prior study."), REFS[1], TextRef("What changed?")),
        answer=answer,
        options=options,
        answer_type=answer_type,
        modality="ct",
        task="finding",
        source="s",
        license="MIT",
        group="g",
    )


def test_a_choice_is_one_user_message_in_order_with_its_options_on_a_new_line() -> None:
    (message,) = messages_for(example(("a mass", "nothing"), "choice", "nothing"), IMAGES)
    assert message.role == "user"
    assert message.parts == (
        IMAGES[0], TextPart("The prior study."), IMAGES[1], TextPart("What changed?\nOptions: a mass; nothing"),
    )  # fmt: skip


@pytest.mark.parametrize(("options", "kind", "answer"), [(("yes", "no"), "yesno", "yes"), ((), "open", "a mass")])
def test_yes_no_and_open_questions_are_asked_as_they_are(
    options: tuple[str, ...], kind: AnswerType, answer: str
) -> None:
    asked = example(options, kind, answer)
    assert messages_for(asked, IMAGES)[0].parts[-1] == TextPart("What changed?")
    assert target_for(asked) == answer


def test_a_missing_image_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"shows 2 image\(s\), not 1"):
        messages_for(example((), "open", "x"), IMAGES[:1])
