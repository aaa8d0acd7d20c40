"""The torch reference: equal to transformers from the image file to the logits, however the sequence is cut."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from infimed import MissingExtra
from infimed.runtime.backend import Placed
from infimed.runtime.decoding import Decoder
from infimed.runtime.messages import ImagePart, Message, TextPart, user
from infimed.runtime.shape import CheckpointError
from infimed.training.checkpoint import Checkpoint, write_weights
from infimed.training.reference import open_reference
from infimed.training.torch_backend import TorchBackend, TorchError, load_model, open_rules, use_threads

from .conftest import build_micro


def picture(seed: int, height: int, width: int) -> ImagePart:
    return ImagePart(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8))


PROMPTS: dict[str, list[Message]] = {
    "text": [user("How many lesions does this image show?")],
    "square": [user(picture(1, 112, 112), "Is there a lesion?")],
    "ragged": [user("Look:", picture(2, 190, 75), "which side?")],
    "two images": [user(picture(3, 60, 230), picture(4, 150, 150), "What changed?")],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_micro(tmp_path_factory.mktemp("torch") / "model")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Decoder:
    opened = open_reference(folder, threads=1)
    assert isinstance(opened, Decoder)
    return opened


def by_transformers(folder: Path, messages: list[Message], reply: Sequence[int] = ()) -> NDArray[np.float32]:
    """Return the logits of a prompt and a reply after it with nothing of infimed in between: own tokenizer, processor,
    positions, forward."""
    from PIL import Image
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        str(folder), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    parts = messages[0].parts
    content = [{"type": "text", "text": p.text} if isinstance(p, TextPart) else {"type": "image"} for p in parts]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    pictures = [Image.fromarray(part.rgb) for part in parts if isinstance(part, ImagePart)]
    seen: dict[str, Any] = {}
    if pictures:
        seen = dict(Qwen2VLImageProcessorPil.from_pretrained(str(folder))(images=pictures, return_tensors="pt"))
    pieces = text.split("<|image_pad|>")
    text = pieces[0]
    for grid, piece in zip(seen.get("image_grid_thw", []), pieces[1:], strict=True):
        text += "<|image_pad|>" * (int(grid.prod()) // 4) + piece
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    ids = torch.cat([ids, torch.tensor([list(reply)], dtype=ids.dtype)], dim=1)
    if pictures:
        kinds = (ids == model.config.image_token_id).int()
        positions, _ = model.model.get_rope_index(ids, kinds, image_grid_thw=seen["image_grid_thw"])
        seen["position_ids"] = positions
    with torch.no_grad():
        logits: NDArray[np.float32] = model(input_ids=ids, **seen).logits[0].numpy()
    return logits


@pytest.mark.parametrize("name", PROMPTS)
def test_logits_equal_those_of_transformers_own_processor_and_positions(
    name: str, folder: Path, engine: Decoder
) -> None:
    expected = by_transformers(folder, PROMPTS[name])
    rows = engine.prompt_logits(PROMPTS[name])
    assert rows.shape == expected.shape and rows.dtype == np.float32
    assert np.abs(rows - expected).max() < 5e-5
    assert (rows.argmax(-1) == expected.argmax(-1)).all()


def test_a_sequence_cut_anywhere_or_taken_back_gives_the_same_rows(folder: Path, engine: Decoder) -> None:
    prompt = engine.prompter.prompt(PROMPTS["ragged"])
    image = prompt.images[0]
    backend = TorchBackend(load_model(Checkpoint.open(folder)), open_rules(folder))
    embeddings = backend.encode_image(image)
    assert embeddings.shape == (image.tokens, 64) and embeddings.dtype == np.float32
    total = len(prompt.token_ids)
    whole = backend.extend(prompt.token_ids, prompt.positions, [Placed(image.start, embeddings)], total)
    assert whole.shape == (total, backend.vocab_size)
    for cut in (1, image.start, image.start + image.tokens, total - 1):
        backend.truncate(0, 0)
        rows = []
        for start, stop in ((0, cut), (cut, total)):
            placed = [Placed(image.start - start, embeddings)] if start <= image.start < stop else []
            rows.append(backend.extend(prompt.token_ids[start:stop], prompt.positions[:, start:stop], placed, 1))
        assert rows[0].shape == (1, backend.vocab_size)
        assert np.abs(np.concatenate(rows) - whole[[cut - 1, total - 1]]).max() < 2e-5
    backend.truncate(total - 3, int(prompt.positions[0, total - 3]))
    again = backend.extend(prompt.token_ids[-3:], prompt.positions[:, -3:], [], 2)
    assert np.abs(again - whole[-2:]).max() < 2e-5
    nothing = backend.extend(prompt.token_ids[-1:], prompt.positions[:, -1:], [], 0)
    assert nothing.shape == (0, backend.vocab_size)


def test_two_openings_at_one_thread_count_answer_bit_for_bit(folder: Path, engine: Decoder) -> None:
    other = open_reference(folder, threads=1)
    assert np.array_equal(other.prompt_logits(PROMPTS["two images"]), engine.prompt_logits(PROMPTS["two images"]))
    other.close()


def test_half_precision_stays_near_the_reference(folder: Path, engine: Decoder) -> None:
    half = open_reference(folder, threads=1, dtype="bfloat16")
    rows, expected = half.prompt_logits(PROMPTS["square"]), engine.prompt_logits(PROMPTS["square"])
    assert rows.dtype == np.float32 and 1e-6 < np.abs(rows - expected).max() < 0.2 * np.abs(expected).max()


def test_a_checkpoint_and_an_adapter_say_what_they_are(room: Path) -> None:
    base, adapted = open_reference(room / "base"), open_reference(room / "adapter")
    assert (base.level, adapted.level) == ("checkpoint", "adapter")
    messages = PROMPTS["square"]
    assert np.abs(base.prompt_logits(messages) - adapted.prompt_logits(messages)).max() > 0.1


def test_a_config_that_transformers_cannot_build_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    config.get("text_config", config)["hidden_act"] = "no such thing"
    (tmp_path / "odd/config.json").write_text(json.dumps(config))
    with pytest.raises(TorchError, match="transformers cannot build") as caught:
        open_reference(tmp_path / "odd")
    assert "\n" not in str(caught.value)


def test_a_missing_gpu_and_a_missing_tensor_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(TorchError, match="sees no GPU"):
            open_reference(folder, device="cuda")
    for threads in (0, 100_000):
        with pytest.raises(TorchError, match="1 to 512"):
            open_reference(folder, threads=threads)
    source = Checkpoint.open(folder)
    specs = [spec for spec in source.tensors.values() if spec.name != "model.layers.1.mlp.up_proj.weight"]
    shutil.copytree(folder, tmp_path / "less")
    (tmp_path / "less/model.safetensors").unlink()
    write_weights(tmp_path / "less", specs, lambda spec: source.raw(spec.name))
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight is missing"):
        open_reference(tmp_path / "less")


def test_threads_without_torch_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"torch is not installed.*'\.\[train\]'"):
        use_threads(1)
