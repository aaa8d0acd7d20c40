"""The tokenizer in a GGUF file against the one in tokenizer.json, and tokenizers that GGUF cannot say."""

from __future__ import annotations

import ctypes
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")

from infimed.export.gguf_names import GgufUnsupported  # noqa: E402
from infimed.export.gguf_vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED, read_vocabulary  # noqa: E402
from infimed.runtime.llama_library import llama_library, path_bytes  # noqa: E402

from ..models import write_tokenizer  # noqa: E402

TEXTS = (
    "The chest radiograph shows a round opacity in the left lower lobe.",
    "  two  spaces, a\ttab\n\nand 2 new lines\r\n3.75 mm; 12/2024 ",
    "I've, they'LL, WE'D: it's 100% 'quoted' (A) [B] {C} <d> @#&*_+=|\\~^`",
    "größer Ödem naïve café Ελληνικά Кириллица 中文病理 日本語 العربية हिन्दी ไทย 🩻🫁🧠",
    "x=1;y+=2 //comment\n\tif(a<b){return;}\n\n\n   indented",
    "éè decomposed e\u0301 and ﬁ ligature \u00a0 nbsp \u200b zero width",
    "<tool_call>{}</tool_call> plain <|not_a_token|> text",
    "",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path, 640)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"bos_token_id": 3}}))
    return tmp_path


def change(folder: Path, edit: Any) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    edit(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")


def test_tokens_kinds_and_special_ids(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    found = read_vocabulary(folder, 640)
    known = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    assert found.pre_tokenizer == "qwen2"
    assert len(found.tokens) == len(found.kinds) == 640
    assert all(found.tokens[index] == token for token, index in known.items())
    kinds = dict(zip(found.tokens, found.kinds, strict=True))
    assert kinds["<|image_pad|>"] == CONTROL
    assert kinds["<|fim_prefix|>"] == CONTROL  # not marked special, and it looks so
    assert kinds["<tool_call>"] == USER_DEFINED
    assert kinds["a"] == NORMAL
    assert found.tokens[639] == "[PAD639]" and found.kinds[639] == UNUSED
    assert found.special == {
        "eos_token_id": known["<|im_end|>"],
        "padding_token_id": known["<|endoftext|>"],
        "bos_token_id": 3,
    }


def test_llama_cpp_tokenises_as_tokenizers_does(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    found = read_vocabulary(folder, 640)
    path = tmp_path / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "qwen2vl")
    for add in (writer.add_block_count, writer.add_context_length, writer.add_embedding_length, writer.add_head_count):
        add(64)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_sections([1, 0, 0, 0])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(found.pre_tokenizer)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.kinds)
    writer.add_token_merges(found.merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    llama = llama_library().llama
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(path_bytes(path), params)
    assert model, llama_library().log.reason()
    vocabulary = llama.llama_model_get_vocab(model)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        raw = unicodedata.normalize("NFC", text).encode()  # which llama.cpp does not do
        room = (llama.llama_token * 512)()
        count = llama.llama_tokenize(vocabulary, raw, len(raw), room, ctypes.c_int(512), False, True)
        assert list(room[:count]) == tokenizer.encode(text, add_special_tokens=False).ids, text
    llama.llama_model_free(model)


def test_an_unknown_pre_tokenizer_is_refused(folder: Path) -> None:
    def other(tokenizer: Any) -> None:
        tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{N}{1,3}|\s+"

    change(folder, other)
    with pytest.raises(GgufUnsupported, match=r"unknown; known to GGUF export: llama-bpe, qwen2"):
        read_vocabulary(folder, 640)


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda t: t["model"].update(type="Unigram"), "Unigram"),
        (lambda t: t["model"].update(byte_fallback=True), "byte_fallback"),
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "Lowercase"),
        (lambda t: t.update(pre_tokenizer=None), "is unknown"),
        (lambda t: t["pre_tokenizer"]["pretokenizers"].reverse(), "is unknown"),
        (lambda t: t["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), "is unknown"),
        (lambda t: t["added_tokens"][0].update(id=640), "token ids up to 640"),
    ],
)
def test_a_tokenizer_that_gguf_cannot_say_is_refused(edit: Any, what: str, folder: Path) -> None:
    change(folder, edit)
    with pytest.raises(GgufUnsupported, match=what):
        read_vocabulary(folder, 640)


def test_merges_are_read_in_both_of_their_forms(folder: Path) -> None:
    pairs = read_vocabulary(folder, 640).merges
    change(folder, lambda t: t["model"].update(merges=[" ".join(pair) for pair in t["model"]["merges"]]))
    assert read_vocabulary(folder, 640).merges == pairs
