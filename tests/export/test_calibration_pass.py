"""The pass against transformers' own forward pass, watched and weighted by code of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from infimed.evaluation.dataset import Dataset  # noqa: E402
from infimed.export.calibration import CalibrationError, answered, calibration_rows  # noqa: E402
from infimed.export.calibration_pass import _patches_of, run_pass  # noqa: E402
from infimed.export.calibration_totals import Totals  # noqa: E402
from infimed.export.gguf_names import hub_names  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402
from infimed.training.torch_backend import load_model  # noqa: E402

from .calibration_sets import phantom_set, tiny_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(phantom_set(tmp_path_factory.mktemp("set") / "set"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def totals_of(checkpoint: Path, dataset: Dataset, **options: Any) -> Totals:
    totals = Totals()
    run_pass(checkpoint, dataset, calibration_rows(dataset), totals, **options)
    return totals


def by_transformers(checkpoint: Path, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return mean square, largest and tokens by module name, of the model called whole with transformers' inputs."""
    from PIL import Image
    from transformers import AutoTokenizer, Qwen2VLImageProcessor

    from infimed.runtime.messages import ImagePart, TextPart

    model = load_model(Checkpoint.open(checkpoint)).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(checkpoint), Qwen2VLImageProcessor.from_pretrained(checkpoint)
    inputs: dict[str, list[Any]] = {}
    for name, module in model.named_modules():
        if type(module).__name__ in ("Linear", "Conv3d"):

            def keep(module: Any, given: Any, name: str = name) -> None:
                rows = given[0].detach().double().numpy()
                inputs.setdefault(name, []).append(rows.reshape(-1, module.weight[0].numel()))

            module.register_forward_pre_hook(keep)
    examples = dataset.in_role("calibration")
    cells = {example.cell for example in examples}
    found: dict[str, dict[str, Any]] = {}
    for example in examples:
        inputs.clear()
        messages = answered(dataset, example)
        content = [
            {"role": message.role, "content": [
                {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
                for part in message.parts if isinstance(part, (ImagePart, TextPart))
            ]}
            for message in messages
        ]  # fmt: skip
        text = tokenizer.apply_chat_template(content, tokenize=False)
        extra = {}
        if example.images:
            made = processor([Image.fromarray(image) for image in dataset.images(example)], return_tensors="pt")
            tokens = int(made["image_grid_thw"][0].prod()) // 4
            text = text.replace("<|image_pad|>", "<|image_pad|>" * tokens)
            extra = {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        if extra:
            extra["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
        with torch.inference_mode():
            model(input_ids=ids, **extra)
        weight = 1 / len(cells) / sum(other.cell == example.cell for other in examples)
        for name, parts in inputs.items():
            rows = np.concatenate(parts)
            at = found.setdefault(name, {"sum": 0.0, "weight": 0.0, "largest": 0.0, "tokens": 0})
            at["sum"] = at["sum"] + weight * (rows**2).mean(axis=0)
            at["weight"] += weight
            at["largest"] = np.maximum(at["largest"], np.abs(rows).max(axis=0))
            at["tokens"] += len(rows)
    return found


def test_every_weight_sees_what_transformers_own_pass_gives_it(checkpoint: Path, dataset: Dataset) -> None:
    ours, theirs = totals_of(checkpoint, dataset), by_transformers(checkpoint, dataset)
    names = {hub: stored.removesuffix(".weight") for hub, stored in hub_names([f"{n}.weight" for n in theirs]).items()}
    assert set(ours.mean_square()) == {*names, "model.embed_tokens.weight"}
    assert len({seen["tokens"] for seen in theirs.values()}) == 3, "text, patches and merged patches"
    for hub, name in names.items():
        seen = theirs[name]
        assert ours.tokens()[hub] == seen["tokens"], hub
        np.testing.assert_allclose(ours.mean_square()[hub], seen["sum"] / seen["weight"], rtol=1e-3, err_msg=hub)
        np.testing.assert_allclose(ours.largest()[hub], seen["largest"], rtol=2e-3, err_msg=hub)


def test_a_tied_head_is_known_by_both_names_and_an_untied_one_by_its_own(
    checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    tied = totals_of(checkpoint, dataset).mean_square()
    assert np.array_equal(tied["lm_head.weight"], tied["model.embed_tokens.weight"])
    untied = totals_of(tiny_checkpoint(tmp_path / "untied", tied=False), dataset).mean_square()
    assert "lm_head.weight" in untied and "model.embed_tokens.weight" not in untied


def test_without_images_the_tower_sees_nothing_and_the_text_model_something_else(
    checkpoint: Path, dataset: Dataset
) -> None:
    shown, told = totals_of(checkpoint, dataset), totals_of(checkpoint, dataset, images=False)
    assert {name for name in shown.tokens() if name.startswith("visual.")}
    assert not {name for name in told.tokens() if name.startswith("visual.")}
    name = "model.layers.1.mlp.down_proj.weight"
    assert told.tokens()[name] < shown.tokens()[name]
    assert not np.allclose(told.mean_square()[name], shown.mean_square()[name], rtol=0.05)


def test_the_pass_gives_the_same_bytes_at_any_number_of_threads_and_gives_the_number_back(
    checkpoint: Path, dataset: Dataset
) -> None:
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append(totals_of(checkpoint, dataset).mean_square())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(made[0][name].tobytes() == made[1][name].tobytes() for name in made[0])


def test_a_row_longer_than_the_model_takes_is_refused_by_its_id(dataset: Dataset, tmp_path: Path) -> None:
    import json

    short = tiny_checkpoint(tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 20
    (short / "config.json").write_text(json.dumps(config))
    with pytest.raises(CalibrationError, match=r"has \d+ tokens, the model takes 20"):
        totals_of(short, dataset)


@pytest.mark.parametrize("kernel", [(14, 14), (2, 14, 14)])
def test_patches_times_the_weight_are_the_convolution(kernel: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kind = torch.nn.Conv2d if len(kernel) == 2 else torch.nn.Conv3d
    convolution = kind(3, 5, kernel, stride=kernel, bias=False)
    image = torch.randn(2, 3, *(2 * size + 1 for size in kernel))
    with torch.inference_mode():
        wanted = convolution(image)
        rows = _patches_of(kernel)(image)
        made = rows @ convolution.weight.reshape(5, -1).T
    assert rows.shape == (2 * 2 ** len(kernel), 3 * int(np.prod(kernel)))
    torch.testing.assert_close(made, wanted.movedim(1, -1).reshape(-1, 5), rtol=1e-4, atol=1e-5)
