"""The base model's tokenizer: Qwen2's rules, Qwen2.5-VL's control tokens, words that cost little, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infimed.evaluation.phantom_images import KINDS, phantom
from infimed.evaluation.phantom_questions import questions
from infimed.training.base_model import BaseShape, settings_files
from infimed.training.tokenizer import (
    CONTROL_TOKENS,
    PLAIN_TOKENS,
    PRE_TOKENISER,
    TokenizerError,
    Vocabulary,
    train_tokenizer,
)

VOCABULARY = Vocabulary()
TOKENIZER = train_tokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    for name, data in settings_files(BaseShape(), VOCABULARY, TOKENIZER).items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back_but_for_its_normal_form(text: str) -> None:
    import unicodedata

    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_transformers_reads_it_as_its_own_qwen2_tokenizer(theirs: Any, text: str) -> None:
    assert type(theirs).__name__ == "Qwen2Tokenizer"
    assert theirs(text, add_special_tokens=False)["input_ids"] == TOKENIZER.encode(text, add_special_tokens=False).ids


def test_the_rule_that_cuts_words_is_that_of_qwen2() -> None:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    assert PRE_TOKENISER == PRETOKENIZE_REGEX
    saved = json.loads(TOKENIZER.to_str())
    assert saved["normalizer"] == {"type": "NFC"}
    assert [step["type"] for step in saved["pre_tokenizer"]["pretokenizers"]] == ["Split", "ByteLevel"]


def test_control_tokens_have_their_names_at_the_end_of_the_vocabulary(theirs: Any) -> None:
    assert TOKENIZER.get_vocab_size() == VOCABULARY.size == 1024
    for index, text in enumerate(CONTROL_TOKENS + PLAIN_TOKENS):
        assert TOKENIZER.encode(text, add_special_tokens=False).ids == [VOCABULARY.learnt + index]
    assert set(CONTROL_TOKENS) <= set(theirs.all_special_tokens)
    assert theirs.eos_token == "<|im_end|>" and theirs.pad_token == "<|endoftext|>"


def test_questions_and_answers_about_phantoms_cost_about_a_token_a_word() -> None:
    words = tokens = 0
    for kind in KINDS.values():
        for index in range(30):
            for question in questions(phantom(kind, 3, index)):
                words += len(question.text.replace("?", " ?").split())
                tokens += len(TOKENIZER.encode(question.text).ids)
    assert tokens / words < 1.1
    for answer in ("yes", "no", "left", "right", "small", "large", "0", "1", "2", "3", "brain", "chest"):
        assert len(TOKENIZER.encode(answer).ids) == 1, answer


def test_training_it_again_gives_the_same_bytes() -> None:
    assert train_tokenizer(VOCABULARY).to_str() == TOKENIZER.to_str()


def test_a_vocabulary_without_room_for_all_bytes_is_refused() -> None:
    with pytest.raises(TokenizerError, match="no room"):
        train_tokenizer(Vocabulary(size=200))


def test_a_corpus_too_small_for_the_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("Is there a mass?\n", "utf-8")
    with pytest.raises(TokenizerError, match="add text"):
        train_tokenizer(Vocabulary(size=4096), tmp_path / "corpus.txt")


CONVERSATIONS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown?"}]}],
    [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "a.png"},
                {"type": "text", "text": "before\n"},
                {"type": "image_url", "image_url": "b.png"},
                {"type": "video", "video": "c.mp4"},
                {"type": "text", "text": " after {{ 1 }}"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "A change."}]},
        {"role": "user", "content": "Which?"},
    ],
]
QWEN_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in "
    "content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}"
    "Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == "
    "'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video "
    "{{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}"
)
"""The template that Qwen2.5-VL's checkpoints carry (Apache-2.0), the reference for ours."""


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("options", [{}, {"add_vision_id": True}])
@pytest.mark.parametrize("reply_follows", [True, False])
def test_our_template_says_what_that_of_qwen_says(
    theirs: Any, messages: list[dict[str, Any]], options: dict[str, bool], reply_follows: bool
) -> None:
    ours = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply_follows, **options)
    reference = theirs.apply_chat_template(
        messages, chat_template=QWEN_TEMPLATE, tokenize=False, add_generation_prompt=reply_follows, **options
    )
    assert ours == reference
