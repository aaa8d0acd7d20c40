"""Holds the headers of a level's files against config.json and the tokenizer that the bundle shares.

What a graph takes from a header (rotary sections and base, epsilon, heads, window spacing, token table, template) is
the same wrong number on both sides of a comparison of two engines on that file: so it is compared by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import MissingExtra
from ..runtime.families import family_of
from ..runtime.llama_files import PROJECTOR, VISION_ARCHITECTURE
from ..runtime.preprocessing import PixelRules
from ..runtime.prompt import Prompter, read_json
from ..runtime.tensorrt_recipe import RECIPE, Network, Recipe
from .agreement import image_token_fault
from .certificate_gguf import computed_fault
from .certificate_onnx import graph_inputs, graph_metadata, rotary_frequencies
from .dequantised_level import Level
from .family_mappings import mapping_of
from .family_qwen2_5_vl import VisionShape
from .gguf_names import TextShape
from .gguf_vocabulary import read_vocabulary

_RELATIVE = 1e-6
"""Numbers are stored in float32."""
_VISION_ROPE_BASE = 10000.0
VISION_NORM_EPSILON = 1e-6
"""In transformers' code, whatever config.json says of the text model."""


def header_fault(level: Level) -> str | None:
    """Return the first entry that is not what shared/ says, in words; None where all are. Raises MissingExtra."""
    config = read_json(level.shared / "config.json")
    if fault := image_token_fault(config, Prompter.open(level.shared)):
        return fault
    if level.format == "gguf":
        fault = _gguf_fault(level.text, _text_header(level.shared, config)) or computed_fault(level.text, config)
        if fault or level.tower is None:
            return fault
        return _gguf_fault(level.tower, _tower_header(config, _rules(level)))
    fault = _recipe_fault(level) if level.format == "tensorrt" else None
    return fault or _onnx_fault(level, config)


def _rules(level: Level) -> PixelRules:
    return PixelRules.from_json(read_json(level.shared / "preprocessor_config.json"))


