"""How a level is opened: how long its prompts may be, in every engine alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

for _library in ("torch", "onnx", "onnxruntime"):
    pytest.importorskip(_library)
from infimed.runtime.backend import BackendError  # noqa: E402
from infimed.runtime.manifest import LevelEntry  # noqa: E402
from infimed.runtime.messages import user  # noqa: E402
from infimed.runtime.open_engine import CONTEXT_TOKENS, open_level  # noqa: E402
from infimed.runtime.shape import CheckpointError, context_limit  # noqa: E402
from infimed.training.reference import open_reference  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402
from ..onnx_levels import export_levels  # noqa: E402

LIMIT = 300


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint made for 300 tokens and the bundle of one ONNX level."""
    folder = tmp_path_factory.mktemp("limit")
    checkpoint = build_random_checkpoint(folder / "checkpoint", layers=1, vision_depth=2, fullatt_block_indexes=(1,))
    limit_to(checkpoint, LIMIT)
    export_levels(checkpoint, folder / "bundle", ("onnx-fp32",))
    return folder


def limit_to(folder: Path, tokens: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    (config.get("text_config") or config)["max_position_embeddings"] = tokens
    (folder / "config.json").write_text(json.dumps(config))


def opened(place: Path, **settings: int) -> Any:
    shared = tuple(f"shared/{path.name}" for path in sorted((place / "bundle/shared").iterdir()))
    entry = LevelEntry("onnx-fp32", (), shared, {}, 0)
    return open_level(place / "bundle", entry, threads=1, **settings)


def opened_gguf(place: Path, **settings: int) -> Any:
    pytest.importorskip("llama_cpp")
    from infimed.export.gguf_export import export_gguf

    entry = export_gguf(place / "checkpoint", place / "bundle", ["gguf-f16"], threads=1)["gguf-f16"]
    return open_level(place / "bundle", entry, threads=1, **settings)


@pytest.mark.parametrize("open_it", [opened, opened_gguf, lambda place: open_reference(place / "checkpoint")])
def test_every_engine_takes_what_the_model_was_made_for_and_no_more(open_it: Any, place: Path) -> None:
    engine = open_it(place)
    assert engine.backend.context_tokens == LIMIT
    with pytest.raises(Exception, match=f"the context holds {LIMIT}"):
        engine.score([user("lesion " * LIMIT)], ["yes", "no"])
    engine.score([user("lesion?")], ["yes", "no"])
    engine.close()


@pytest.mark.parametrize("open_it", [opened, opened_gguf])
def test_a_context_can_be_smaller_but_not_larger_than_the_models(open_it: Any, place: Path) -> None:
    engine = open_it(place, context_tokens=100)
    assert engine.backend.context_tokens == 100
    engine.close()
    with pytest.raises(BackendError, match=f"this model takes 1 to {LIMIT}"):
        open_it(place, context_tokens=LIMIT + 1)


def test_a_model_made_for_more_gets_the_usual_context(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "place")
    limit_to(tmp_path / "place/bundle/shared", 128_000)
    assert opened(tmp_path / "place").backend.context_tokens == CONTEXT_TOKENS


@pytest.mark.parametrize("limit", [None, 0, -1, "many", True, 3.5])
def test_a_config_without_a_limit_is_refused(limit: object) -> None:
    for config in ({"max_position_embeddings": limit}, {"text_config": {"max_position_embeddings": limit}}):
        with pytest.raises(CheckpointError, match="max_position_embeddings"):
            context_limit(config)
    assert context_limit({"text_config": {"max_position_embeddings": 32768}}) == 32768
