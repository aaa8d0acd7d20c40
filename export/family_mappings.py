"""Which mapping file a family has. A row here and one in runtime/families.py make a family (docs/families.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..runtime.families import family_of
from . import family_llama, family_qwen2, family_qwen2_5_vl
from .gguf_names import FamilyMapping

MAPPINGS: Mapping[str, FamilyMapping] = {
    "qwen2.5-vl": family_qwen2_5_vl.MAPPING,
    "qwen2": family_qwen2.MAPPING,
    "llama": family_llama.MAPPING,
}


def mapping_of(config: Mapping[str, Any]) -> FamilyMapping:
    """Return the mapping of the family that a config.json names. Raises UnsupportedFamily."""
    return MAPPINGS[family_of(config).name]
