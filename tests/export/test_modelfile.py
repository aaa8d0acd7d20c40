"""The Modelfile says to Ollama what the checkpoint's own template says, or admits that it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infimed.export.modelfile import modelfile
from infimed.runtime.prompt import Prompter

from ..models import TEMPLATE, build_random_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {"layers": 1, "vision_depth": 2, "fullatt_block_indexes": (1,)}
    return build_random_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint", **shape)  # type: ignore[arg-type]


def prompter(checkpoint: Path, template: str) -> Prompter:
    return Prompter(
        Prompter.open(checkpoint).family,
        Prompter.open(checkpoint).rules,
        (checkpoint / "tokenizer.json").read_text("utf-8"),
        template,
        json.loads((checkpoint / "tokenizer_config.json").read_text("utf-8")),
    )


def test_a_template_of_the_known_form_is_given_with_its_system_prompt_and_ends(checkpoint: Path) -> None:
    made = modelfile(Prompter.open(checkpoint), "model.gguf", "../shared/mmproj-f16.gguf")
    lines = made.splitlines()
    assert lines[:2] == ["FROM model.gguf", "FROM ../shared/mmproj-f16.gguf"]
    assert "<|im_start|>{{ .Role }}" in made and 'SYSTEM """You are a helpful assistant."""' in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines and 'PARAMETER stop "<|endoftext|>"' in lines


def test_a_template_that_adds_no_system_prompt_gets_none(checkpoint: Path) -> None:
    plain = TEMPLATE[: TEMPLATE.index("{% if loop.first")] + TEMPLATE[TEMPLATE.index("{% endif %}") + 11 :]
    made = modelfile(prompter(checkpoint, plain), "model.gguf", None)
    assert "TEMPLATE" in made and "SYSTEM" not in made and made.count("FROM") == 1


@pytest.mark.parametrize(
    "changed",
    [
        TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>assistant"),
        TEMPLATE.replace("<|im_end|>", "<|endoftext|>"),
        "Note. " * 4 + TEMPLATE,
    ],
)
def test_a_template_that_renders_otherwise_is_not_approximated(checkpoint: Path, changed: str) -> None:
    made = modelfile(prompter(checkpoint, changed), "model.gguf", None)
    assert "TEMPLATE" not in made and "no Ollama template is known" in made
