"""What transformers itself makes of the same messages: the independent reference of the pixel path and the token path.

Uses the checkpoint's own tokenizer and processor classes; none of our arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.families import family_of
from ..runtime.messages import ImagePart, Message, TextPart
from ..runtime.prompt import read_json
from ..runtime.shape import CheckpointError


@dataclass(frozen=True, eq=False)
class ReferencePrompt:
    """A prompt as transformers makes it.

    token_ids: (tokens,). positions: (3, tokens). pixels: (patches of all images, values), grids: (images, 3).
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    pixels: NDArray[np.float32]
    grids: NDArray[np.int64]


Reference = Callable[[Sequence[Message]], ReferencePrompt]


def transformers_prompter(checkpoint: Path) -> Reference:
    """Return a function that turns messages into transformers' prompt for a checkpoint of a family that infimed knows.

    Raises MissingExtra, UnsupportedFamily, or CheckpointError in one line for files that transformers refuses.
    """
    family = family_of(read_json(checkpoint / "config.json"))
    return _text_prompter(checkpoint) if family.image_token is None else _qwen2_5_vl_prompter(checkpoint)


def _text_prompter(checkpoint: Path) -> Reference:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra("export", error.name or "transformers") from error
    with _refused(checkpoint):
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    template: Any = tokenizer.chat_template
    if isinstance(template, str) and "strftime_now" in template:
        # It writes today's date where it finds a clock. A prompt here is the same on any day, so neither side has one.
        template = "{% set strftime_now = no_clock %}" + template

    def prompt(messages: Sequence[Message]) -> ReferencePrompt:
        turns = [
            {"role": message.role, "content": "".join(p.text for p in message.parts if isinstance(p, TextPart))}
            for message in messages
        ]
        with _refused(checkpoint):
            ids = tokenizer.apply_chat_template(
                turns, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        return _without_images(np.array(ids, np.int64))

    return prompt


def _qwen2_5_vl_prompter(checkpoint: Path) -> Reference:
    try:
        import torch
        from transformers import AutoConfig, AutoTokenizer
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
        from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
        from transformers.processing_utils import ProcessorMixin
    except ImportError as error:
        raise MissingExtra("export", error.name or "transformers") from error

    class StillImageProcessor(Qwen2_5_VLProcessor):
        """The family's processor without its video half, which needs torchvision."""

        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None
        ) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            mixin: Any = ProcessorMixin
            mixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    with _refused(checkpoint):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        processor: Any = StillImageProcessor(
            image_processor=Qwen2VLImageProcessorPil.from_pretrained(checkpoint),
            tokenizer=tokenizer,
            chat_template=tokenizer.chat_template,
        )
        with torch.device("meta"):
            model = Qwen2_5_VLForConditionalGeneration(AutoConfig.from_pretrained(checkpoint)).model

    def prompt(messages: Sequence[Message]) -> ReferencePrompt:
        turns = [
            {
                "role": message.role,
                "content": [
                    {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
                    for part in message.parts
                ],
            }
            for message in messages
        ]
        images = [part.rgb for message in messages for part in message.parts if isinstance(part, ImagePart)]
        with _refused(checkpoint):
            text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            made = processor(text=[text], images=images or None, return_tensors="pt")
            grids = made.get("image_grid_thw")
            if grids is None:
                return _without_images(made["input_ids"][0].numpy())
            found, _ = model.get_rope_index(made["input_ids"], made["mm_token_type_ids"], image_grid_thw=grids)
        return ReferencePrompt(
            made["input_ids"][0].numpy(), found[:, 0].numpy(), made["pixel_values"].numpy(), grids.numpy()
        )

    return prompt


def _without_images(token_ids: NDArray[np.int64]) -> ReferencePrompt:
    positions = np.tile(np.arange(len(token_ids)), (3, 1))
    return ReferencePrompt(token_ids, positions, np.empty((0, 0), np.float32), np.empty((0, 3), np.int64))


@contextmanager
def _refused(checkpoint: Path) -> Iterator[None]:
    """Turn what transformers raises on files that mean nothing into one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # of many kinds; all are about the checkpoint
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"transformers cannot open {checkpoint} ({type(error).__name__}: {reason})") from None
