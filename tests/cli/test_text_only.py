"""A text-only family by the verbs: export with calibration, an answer, evaluation, a plan; images are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")
pytest.importorskip("onnxruntime")
from infimed.cli.app import run

from ..text_models import build_text_checkpoint
from .conftest import Infimed

LEVELS = ("gguf-q8_0", "onnx-int4")
QUESTION = "Which imaging modality uses no ionising radiation?"
RECIPE = "seed = 1\n[lora]\nrank = 4\nalpha = 8\n[train]\nlearning_rate = 1e-3\nsteps = 2\nbatch_rows = 2\n"


@pytest.fixture(scope="module", params=["llama", pytest.param("qwen2", marks=pytest.mark.full)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint, a dataset of questions without images, and a bundle made by them."""
    folder = tmp_path_factory.mktemp("text")
    build_text_checkpoint(folder / "checkpoint", request.param, dtype="bfloat16")
    rows = [
        {
            "id": f"row-{number}",
            "question": f"{QUESTION} ({number})",
            "options": ["CT", "ultrasound", "X-ray"],
            "answer": "ultrasound",
            "modality": "text",
            "task": "modality",
            "source": "made",
            "license": "CC0-1.0",
            "patient": str(number),
            "role": "calibration" if number < 2 else "test",
        }
        for number in range(6)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["data", "import", str(folder / "rows.jsonl"), "--out", str(folder / "data")]) == 0
    levels = [word for level in LEVELS for word in ("--level", level)]
    out = ["--out", str(folder / "bundle"), "--calibration", str(folder / "data"), "--probes", "6", "--threads", "1"]
    assert run(["export", str(folder / "checkpoint"), *levels, *out]) == 0
    return folder


def test_a_question_gets_an_answer_on_every_level(place: Path, infimed: Infimed) -> None:
    for level in LEVELS:
        asked = ["run", place / "bundle", "--level", level, QUESTION]
        code, told, _ = infimed(*asked, "--choice", "CT", "--choice", "ultrasound")
        assert code == 0 and told.split()[0] in ("CT", "ultrasound")
        code, _, error = infimed(*asked, "--max-tokens", "4")
        assert code == 0 and not error


def test_text_questions_are_evaluated(place: Path, infimed: Infimed) -> None:
    code, _, error = infimed("evaluate", place / "bundle", "--data", place / "data", "--out", place / "runs")
    assert code == 0, error
    found = sorted(path.name for path in (place / "runs").glob("*.jsonl"))
    assert [name for name in found for level in LEVELS if name.startswith(level)]


def test_an_image_is_refused_in_one_line(place: Path, infimed: Infimed, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "image.png")
    for level in LEVELS:
        code, _, error = infimed("run", place / "bundle", "--level", level, "--image", tmp_path / "image.png", QUESTION)
        assert code == 2 and error.count("\n") == 1 and "models take no images; ask in text alone" in error


def test_training_is_refused_before_any_work(place: Path, infimed: Infimed, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    where = ["--data", place / "data", "--base", place / "checkpoint", "--out", tmp_path / "adapter"]
    code, _, error = infimed("train", "sft", tmp_path / "recipe.toml", *where)
    assert code == 2 and error.count("\n") == 1 and "models take no images; fine-tuning here is for qwen2.5-vl" in error
    assert not (tmp_path / "adapter").exists()


def test_a_plan_says_that_no_images_are_taken(place: Path, infimed: Infimed) -> None:
    for folder in (place / "checkpoint", place / "bundle"):
        code, told, _ = infimed("plan", folder, "--device", "orin-nano-8gb")
        assert code == 0 and "no images" in told
