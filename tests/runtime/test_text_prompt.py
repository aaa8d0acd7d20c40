"""Prompts of families that take no images: their templates, their tokens, plain positions, and images refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infimed.runtime.families import FAMILIES, UnsupportedFamily, family_of
from infimed.runtime.messages import ImagePart, Message, TextPart, assistant, user
from infimed.runtime.prompt import Prompter, PromptError

from ..models import write_tokenizer
from ..text_models import QWEN2_TEMPLATE, write_llama3_tokenizer

IMAGE = ImagePart(np.zeros((56, 56, 3), np.uint8))


def write_folder(folder: Path, family: str) -> Path:
    """Write what a prompt needs, and no more."""
    folder.mkdir(parents=True)
    architecture = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[family]
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    if family == "qwen2":
        write_tokenizer(folder, 640)
        (folder / "chat_template.jinja").write_text(QWEN2_TEMPLATE)
    else:
        write_llama3_tokenizer(folder, 640)
    return folder


@pytest.fixture(params=["qwen2", "llama"])
def prompter(request: pytest.FixtureRequest, tmp_path: Path) -> Prompter:
    return Prompter.open(write_folder(tmp_path / "folder", request.param))


def test_no_pixel_rules_are_needed_and_none_are_had(prompter: Prompter) -> None:
    assert prompter.pixel_rules is None and prompter.preprocessing == {}
    with pytest.raises(PromptError, match=f"{prompter.family.name} models take no images"):
        _ = prompter.rules


def test_an_image_is_refused_in_one_line_that_names_the_family(prompter: Prompter) -> None:
    with pytest.raises(PromptError, match=f"^{prompter.family.name} models take no images; ask in text alone$"):
        prompter.prompt([user(IMAGE, "Is there a lesion?")])


def test_all_three_positions_count_tokens_and_messages_end_at_boundaries(prompter: Prompter) -> None:
    prompt = prompter.prompt([user("one"), assistant("two"), user("three")])
    count = len(prompt.token_ids)
    assert prompt.positions.tolist() == [list(range(count))] * 3
    assert prompt.next_position == count and prompt.images == ()
    ends = [index + 1 for index, token in enumerate(prompt.token_ids.tolist()) if token in prompter.end_ids]
    assert list(prompt.boundaries) == ends and len(ends) >= 3


def test_the_parts_of_a_message_are_one_string(prompter: Prompter) -> None:
    assert prompter.render([user("Is it", " CT?")]) == prompter.render([user("Is it CT?")])
    with pytest.raises(PromptError, match="control token"):
        prompter.prompt([Message("user", (TextPart("<|im_en"), TextPart("d|> <|eot_"), TextPart("id|>")))])


def test_the_beginning_of_a_llama_prompt_is_set_once(tmp_path: Path) -> None:
    prompter = Prompter.open(write_folder(tmp_path / "llama", "llama"))
    start = prompter.encode("<|begin_of_text|>")
    ids = prompter.prompt([user("yes")]).token_ids.tolist()
    assert ids[:1] == start and ids.count(start[0]) == 1


def test_a_turn_ends_where_the_template_ends_it_whatever_ends_a_text(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "llama", "llama")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|end_of_text|>"}))
    prompter = Prompter.open(folder)
    assert prompter.end_ids == {prompter.encode(text)[0] for text in ("<|eot_id|>", "<|end_of_text|>")}


def test_a_token_that_is_not_named_is_written_as_nothing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "qwen2", "qwen2")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    assert Prompter.open(folder).render([user("yes")]) == "yes"


def test_the_same_prompt_on_any_day(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "llama", "llama")
    (folder / "chat_template.jinja").write_text(
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}"
    )
    assert Prompter.open(folder).render([user("yes")]) == "26 Jul 2024"


def test_an_unknown_architecture_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(UnsupportedFamily, match=r"GPT2LMHeadModel is not supported; supported: qwen2\.5-vl .*llama"):
        family_of({"architectures": ["GPT2LMHeadModel"]})
    assert [family_of({"architectures": [family.architecture]}) for family in FAMILIES] == list(FAMILIES)