def _text_header(shared: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    architecture, mapping = family_of(config).gguf, mapping_of(config)
    shape = mapping.shape(config)
    vocabulary = read_vocabulary(shared, shape.sizes.vocabulary)
    numbers = {
        "block_count": shape.sizes.layers,
        "context_length": shape.context,
        "embedding_length": shape.sizes.hidden,
        "feed_forward_length": shape.sizes.ffn,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "rope.freq_base": shape.rope_base,
        "attention.layer_norm_rms_epsilon": shape.norm_epsilon,
        **mapping.keys(shape),
    }
    return {
        "general.architecture": architecture,
        **{f"{architecture}.{key}": value for key, value in numbers.items()},
        "tokenizer.ggml.pre": vocabulary.pre_tokenizer,
        "tokenizer.ggml.tokens": list(vocabulary.tokens),
        "tokenizer.ggml.token_type": list(vocabulary.kinds),
        "tokenizer.ggml.merges": list(vocabulary.merges),
        **{f"tokenizer.ggml.{key}": token for key, token in vocabulary.special.items()},
        **{f"tokenizer.ggml.add_{name}_token": added for name, added in vocabulary.added.items()},
        **({"tokenizer.chat_template": vocabulary.template} if vocabulary.template else {}),
    }


def _tower_header(config: Mapping[str, Any], rules: PixelRules) -> dict[str, Any]:
    shape = VisionShape.of(config)
    numbers = {
        "projection_dim": shape.sizes.out,
        "patch_size": rules.patch_size,
        "embedding_length": shape.sizes.hidden,
        "feed_forward_length": shape.sizes.ffn,
        "block_count": shape.sizes.layers,
        "attention.head_count": shape.heads,
        "attention.layer_norm_epsilon": VISION_NORM_EPSILON,
        "image_mean": list(rules.mean),
        "image_std": list(rules.std),
        "n_wa_pattern": shape.full_attention_every,
    }
    return {
        "general.architecture": VISION_ARCHITECTURE,
        "clip.projector_type": PROJECTOR,
        "clip.use_silu": True,
        **{f"clip.vision.{key}": value for key, value in numbers.items()},
    }


def _gguf_fault(path: Path, wanted: Mapping[str, Any]) -> str | None:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtra("export", "gguf") from error
    fields = gguf.GGUFReader(path).fields
    for key, value in wanted.items():
        if key not in fields:
            return f"{path.name} lacks {key}"
        if not _equal(fields[key].contents(), value):
            return f"{path.name}: {key} is {_short(fields[key].contents())}, shared/ says {_short(value)}"
    return None


def _recipe_fault(level: Level) -> str | None:
    """Return how the recipe, by which engines are built, names other graphs than those that are read here.

    Raises RecipeError where it is malformed, or a file is not the one that it was written for.
    """
    recipe = Recipe.read(level.folder / level.entry.name / RECIPE)
    if recipe.level != level.entry.name:
        return f"{RECIPE} is that of {recipe.level}"
    wanted = {"decoder": level.text} if level.tower is None else {"decoder": level.text, "vision": level.tower}
    if set(recipe.networks) != set(wanted):
        return f"{RECIPE} names {' and '.join(recipe.networks)} in place of {' and '.join(wanted)}"
    for name, path in wanted.items():
        stated, mine = recipe.networks[name], path.relative_to(level.folder).as_posix()
        if stated.onnx != mine:
            return f"{RECIPE}: the graph of {name} is {stated.onnx}, the level's is {mine}"
        if fault := _sizes_fault(name, stated, graph_inputs(path)):
            return fault
        recipe.check_files(level.folder, name)
    return None


def _sizes_fault(name: str, network: Network, inputs: Mapping[str, tuple[int | None, ...]]) -> str | None:
    for profile in network.profiles:
        if strange := sorted(set(inputs) ^ set(profile.shapes)):
            return f"{RECIPE}: profile {profile.name} of {name} and its graph do not both have {strange[0]}"
        for port, sides in inputs.items():
            for shape in profile.shapes[port]:
                fixed = [(side, own) for side, own in zip(shape, sides, strict=False) if own is not None]
                if len(shape) != len(sides) or any(side != own for side, own in fixed):
                    return f"{RECIPE}: profile {profile.name} of {name} gives {port} the shape {list(shape)}"
    return None


def _onnx_fault(level: Level, config: Mapping[str, Any]) -> str | None:
    shape = TextShape.of(config)
    plain = shape.rope_base ** (-np.arange(0, shape.head_dim, 2) / shape.head_dim)
    if shape.scaling is not None:
        plain = shape.scaling.frequencies(shape.rope_base, shape.head_dim).numpy().astype(np.float64)
    graphs = [(level.text, plain)]
    if level.tower is not None:
        rules, eyes = _rules(level), config.get("vision_config") or {}
        stated = graph_metadata(level.tower)
        for key, value in (
            ("window_size", int(eyes.get("window_size", 112))),
            ("patch_size", rules.patch_size),
            ("merge_size", rules.merge_size),
        ):
            if stated.get(key) != str(value):
                return f"{level.tower.name}: {key} is {stated.get(key)}, shared/ says {value}"
        width = int(eyes["hidden_size"]) // int(eyes["num_heads"]) // 2
        graphs.append((level.tower, _VISION_ROPE_BASE ** (-np.arange(0, width, 2) / width)))
    for path, wanted in graphs:
        found = rotary_frequencies(path)
        if found is None or not _equal(found.tolist(), wanted.tolist()):
            return f"{path.name}: its rotary frequencies are not those of config.json"
    return None


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple)):
        both = isinstance(found, (list, tuple)) and len(found) == len(wanted)
        return both and all(_equal(one, other) for one, other in zip(found, wanted, strict=True))
    if isinstance(wanted, float):
        return isinstance(found, (int, float)) and math.isclose(float(found), wanted, rel_tol=_RELATIVE)
    return bool(found == wanted)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
