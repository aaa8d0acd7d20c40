"""Qwen2.5-VL in GGUF: the text model's tensors as they are, and the vision tower's file (mmproj).

Says which towers llama.cpp's graph can compute (conversion/qwenvl.py, tools/mtmd/clip.cpp); others are refused by what
differs. Knows no file and no value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..runtime.tensors import VisionSizes
from .gguf_names import FamilyMapping, GgufTensor, GgufUnsupported, TextShape, refuse_unless, taken_as_is


@dataclass(frozen=True)
class VisionShape:
    """The numbers of a vision tower. full_attention_every: one layer in so many sees the whole image."""

    sizes: VisionSizes
    heads: int
    full_attention_every: int

    @staticmethod
    def of(config: Mapping[str, Any]) -> VisionShape:
        """Read a config.json. Raises GgufUnsupported for what llama.cpp's graph fixes otherwise."""
        vision = config.get("vision_config") or {}
        try:
            sizes = VisionSizes(
                layers=int(vision["depth"]),
                hidden=int(vision["hidden_size"]),
                ffn=int(vision["intermediate_size"]),
                patch=int(vision.get("patch_size", 14)),
                out=int(vision["out_hidden_size"]),
            )
            channels = int(vision.get("in_channels", vision.get("in_chans", 3)))
            shape = VisionShape(
                sizes=sizes,
                heads=int(vision["num_heads"]),
                full_attention_every=_every(vision["fullatt_block_indexes"], int(vision["depth"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GgufUnsupported(f"vision_config lacks or garbles {error}, which a GGUF file needs") from None
        # llama.cpp has these as constants (tools/mtmd/clip.cpp): a file cannot say otherwise.
        for key, wanted in (("window_size", 112), ("spatial_merge_size", 2), ("temporal_patch_size", 2)):
            refuse_unless(int(vision.get(key, wanted)) == wanted, f"vision {key} {vision.get(key)}")
        refuse_unless(vision.get("hidden_act", "silu") == "silu", f"vision hidden_act {vision.get('hidden_act')!r}")
        refuse_unless(channels == 3, f"images of {channels} channels")
        whole = shape.heads > 0 and sizes.hidden % (4 * shape.heads) == 0
        refuse_unless(whole, f"{sizes.hidden} vision values in {shape.heads} heads")
        return shape


def vision_tensors(shape: VisionShape) -> tuple[GgufTensor, ...]:
    """Return the tensors of the vision tower's file, in the order in which they are written."""
    return taken_as_is(shape.sizes.tensors())


def _every(indexes: Any, depth: int) -> int:
    """Return the spacing of the layers with full attention; llama.cpp stores that one number, not the list."""
    every = int(indexes[0]) + 1 if indexes else 0
    if every == 1 and len(indexes) == depth:
        raise GgufUnsupported("full attention at every layer of the vision tower: llama.cpp needs windows; use ONNX")
    if not every or [int(index) for index in indexes] != list(range(every - 1, depth, every)):
        raise GgufUnsupported(
            f"full attention at layers {list(indexes)} of {depth} is not evenly spaced; "
            "llama.cpp knows one spacing only, use an ONNX level"
        )
    return every


def _keys(shape: TextShape) -> dict[str, int | list[int]]:
    return {"rope.dimension_sections": [*(shape.sections or ()), 0]}


MAPPING = FamilyMapping(
    unusual=lambda config: [],
    own_head_dim=False,
    tensors=lambda shape: taken_as_is(shape.sizes.tensors()),
    keys=_keys,
    vision_tensors=lambda config: vision_tensors(VisionShape.of(config)),
)
