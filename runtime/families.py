"""The model families infimed knows: one row each.

A family joins when a tiny random model of it passes the parity gate in GGUF and in ONNX (docs/families.md says how).
Knows names and kinds only: tensors are in tensors.py, what a family's files say in export/family_*.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .. import InfimedError


class UnsupportedFamily(InfimedError):
    """The checkpoint's architecture is not one that infimed knows."""


@dataclass(frozen=True)
class Family:
    """One family.

    architecture: as config.json names it. gguf: llama.cpp's name of its text model. image_token: the token string in
    place of an image, None where the family takes none. rotary: "sections" where parts of a head turn with time, height
    and width, "plain" where all turn with one position, "stretched" where the checkpoint may slow some of those turns
    (rope_type llama3). biases: whether queries, keys and values have them.
    """

    name: str
    architecture: str
    gguf: str
    image_token: str | None
    rotary: Literal["sections", "plain", "stretched"]
    biases: bool


FAMILIES: tuple[Family, ...] = (
    Family(
        name="qwen2.5-vl",
        architecture="Qwen2_5_VLForConditionalGeneration",
        gguf="qwen2vl",
        image_token="<|image_pad|>",
        rotary="sections",
        biases=True,
    ),
    Family(
        name="qwen2",
        architecture="Qwen2ForCausalLM",
        gguf="qwen2",
        image_token=None,
        rotary="plain",
        biases=True,
    ),
    Family(
        name="llama",
        architecture="LlamaForCausalLM",
        gguf="llama",
        image_token=None,
        rotary="stretched",
        biases=False,
    ),
)


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family that a config.json names.

    Raises UnsupportedFamily with the list of what is supported.
    """
    stated = config.get("architectures") or []
    named = [str(name) for name in stated] if isinstance(stated, list) else [str(stated)]
    for family in FAMILIES:
        if family.architecture in named:
            return family
    supported = ", ".join(f"{family.name} ({family.architecture})" for family in FAMILIES)
    raise UnsupportedFamily(f"architecture {', '.join(named) or 'not named'} is not supported; supported: {supported}")


def family_named(name: str) -> Family:
    """Return the family of that name, as a bundle or a shape states it. Raises UnsupportedFamily."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise UnsupportedFamily(f"family {name!r} is unknown; known: {', '.join(family.name for family in FAMILIES)}")
