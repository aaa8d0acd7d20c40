"""Which mapping file a family has. A row here and one in runtime/families.py make a family (docs/families.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import InfimedError
from ..runtime.families import family_of
from ..runtime.levels import QuantLevel
from . import family_llama, family_qwen2, family_qwen2_5_vl
from .gguf_names import FamilyMapping


class NoVisionTower(InfimedError):
    """A level names how a vision tower is stored, and the family has none."""


MAPPINGS: Mapping[str, FamilyMapping] = {
    "qwen2.5-vl": family_qwen2_5_vl.MAPPING,
    "qwen2": family_qwen2.MAPPING,
    "llama": family_llama.MAPPING,
}


def mapping_of(config: Mapping[str, Any]) -> FamilyMapping:
    """Return the mapping of the family that a config.json names. Raises UnsupportedFamily."""
    return MAPPINGS[family_of(config).name]


def refuse_towers(config: Mapping[str, Any], rows: Iterable[QuantLevel]) -> None:
    """Refuse levels that say how to store a vision tower where the family has none. Raises NoVisionTower."""
    family = family_of(config)
    for row in rows:
        if family.image_token is None and "+vision-" in row.name:
            without = row.name.split("+vision-")[0]
            raise NoVisionTower(f"level {row.name}: {family.name} models have no vision tower; ask for {without}")
