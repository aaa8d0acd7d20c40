"""GGUF files against safetensors and gguf-py: names, values, metadata; layouts of checkpoints; what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")
from safetensors.torch import load_file, save_file  # noqa: E402

from infimed import InfimedError  # noqa: E402
from infimed.export.export_bundle import export_bundle  # noqa: E402
from infimed.export.gguf_names import GgufUnsupported  # noqa: E402
from infimed.export.gguf_pass import GgufWriteError  # noqa: E402
from infimed.export.gguf_write import write_text_model, write_vision_model  # noqa: E402
from infimed.runtime.events import Event  # noqa: E402
from infimed.runtime.llama_files import check_text_model, check_vision_model  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402
from ..support import Shown  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_checkpoint(tmp_path_factory.mktemp("checkpoint"), layers=2, tied=False, dtype="bfloat16")


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def change_config(folder: Path, part: str, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (config[part] if part else config).update(values)
    (folder / "config.json").write_text(json.dumps(config))


def change_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_both(folder: Path, out: Path, kind: Any) -> tuple[bytes, bytes]:
    out.mkdir(exist_ok=True)
    checkpoint = Checkpoint.open(folder)
    write_text_model(checkpoint, out / "text.gguf", kind)
    write_vision_model(checkpoint, out / "mmproj.gguf", kind)
    return (out / "text.gguf").read_bytes(), (out / "mmproj.gguf").read_bytes()


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_every_weight_of_the_checkpoint_is_in_the_files(kind: str, folder: Path, tmp_path: Path) -> None:
    write_both(folder, tmp_path, kind)
    found = {
        tensor.name: (tensor.tensor_type.name, tensor.data)
        for name in ("text.gguf", "mmproj.gguf")
        for tensor in gguf.GGUFReader(tmp_path / name).tensors
    }
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2VL, 2), gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 4)
    for name, weight in load_file(folder / "model.safetensors").items():
        values = weight.float().numpy()
        parts: dict[str, Any]
        if ".qkv." in name:
            thirds = zip("qkv", np.split(values, 3), strict=True)
            parts = {name.replace("qkv", letter): third for letter, third in thirds}
        elif "patch_embed" in name:
            parts = {name: values[:, :, 0], f"{name}.1": values[:, :, 1]}
        else:
            parts = {name: values}
        for part, expected in parts.items():
            end = ".1" if part.endswith("weight.1") else ""
            mapped = [m.get_name(part.removesuffix(".1"), try_suffixes=(".weight", ".bias")) for m in names]
            type_name, data = found.pop(next(candidate for candidate in mapped if candidate) + end)
            assert type_name == ("F32" if expected.ndim == 1 else kind)
            assert np.array_equal(data, expected.astype(data.dtype))
    assert not found


def test_the_metadata_is_what_the_configuration_says(folder: Path, tmp_path: Path) -> None:
    write_both(folder, tmp_path, "F16")
    text = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "text.gguf").fields.items()}
    assert text["general.architecture"] == "qwen2vl"
    assert text["general.name"] == "qwen2.5-vl"
    assert text["general.file_type"] == 1
    assert text["qwen2vl.attention.head_count_kv"] == 2
    assert text["qwen2vl.rope.dimension_sections"] == [8, 12, 12, 0]
    assert text["qwen2vl.rope.freq_base"] == 1000000.0
    assert text["tokenizer.chat_template"] == (folder / "chat_template.jinja").read_text()
    tower = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "mmproj.gguf").fields.items()}
    assert tower["clip.projector_type"] == "qwen2.5vl_merger"
    assert tower["clip.vision.n_wa_pattern"] == 2
    assert tower["clip.vision.image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])


def test_the_same_bytes_from_any_layout_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    expected = write_both(folder, tmp_path / "hub", "F16")
    # As transformers names its modules in memory, in shards whose index lists them in another order.
    moved = copied(folder, tmp_path / "moved")
    weights = load_file(moved / "model.safetensors")
    (moved / "model.safetensors").unlink()
    prefixes = {"model.": "model.language_model.", "visual.": "model.visual.", "lm_head.": "lm_head."}
    renamed = {
        next(new + name[len(old) :] for old, new in prefixes.items() if name.startswith(old)): weight
        for name, weight in weights.items()
    }
    names = sorted(renamed, reverse=True)
    weight_map = {name: f"model-0000{1 + index % 3}-of-00003.safetensors" for index, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save_file({name: renamed[name] for name in names if weight_map[name] == shard}, moved / shard)
    (moved / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    # And the flat configuration of transformers 4.
    config = json.loads((moved / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    del text["model_type"], text["tie_word_embeddings"]
    (moved / "config.json").write_text(json.dumps({**text, **config}))
    assert write_both(moved, tmp_path / "out", "F16") == expected


def test_a_tied_head_is_stored_once(folder: Path, tmp_path: Path) -> None:
    tied = copied(folder, tmp_path / "tied")
    change_config(tied, "", tie_word_embeddings=True)
    with pytest.raises(GgufUnsupported, match=r"lm_head\.weight differs"):
        write_text_model(Checkpoint.open(tied), tmp_path / "text.gguf", "F16")
    change_weights(
        tied, lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    )
    header = write_text_model(Checkpoint.open(tied), tmp_path / "text.gguf", "F16")
    assert check_text_model(header).tied
    change_weights(tied, lambda weights: weights.pop("lm_head.weight"))
    assert write_text_model(Checkpoint.open(tied), tmp_path / "again.gguf", "F16").tensor_types == header.tensor_types
    change_config(tied, "", tie_word_embeddings=False)
    with pytest.raises(GgufUnsupported, match=r"lm_head\.weight is missing"):
        write_text_model(Checkpoint.open(tied), tmp_path / "text.gguf", "F16")


@pytest.mark.parametrize(
    ("part", "values", "what"),
    [
        ("vision_config", {"fullatt_block_indexes": [0, 1, 2, 3]}, "needs windows"),
        ("vision_config", {"fullatt_block_indexes": [0, 3]}, "not evenly spaced"),
        ("vision_config", {"fullatt_block_indexes": [1]}, "not evenly spaced"),
        ("vision_config", {"fullatt_block_indexes": []}, "not evenly spaced"),
        ("vision_config", {"window_size": 224}, "window_size 224"),
        ("vision_config", {"spatial_merge_size": 4}, "spatial_merge_size 4"),
        ("vision_config", {"hidden_size": 96}, "config.json asks for"),
        ("vision_config", {"depth": "many"}, "garbles"),
        (
            "text_config",
            {"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "mrope_section": [8, 12, 12]}},
            "yarn",
        ),
        ("text_config", {"rope_parameters": {"rope_theta": 1e6, "mrope_section": [8, 8, 8]}}, "rotary sections"),
        ("text_config", {"use_sliding_window": True}, "sliding"),
        ("text_config", {"num_hidden_layers": 3}, r"model\.layers\.2\..* is missing"),
        ("text_config", {"num_hidden_layers": 1}, r"model\.layers\.1\..* is unknown"),
        ("text_config", {"vocab_size": 100}, "token ids up to"),
        ("", {"quantization_config": {"quant_method": "gptq"}}, "quantised already"),
        ("", {"architectures": ["GPT2LMHeadModel"]}, "not supported"),
    ],
)
def test_what_llama_cpp_cannot_compute_is_refused_by_name(
    part: str, values: dict[str, Any], what: str, folder: Path, tmp_path: Path, shown: Callable[[Shown], None]
) -> None:
    changed = copied(folder, tmp_path / "changed")
    change_config(changed, part, **values)
    with pytest.raises(InfimedError, match=what):
        write_both(changed, tmp_path / "out", "F16")
    with pytest.raises(InfimedError, match=what if what == "needs windows" else None):
        export_bundle(changed, tmp_path / "bundle", ["gguf-q8_0"], threads=1)
    assert not (tmp_path / "bundle").exists()
    if what == "needs windows":
        note = "full attention at every layer of the vision tower"
        shown(Shown("qwen2.5-vl", "every gguf level", "export", "refused", note))


@pytest.mark.parametrize(
    ("value", "what"), [(float("nan"), "NaN or infinity"), (float("inf"), "NaN or infinity"), (1e6, "more than F16")]
)
def test_a_weight_that_the_type_cannot_hold_is_refused(value: float, what: str, folder: Path, tmp_path: Path) -> None:
    changed = copied(folder, tmp_path / "changed")
    change_weights(changed, lambda weights: weights["model.layers.1.mlp.up_proj.weight"][3, 5].fill_(value))
    with pytest.raises(GgufWriteError, match=f"up_proj.weight holds .*{what}|up_proj.weight holds {what}"):
        write_text_model(Checkpoint.open(changed), tmp_path / "text.gguf", "F16")
    assert not [path for path in tmp_path.iterdir() if "gguf" in path.name]
    if np.isfinite(value):
        write_text_model(Checkpoint.open(changed), tmp_path / "text.gguf", "F32")


def test_only_f32_holds_what_bfloat16_rounds_to_infinity(folder: Path, tmp_path: Path) -> None:
    changed = copied(folder, tmp_path / "changed")
    name = "model.layers.0.mlp.up_proj.weight"
    change_weights(changed, lambda weights: weights.update({name: weights[name].float().fill_(3.3e38)}))
    write_text_model(Checkpoint.open(changed), tmp_path / "text.gguf", "BF16")
    change_weights(changed, lambda weights: weights[name][0, 0].fill_(float(np.finfo(np.float32).max)))
    with pytest.raises(GgufWriteError, match="more than BF16 can; export gguf-f32 only"):
        write_text_model(Checkpoint.open(changed), tmp_path / "text.gguf", "BF16")
    write_text_model(Checkpoint.open(changed), tmp_path / "text.gguf", "F32")


def test_a_folder_that_cannot_be_written_gives_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GgufWriteError, match="cannot be written"):
        write_text_model(Checkpoint.open(folder), tmp_path / "absent" / "text.gguf", "F16")


def test_progress_counts_every_byte_of_the_weights(folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    header = write_vision_model(Checkpoint.open(folder), tmp_path / "mmproj.gguf", "F16", events.append)
    assert check_vision_model(header, 256).layers == 4
    assert events[-1].done == events[-1].total == header.weight_bytes
    assert [event.done for event in events] == sorted(event.done for event in events)
