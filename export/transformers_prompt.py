"""What transformers itself makes of the same messages: the independent reference of the pixel path and the token path.

Uses the checkpoint's own processor classes; none of our arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.messages import ImagePart, Message
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


def transformers_prompter(checkpoint: Path) -> Callable[[Sequence[Message]], ReferencePrompt]:
    """Return a function that turns messages into transformers' prompt for a Qwen2.5-VL checkpoint.

    Raises MissingExtra, or CheckpointError in one line for files that transformers refuses.
    """
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

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        processor: Any = StillImageProcessor(
            image_processor=Qwen2VLImageProcessorPil.from_pretrained(checkpoint),
            tokenizer=tokenizer,
            chat_template=tokenizer.chat_template,
        )
        with torch.device("meta"):
            model = Qwen2_5_VLForConditionalGeneration(AutoConfig.from_pretrained(checkpoint)).model
    except MemoryError:
        raise
    except Exception as error:  # of many kinds for files that mean nothing; all are about the checkpoint
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"transformers cannot open {checkpoint} ({type(error).__name__}: {reason})") from None

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
        text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        made = processor(text=[text], images=images or None, return_tensors="pt")
        grids = made.get("image_grid_thw")
        if grids is None:
            count = made["input_ids"].shape[1]
            positions = np.tile(np.arange(count), (3, 1))
            return ReferencePrompt(
                made["input_ids"][0].numpy(), positions, np.empty((0, 0), np.float32), np.empty((0, 3), np.int64)
            )
        found, _ = model.get_rope_index(made["input_ids"], made["mm_token_type_ids"], image_grid_thw=grids)
        return ReferencePrompt(
            made["input_ids"][0].numpy(), found[:, 0].numpy(), made["pixel_values"].numpy(), grids.numpy()
        )

    return prompt
