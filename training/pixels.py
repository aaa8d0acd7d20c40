"""Changes the size that images are resized to in a preprocessor_config.json, in whichever way the file says it."""

from __future__ import annotations

from pathlib import Path

from ..runtime.files import canonical_json
from ..runtime.preprocessing import PixelRules
from ..runtime.prompt import read_json
from .recipe import RecipeError
from .sft_recipe import ImageSpec


def override_pixels(config_file: Path, images: ImageSpec) -> bytes:
    """Return the file's bytes with the recipe's min_pixels and max_pixels in place of its own; as it is without them.

    transformers has written the two as min_pixels and max_pixels and as size.shortest_edge and size.longest_edge; both
    are set, so that either reader finds the same numbers. Raises RecipeError where the least would exceed the most.
    """
    if images.min_pixels is None and images.max_pixels is None:
        return config_file.read_bytes()
    config = read_json(config_file)
    rules = PixelRules.from_json(config)
    least, most = images.min_pixels or rules.min_pixels, images.max_pixels or rules.max_pixels
    if least > most:
        raise RecipeError(f"min_pixels {least} would be above max_pixels {most}; set both in the recipe")
    config |= {"min_pixels": least, "max_pixels": most}
    config["size"] = {**(config.get("size") or {}), "shortest_edge": least, "longest_edge": most}
    return canonical_json(config)
