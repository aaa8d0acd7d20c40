"""A damaged config.json is refused by the headers, before any library builds what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from infimed.runtime.shape import CheckpointError, ModelShape
from infimed.runtime.shape_check import check_shapes

pytest.importorskip("torch")
from infimed.training.reference import open_reference

from ..models import build_random_checkpoint

HOUSE = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_checkpoint(
        tmp_path_factory.mktemp("shape") / "checkpoint", tied=False, vision_depth=2, fullatt_block_indexes=(1,)
    )


@pytest.fixture
def damaged(checkpoint: Path, tmp_path: Path) -> Any:
    """Return a copy of the checkpoint whose config.json another one takes the place of."""

    def make(change: Any) -> Path:
        folder = tmp_path / "damaged"
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
        config = json.loads((checkpoint / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(change(config) or config))
        return folder

    return make


def test_a_whole_checkpoint_is_what_its_config_says(checkpoint: Path) -> None:
    assert check_shapes(checkpoint) == ModelShape.read(checkpoint)
    assert check_shapes(HOUSE / "training/base").tied_embeddings


def test_a_config_without_sizes_builds_no_model(damaged: Any) -> None:
    folder = damaged(lambda config: {key: config[key] for key in ("architectures", "model_type")})
    with pytest.raises(CheckpointError, match="hidden_size is None"):
        open_reference(folder, threads=1)


TEXT = "text_config"
VISION = "vision_config"


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        (TEXT, "hidden_size", 512, "tensor .* is .*by config.json it is"),
        (TEXT, "hidden_size", 10**12, "tensor .* is .*by config.json it is"),
        (TEXT, "vocab_size", 641, r"embed_tokens.weight is \(640, 256\), by config.json it is \(641, 256\)"),
        (TEXT, "intermediate_size", 1, "mlp"),
        (TEXT, "num_hidden_layers", 10**12, "num_hidden_layers is 1000000000000, the weights have 2"),
        (TEXT, "num_hidden_layers", 1, "the weights have 2"),
        (TEXT, "num_attention_heads", 0, "num_attention_heads is 0"),
        (TEXT, "num_attention_heads", 8, "k_proj"),
        (TEXT, "num_key_value_heads", 3, "k_proj"),
        (TEXT, "num_key_value_heads", 1, "k_proj"),
        (TEXT, "hidden_size", "many", "hidden_size is 'many'"),
        (TEXT, "hidden_size", -256, "hidden_size is -256"),
        (TEXT, "hidden_size", float("inf"), "hidden_size is inf"),
        (TEXT, "max_position_embeddings", 0, "max_position_embeddings is 0"),
        (VISION, "depth", 10**12, "the weights have 2"),
        (VISION, "hidden_size", 64, "visual"),
        (VISION, "num_heads", 3, "do not divide"),
        (VISION, "intermediate_size", 201, "mlp"),
        (VISION, "patch_size", 16, "patch_embed"),
        (VISION, "spatial_merge_size", 3, "merger"),
    ],
)
def test_a_size_that_the_weights_contradict_is_named(
    part: str, key: str, value: object, words: str, damaged: Any
) -> None:
    def change(config: dict[str, Any]) -> None:
        config[part][key] = value

    with pytest.raises(CheckpointError, match=words) as caught:
        check_shapes(damaged(change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sections", [[8, 12, 11], [8, 12], "a", None, [32.0, 0, 0]])
def test_rotary_sections_that_do_not_fill_a_head_are_refused(sections: object, damaged: Any) -> None:
    def change(config: dict[str, Any]) -> None:
        config[TEXT]["rope_parameters"]["mrope_section"] = sections

    with pytest.raises(CheckpointError, match="half of 64"):
        check_shapes(damaged(change))


@pytest.mark.parametrize("value", [[1], "large", 5])
def test_parts_that_are_no_objects_are_refused(value: object, damaged: Any) -> None:
    for part in (TEXT, VISION):

        def change(config: dict[str, Any], part: str = part) -> None:
            config[part] = value

        with pytest.raises(CheckpointError):
            check_shapes(damaged(change))


def test_a_head_that_is_missing_is_named(damaged: Any) -> None:
    folder = damaged(lambda config: None)
    from safetensors.numpy import load_file, save_file

    weights = {name: value for name, value in load_file(folder / "model.safetensors").items() if "lm_head" not in name}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        check_shapes(folder)
