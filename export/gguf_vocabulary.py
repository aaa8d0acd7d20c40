"""The tokenizer in a GGUF file: tokens, their kinds, merges and the pre-tokenizer's name, read from tokenizer.json.

llama.cpp knows pre-tokenizers by name; the name is found by the exact regular expression of tokenizer.json and an
unknown one is refused, never guessed. Engines of infimed are fed token ids; this is for other tools that open the file.
Knows no weight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.prompt import read_json
from .gguf_names import GgufUnsupported

# The regular expression that splits text before BPE -> llama.cpp's name for it.
PRE_TOKENIZERS: Mapping[str, str] = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": (
        "qwen2"
    ),
}
# Kinds of tokens (gguf.TokenType).
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# Names of special tokens in tokenizer_config.json and config.json -> in GGUF.
_SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file holds of a tokenizer. special: GGUF key -> token id. template: the chat template."""

    pre_tokenizer: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: Mapping[str, int]
    template: str | None


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read a checkpoint's tokenizer for an embedding of `size` rows. Raises GgufUnsupported or PromptError."""
    tokenizer = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json")
    model = tokenizer.get("model") or {}
    _check_model(model, tokenizer.get("normalizer"))
    tokens, kinds = _tokens(model, tokenizer.get("added_tokens") or [], size)
    ids = {token: index for index, token in enumerate(tokens)}
    template_file = folder / "chat_template.jinja"
    template = template_file.read_text("utf-8") if template_file.is_file() else settings.get("chat_template")
    return Vocabulary(
        pre_tokenizer=_pre_tokenizer(tokenizer.get("pre_tokenizer") or {}),
        tokens=tokens,
        kinds=kinds,
        merges=tuple(_merge(pair) for pair in model.get("merges") or []),
        special=_special(settings, read_json(folder / "config.json"), ids),
        template=template if isinstance(template, str) else None,
    )


def _check_model(model: Mapping[str, Any], normalizer: Mapping[str, Any] | None) -> None:
    """Refuse a tokenizer that is more than byte-level BPE after NFC: llama.cpp would read text otherwise."""
    if model.get("type") != "BPE":
        raise GgufUnsupported(f"the tokenizer is {model.get('type')!r}; GGUF export knows BPE")
    extra = [
        key
        for key in (
            "unk_token",
            "continuing_subword_prefix",
            "end_of_word_suffix",
            "byte_fallback",
            "ignore_merges",
            "dropout",
            "fuse_unk",
        )
        if model.get(key)
    ]
    if extra:
        raise GgufUnsupported(f"the tokenizer uses {', '.join(extra)}, which GGUF export does not know")
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise GgufUnsupported(f"the tokenizer normalises by {normalizer.get('type')!r}; GGUF export knows NFC")


def _pre_tokenizer(description: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the steps before BPE: one split by a known pattern, then bytes as letters."""
    steps = description.get("pretokenizers") or [description]
    split: Mapping[str, Any] = next((step for step in steps if step.get("type") == "Split"), {})
    pattern = str((split.get("pattern") or {}).get("Regex"))
    plain = (
        [step.get("type") for step in steps] == ["Split", "ByteLevel"]
        and split.get("behavior") == "Isolated"
        and not split.get("invert")
        and not steps[1].get("add_prefix_space")
        and not steps[1].get("use_regex")
    )
    name = PRE_TOKENIZERS.get(pattern) if plain else None
    if name is None:
        raise GgufUnsupported(
            f"the pre-tokenizer {json.dumps(description)[:300]} is unknown; known to GGUF export: "
            f"{', '.join(sorted(set(PRE_TOKENIZERS.values())))}"
        )
    return name


def _tokens(
    model: Mapping[str, Any], added: list[Mapping[str, Any]], size: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return `size` tokens and their kinds; rows of the embedding that have no token are named [PAD<id>]."""
    by_id = {int(index): (str(token), NORMAL) for token, index in (model.get("vocab") or {}).items()}
    for token in added:
        content = str(token["content"])
        # As llama.cpp's converter: what looks like <|...|> is a control token even where it is not marked special.
        control = token.get("special") or (content.startswith("<|") and content.endswith("|>"))
        by_id[int(token["id"])] = (content, CONTROL if control else USER_DEFINED)
    if not by_id or min(by_id) < 0 or max(by_id) >= size:
        raise GgufUnsupported(f"the tokenizer has token ids up to {max(by_id, default=-1)}, the model {size} rows")
    rows = [by_id.get(index, (f"[PAD{index}]", UNUSED)) for index in range(size)]
    return tuple(token for token, _ in rows), tuple(kind for _, kind in rows)


def _merge(pair: Any) -> str:
    """Return a merge as GGUF writes it; tokenizer.json holds a string or, since 2024, a pair."""
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return f"{left} {right}"


def _special(settings: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    """Return the ids of the special tokens: by name from tokenizer_config.json, else as config.json numbers them."""
    text = config.get("text_config") or {}
    found: dict[str, int] = {}
    for name, key in _SPECIAL.items():
        named = settings.get(f"{name}_token")
        content = named.get("content") if isinstance(named, dict) else named
        number = config.get(f"{name}_token_id")
        if number is None:
            number = text.get(f"{name}_token_id")
        if isinstance(content, str) and content in ids:
            found[key] = ids[content]
        elif isinstance(number, int) and 0 <= number < len(ids):
            found[key] = number
    return found
