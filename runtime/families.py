"""The model families infimed knows: one row each.

A family joins when a tiny random model of it passes the parity gate in GGUF and in ONNX. Knows names
only: graphs and tensor names live in export/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import InfimedError


class UnsupportedFamily(InfimedError):
    """The checkpoint's architecture is not one that infimed knows."""


@dataclass(frozen=True)
class Family:
    """One family. architecture: as config.json names it. image_token: the token string in place of an image."""

    name: str
    architecture: str
    image_token: str


FAMILIES: tuple[Family, ...] = (
    Family(
        name="qwen2.5-vl",
        architecture="Qwen2_5_VLForConditionalGeneration",
        image_token="<|image_pad|>",
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
