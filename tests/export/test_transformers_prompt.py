from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infimed.export.parity import ParityError, check_prompts
from infimed.export.probes import KINDS, make_probes
from infimed.export.transformers_prompt import transformers_prompter
from infimed.runtime.prompt import Prompter
from infimed.runtime.shape import CheckpointError

from ..models import build_random_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_pixels_tokens_and_positions_equal_those_of_transformers(checkpoint: Path) -> None:
    prompter = Prompter.open(checkpoint)
    probes = make_probes(60, prompter.rules)
    assert {probe.kind for probe in probes} == set(KINDS)
    assert len({prompter.prompt(probe.messages).images[0].grid for probe in probes if probe.kind == "ragged"}) > 5
    assert check_prompts(prompter, transformers_prompter(checkpoint), probes) <= 1e-5


def change(checkpoint: Path, folder: Path, name: str, old: str, new: str) -> Prompter:
    for path in checkpoint.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    text = (folder / name).read_text("utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), "utf-8")
    return Prompter.open(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "stage"),
    [
        ("preprocessor_config.json", "0.48145466", "0.5", "pixels"),
        ("chat_template.jinja", "<|im_start|>assistant\n", "<|im_start|>assistant", "tokens"),
        ("preprocessor_config.json", '"merge_size": 2', '"merge_size": 1', "pixels"),
    ],
)
def test_a_changed_prompt_path_is_refused_with_its_stage(
    checkpoint: Path, tmp_path: Path, name: str, old: str, new: str, stage: str
) -> None:
    prompter = change(checkpoint, tmp_path, name, old, new)
    with pytest.raises(ParityError, match=f"^{stage} differ"):
        check_prompts(prompter, transformers_prompter(checkpoint), make_probes(6, prompter.rules))


def test_shifted_positions_are_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import infimed.runtime.prompt as prompt_module

    real = prompt_module.mrope_positions

    def swapped(*arguments: object) -> tuple[np.ndarray, int]:
        positions, following = real(*arguments)  # type: ignore[arg-type]
        return positions[[0, 2, 1]], following

    monkeypatch.setattr(prompt_module, "mrope_positions", swapped)
    prompter = Prompter.open(checkpoint)
    with pytest.raises(ParityError, match=r"^positions differ"):
        check_prompts(prompter, transformers_prompter(checkpoint), make_probes(6, prompter.rules))


def test_files_that_transformers_refuses_are_one_line(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, tmp_path, "config.json", '"silu"', '"no such thing"')
    with pytest.raises(CheckpointError, match="transformers cannot open") as caught:
        transformers_prompter(tmp_path)
    assert "\n" not in str(caught.value)
