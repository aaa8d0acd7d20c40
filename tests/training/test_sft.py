"""Fine-tuning: it learns, it resumes to the same bytes after SIGKILL, and its adapter opens in peft."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.prompting import messages_for
from infimed.runtime.events import Event
from infimed.runtime.messages import ImagePart
from infimed.runtime.publish import PublishError
from infimed.training.adapter import Adapter, AdapterError
from infimed.training.checkpoint import Checkpoint
from infimed.training.lora import PARTS, LoraSpec, attach_lora, load_lora
from infimed.training.provenance import Provenance
from infimed.training.reference import open_reference
from infimed.training.sft import _identity, _is_finished, _prepare_state, train_sft
from infimed.training.sft_data import SftDataError
from infimed.training.sft_trainer import SftError
from infimed.training.torch_backend import load_model

from .conftest import RECIPE, build_dataset

KILLED = """
import os, signal, sys
from pathlib import Path
from infimed.training.sft import train_sft
room, out, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def listen(event):
    if event.stage == "sft" and event.done == step:
        os.kill(os.getpid(), signal.SIGKILL)
train_sft(room / "recipe.toml", data=room / "data", base=room / "base", out=out, threads=1, save_every_steps=3,
          on_event=listen)
"""


def train(room: Path, out: Path, **options: object) -> Adapter:
    chosen = {"data": room / "data", "base": room / "base", "out": out, "threads": 1, **options}
    return train_sft(chosen.pop("recipe", room / "recipe.toml"), **chosen)  # type: ignore[arg-type]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_run_goes_on_to_the_bytes_of_an_unbroken_one(room: Path) -> None:
    out = room / "resumed"
    run = subprocess.run([sys.executable, "-c", KILLED, str(room), str(out), "5"], capture_output=True, timeout=120)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()[-2000:]
    state = room / ".resumed.partial" / "state"
    assert not out.exists() and (state / "checkpoint-3" / "complete").is_file()
    # A save that was cut short: it has a later number, its files are there in part, its mark is not.
    shutil.copytree(state / "checkpoint-3", state / "checkpoint-4")
    (state / "checkpoint-4" / "complete").unlink()
    (state / "checkpoint-4" / "adapter_model.safetensors").write_bytes(b"cut")
    told: list[Event] = []
    train(room, out, save_every_steps=3, on_event=told.append)
    assert [event.done for event in told if event.stage == "sft"] == [4, 5, 6, 7, 8]
    assert files_of(out) == files_of(room / "adapter")
    assert not (room / ".resumed.partial").exists()


def test_a_run_killed_after_its_last_file_is_only_published(room: Path) -> None:
    work = room / ".late.partial"
    shutil.copytree(room / "adapter", work)
    (work / "state").mkdir()
    told: list[Event] = []
    train(room, room / "late", on_event=told.append)
    assert not told and files_of(room / "late") == files_of(room / "adapter")


def test_a_broken_run_of_another_device_is_refused(tmp_path: Path) -> None:
    made = Provenance("sft", {"base": "b", "dataset": "d"}, "r", 1, {"torch": "2"})
    here, there = _identity(made, "cpu"), _identity(made, "cuda")
    _prepare_state(tmp_path, here, restart=False)
    _prepare_state(tmp_path, here, restart=False)
    with pytest.raises(SftError, match="another recipe, dataset, base, device"):
        _prepare_state(tmp_path, there, restart=False)
    made.write(tmp_path)
    assert _is_finished(tmp_path, made, here, restart=False)
    assert not _is_finished(tmp_path, made, there, restart=False)
    _prepare_state(tmp_path, there, restart=True)


def test_a_broken_run_of_another_recipe_is_refused_until_restart(room: Path, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(RECIPE.replace("seed = 3", "seed = 4"), "utf-8")

    def stop(event: Event) -> None:
        if event.stage == "sft" and event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(room, tmp_path / "out", recipe=tmp_path / "other.toml", save_every_steps=2, on_event=stop)
    with pytest.raises(SftError, match=r"another recipe.*--restart"):
        train(room, tmp_path / "out")
    train(room, tmp_path / "out", restart=True)
    weights = "adapter_model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (room / "adapter" / weights).read_bytes()


def test_the_adapter_has_learnt_what_the_base_does_not_know(room: Path) -> None:
    dataset = Dataset.open(room / "data")
    right = {}
    for name in ("base", "adapter"):
        engine = open_reference(room / name, threads=1)
        asked = [example for example in dataset.examples if example.options]
        right[name] = np.mean(
            [
                engine.score(
                    messages_for(example, [ImagePart(image) for image in dataset.images(example)]), example.options
                ).choice()
                == example.answer
                for example in asked
            ]
        )
        engine.close()
    assert right["adapter"] == 1.0 and right["base"] < 0.9


def test_the_adapter_opens_in_peft_and_answers_as_the_reference_does(room: Path) -> None:
    from peft import PeftModel
    from transformers import Qwen2_5_VLForConditionalGeneration

    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(str(room / "base"), dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(room / "adapter")).eval()
    engine = open_reference(room / "adapter", threads=1)
    ids = engine.prompter.encode("Is the image bright?")  # type: ignore[attr-defined]
    positions = np.tile(np.arange(len(ids)), (3, 1))
    backend = engine.backend  # type: ignore[attr-defined]
    backend.truncate(0, 0)
    rows = backend.extend(np.array(ids), positions, [], len(ids))
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    assert np.abs(rows - expected).max() < 2e-5


def test_the_adapter_names_what_it_was_made_of_and_no_place(room: Path) -> None:
    made = Provenance.read(room / "adapter")
    assert made.inputs == {
        "base": Checkpoint.open(room / "base").sha256,
        "dataset": Dataset.open(room / "data").sha256,
    }
    assert made.seed == 3 and made.licences == {"CC0-1.0": 18}
    assert made.attest["steps"] == 8 and made.attest["examples"] == 18 and made.attest["images"] == 6
    assert json.loads((room / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "../base"
    assert {path.name for path in (room / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "infimed.json",
        "preprocessor_config.json",
    }
    for data in files_of(room / "adapter").values():
        assert str(room.parent).encode() not in data


@pytest.mark.parametrize("part", sorted(PARTS))
def test_only_the_layers_of_the_chosen_part_are_trained(part: str, room: Path) -> None:
    model = attach_lora(load_model(Checkpoint.open(room / "base")), LoraSpec(rank=2, parts=(part,)))  # type: ignore[arg-type]
    trained = {name.split(".lora_")[0] for name, weight in model.named_parameters() if weight.requires_grad}
    counts = {
        "language.attention": 2 * 4,
        "language.mlp": 2 * 3,
        "projector": 2,
        "vision.attention": 2 * 2,
        "vision.mlp": 2 * 3,
    }
    counts |= {"language": 2 * 7, "vision": 2 * 5}
    assert len(trained) == counts[part]
    where = "language_model" if part.startswith("language") else "merger" if part == "projector" else "visual.blocks"
    assert all(where in name for name in trained)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]),
        ("cosine", [0, *(0.5 + 0.5 * np.cos(np.pi * step / 9) for step in range(9))]),
        ("stable", [0, 1, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3]),
    ],
)
def test_the_rate_follows_the_schedule_and_b_is_trained_faster_than_a(
    schedule: str, expected: list[float], room: Path, tmp_path: Path
) -> None:
    text = RECIPE.replace("steps = 8", f"steps = 10\nschedule = '{schedule}'\nwarmup = 0.1\nb_rate_ratio = 4")
    (tmp_path / "r.toml").write_text(text, "utf-8")
    told: list[Event] = []

    def listen(event: Event) -> None:
        told.append(event)
        if event.stage == "sft" and event.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(room, tmp_path / "out", recipe=tmp_path / "r.toml", save_every_steps=9, on_event=listen)
    rates = [event.figures["learning_rate"] for event in told if event.stage == "sft"]
    assert np.allclose(rates, 0.01 * np.array(expected), atol=1e-9)
    saved = torch.load(tmp_path / ".out.partial/state/checkpoint-9/optimizer.pt", weights_only=True)
    groups = [group["lr"] for group in saved["param_groups"] if group["params"]]
    assert groups == pytest.approx([rates[9], 4 * rates[9]])


def test_larger_images_are_kept_in_the_adapter_as_transformers_reads_them(room: Path, tmp_path: Path) -> None:
    from PIL import Image
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    (tmp_path / "r.toml").write_text(
        RECIPE.replace("steps = 8", "steps = 1") + "[images]\nmin_pixels = 12544\nmax_pixels = 50176\n", "utf-8"
    )
    adapter = train(room, tmp_path / "out", recipe=tmp_path / "r.toml")
    processor = Qwen2VLImageProcessorPil.from_pretrained(str(adapter.folder))
    seen = processor(images=[Image.new("RGB", (56, 56)), Image.new("RGB", (900, 900))], return_tensors="pt")
    assert seen["image_grid_thw"].tolist() == [[1, 8, 8], [1, 16, 16]]
    engine = open_reference(adapter.folder, threads=1)
    small = engine.prompter.prompt(  # type: ignore[attr-defined]
        messages_for(Dataset.open(room / "data").examples[0], [ImagePart(np.zeros((56, 56, 3), np.uint8))])
    )
    assert small.images[0].tokens == 16


def test_what_cannot_be_trained_is_refused_before_anything_appears(room: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    with pytest.raises(PublishError, match="exists already"):
        train(room, tmp_path / "taken")
    unlike = tmp_path / "calibration.toml"
    unlike.write_text(RECIPE + "[data]\nroles = ['calibration']\n", "utf-8")
    with pytest.raises(SftError, match="no example has the role calibration"):
        train(room, tmp_path / "out", recipe=unlike)
    with pytest.raises(SftError, match="device 'tpu' is unknown"):
        train(room, tmp_path / "out", device="tpu")
    long = tmp_path / "long.toml"
    long.write_text(RECIPE + "[data]\nmax_tokens = 16\n", "utf-8")
    with pytest.raises(SftDataError, match="max_tokens is 16"):
        train(room, tmp_path / "out", recipe=long)
    assert not list(tmp_path.glob("*out*"))


def test_a_loss_that_is_no_number_ends_the_run(room: Path, tmp_path: Path) -> None:
    (tmp_path / "hot.toml").write_text(RECIPE.replace("learning_rate = 0.01", "learning_rate = 1.0"), "utf-8")
    shutil.copytree(room / "base", tmp_path / "base")
    weights = bytearray((tmp_path / "base/model.safetensors").read_bytes())
    weights[-4:] = np.array([np.nan], "<f4").tobytes()
    (tmp_path / "base/model.safetensors").write_bytes(weights)
    with pytest.raises(SftError, match="the loss is nan at step 1"):
        train(room, tmp_path / "out", recipe=tmp_path / "hot.toml", base=tmp_path / "base")
    assert not list(tmp_path.glob("*out*"))


def test_an_adapter_finds_its_base_refuses_another_and_says_when_it_is_gone(room: Path, tmp_path: Path) -> None:
    adapter = Adapter.open(room / "adapter")
    assert adapter.find_base().folder.resolve() == (room / "base").resolve()
    shutil.copytree(room / "adapter", tmp_path / "moved")
    moved = Adapter.open(tmp_path / "moved")
    assert moved.sha256 == adapter.sha256
    with pytest.raises(AdapterError, match="name it with --base"):
        moved.find_base()
    assert moved.find_base(room / "base").sha256 == adapter.find_base().sha256
    shutil.copytree(room / "base", tmp_path / "changed")
    with open(tmp_path / "changed/chat_template.jinja", "a") as stream:
        stream.write(" ")
    with pytest.raises(AdapterError, match="is not the base of"):
        moved.find_base(tmp_path / "changed")


def test_an_adapter_of_another_architecture_is_refused(room: Path, tmp_path: Path) -> None:
    from .conftest import build_micro

    build_micro(tmp_path / "base")
    model = load_model(Checkpoint.open(tmp_path / "base"))
    del model.model.visual.blocks[1]
    with pytest.raises(AdapterError, match=r"no layer model\.visual\.blocks\.1"):
        load_lora(model, Adapter.open(room / "adapter"))


def test_a_dataset_of_another_seed_trains_another_adapter(room: Path, tmp_path: Path) -> None:
    build_dataset(tmp_path / "data", images=4)
    other = train(room, tmp_path / "out", data=tmp_path / "data")
    assert other.sha256 != Adapter.open(room / "adapter").sha256
