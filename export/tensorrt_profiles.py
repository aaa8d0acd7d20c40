"""The sizes that a TensorRT engine is built for: prompts, single tokens and images, self-consistent at every end.

TensorRT checks a profile's least, usual and largest sizes each as one call, so total = past + tokens holds at each.
Knows the graphs' inputs, no file and no TensorRT.
"""

from __future__ import annotations

from ..runtime.onnx_backend import STEP_TOKENS
from ..runtime.tensorrt_recipe import Profile, Sides
from ..runtime.vision_index import window_tokens
from .onnx_decoder import DecoderNumbers
from .onnx_vision import VisionNumbers

CONTEXT_TOKENS = 4096
"""The longest sequence an engine is built for; less where the model was made for less."""
MAX_PATCHES = 4096
"""The largest image an engine is built for (896 x 896 at patches of 14): attention over it grows with the square."""
USUAL_PATCHES = 1024
Sizes = tuple[int, int, int]


def decoder_profiles(numbers: DecoderNumbers, context_tokens: int) -> tuple[Profile, ...]:
    """Return "prefill" (1 to STEP_TOKENS tokens at a time, logits for any of them) and "decode" (one token)."""
    context = min(context_tokens, CONTEXT_TOKENS)
    step = min(STEP_TOKENS, context)
    return (
        _decoder(numbers, "prefill", (1, step, step), (0, 0, context), (0, 1, step)),
        _decoder(numbers, "decode", (1, 1, 1), (0, context // 2, context), (1, 1, 1)),
    )


def _decoder(numbers: DecoderNumbers, name: str, tokens: Sizes, past: Sizes, rows: Sizes) -> Profile:
    total = [more + before for more, before in zip(tokens, past, strict=True)]
    cache = _three(*((before, numbers.kv_heads, numbers.head_dim) for before in past))
    shapes = {
        "inputs_embeds": _three(*((1, count, numbers.hidden) for count in tokens)),
        "position_ids": _three(*((3, 1, count) for count in tokens)),
        "attention_mask": _three(*((1, count) for count in total)),
        "logit_rows": _three(*((count,) for count in rows)),
    }
    return Profile(name, {**shapes, **dict.fromkeys(numbers.cache_names("past"), cache)})


def vision_profiles(numbers: VisionNumbers, max_pixels: int) -> tuple[Profile, ...]:
    """Return "image": one image of up to `max_pixels`, at most MAX_PATCHES patches.

    Windows: a picture one token high has the most of them for its patches, one for each token of a window's side.
    """
    least = numbers.merge_size**2
    largest = max(min(max_pixels // numbers.patch_size**2, MAX_PATCHES) // least * least, least)
    usual = min(USUAL_PATCHES, largest)
    side = window_tokens(numbers.window_size, numbers.patch_size, numbers.merge_size) * numbers.merge_size
    patches = (least, usual, largest)
    windows = (1, -(-usual // side**2), -(-largest // (side * numbers.merge_size)))
    shapes = {
        "pixel_values": _three(*((count, numbers.patch_values) for count in patches)),
        "position_ids": _three(*((count, 2) for count in patches)),
        "win_gather": _three(*((count, side**2) for count in windows)),
        "win_mask": _three(*((count, side**2) for count in windows)),
        "win_scatter": _three(*((count,) for count in patches)),
        "seg_ids": _three(*((count,) for count in patches)),
    }
    return (Profile("image", shapes),)


def _three(least: Sides, usual: Sides, largest: Sides) -> tuple[Sides, Sides, Sides]:
    return least, usual, largest
