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

# What stands around the digits in the regular expressions that split text before BPE.
_BEFORE_DIGITS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_AFTER_DIGITS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The regular expression -> llama.cpp's name for it.
PRE_TOKENIZERS: Mapping[str, str] = {
    _BEFORE_DIGITS + r"\p{N}" + _AFTER_DIGITS: "qwen2",
    _BEFORE_DIGITS + r"\p{N}{1,3}" + _AFTER_DIGITS: "llama-bpe",
}
# Those for which llama.cpp takes a word that is a token as it is, without looking at merges.
_IGNORING_MERGES = ("llama-bpe",)
# Kinds of tokens (gguf.TokenType).
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# Names of special tokens in tokenizer_config.json and config.json -> in GGUF.
_SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file holds of a tokenizer.

    special: GGUF key -> token id. added: "bos", "eos", "sep" -> whether the token is set before, behind or between
    texts that come without a chat template. template: the chat template.
    """

    pre_tokenizer: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: Mapping[str, int]
    added: Mapping[str, bool]
    template: str | None


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read a checkpoint's tokenizer for an embedding of `size` rows. Raises GgufUnsupported or PromptError."""
    tokenizer = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json")
    model = tokenizer.get("model") or {}
    _check_model(model, tokenizer.get("normalizer"))
    pre_tokenizer = _pre_tokenizer(tokenizer.get("pre_tokenizer") or {})
    if bool(model.get("ignore_merges")) != (pre_tokenizer in _IGNORING_MERGES):
        raise GgufUnsupported(
            f"the tokenizer's ignore_merges is {model.get('ignore_merges')!r}, with the pre-tokenizer {pre_tokenizer} "
            "llama.cpp does the other; use an ONNX level"
        )
    tokens, kinds = _tokens(model, tokenizer.get("added_tokens") or [], size)
    ids = {token: index for index, token in enumerate(tokens)}
    template_file = folder / "chat_template.jinja"
    template = template_file.read_text("utf-8") if template_file.is_file() else settings.get("chat_template")
    return Vocabulary(
        pre_tokenizer=pre_tokenizer,
        tokens=tokens,
        kinds=kinds,
        merges=tuple(_merge(pair) for pair in model.get("merges") or []),
        special=_special(settings, read_json(folder / "config.json"), ids),
        added=_added(tokenizer.get("post_processor") or {}, settings),
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
            "dropout",
            "fuse_unk",
        )
        if model.get(key)
    ]
    if model.get("byte_fallback"):
        raise GgufUnsupported(
            "the tokenizer is one of sentencepiece (BPE with byte_fallback, as Llama 2 has it), whose scores a GGUF "
            "file needs and tokenizer.json lacks; use an ONNX level, or a checkpoint with byte-level BPE (Llama 3, "
            "Qwen2)"
        )
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


def _added(post_processor: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, bool]:
    """Return which of "bos", "eos" and "sep" are set around and between texts, as llama.cpp's converter reads it.

    What the post-processor leaves open is for tokenizer_config.json to say; a beginning that nothing asks for is none.
    """
    found: dict[str, bool] = {}
    for step in post_processor.get("processors") or [post_processor]:
        if step.get("type") == "ByteLevel":
            found = {"bos": False, "eos": False, **found}
        single = step.get("single") or []
        if step.get("type") == "TemplateProcessing" and len(single) > 1:
            for name, place in (("bos", single[0]), ("eos", single[-1])):
                if token := _special_id(place):
                    found[name] = token == _content(settings.get(f"{name}_token"))
            if between := _between(step.get("pair") or []):
                enders = {_content(settings.get(name)) for name in ("sep_token", "eos_token")}
                found["sep"] = (between[0] in enders and not _special_id(single[-1])) or between[-1] in enders
    for name in ("bos", "eos"):
        if isinstance(stated := settings.get(f"add_{name}_token"), bool):
            found.setdefault(name, stated)
    return {"bos": False, **found}


def _between(pair: list[Mapping[str, Any]]) -> list[str]:
    """Return the special tokens that a template for two texts sets between them."""
    places = [index for index, place in enumerate(pair) if "Sequence" in place]
    if len(places) != 2:
        return []
    return [token for place in pair[places[0] + 1 : places[1]] if (token := _special_id(place))]


def _special_id(place: Mapping[str, Any]) -> str | None:
    return (place.get("SpecialToken") or {}).get("id")


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _special(settings: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    """Return the ids of the special tokens: by name from tokenizer_config.json, else as config.json numbers them."""
    text = config.get("text_config") or {}
    found: dict[str, int] = {}
    for name, key in _SPECIAL.items():
        content = _content(settings.get(f"{name}_token"))
        number = config.get(f"{name}_token_id")
        if number is None:
            number = text.get(f"{name}_token_id")
        if isinstance(content, str) and content in ids:
            found[key] = ids[content]
        elif isinstance(number, int) and 0 <= number < len(ids):
            found[key] = number
    return found
