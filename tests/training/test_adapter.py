"""An adapter's digest names all that decides its answers; what would merge to nothing or to anything is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from infimed.training.adapter import EMBEDDED_BASE, Adapter, AdapterError, embedded_base
from infimed.training.checkpoint import Checkpoint
from infimed.training.merge import MergeError, _judge, merge_adapter
from infimed.training.merge_check import Difference
from infimed.training.provenance import Provenance
from infimed.training.targets import torch_target

LAYER = "model.language_model.layers.0.self_attn.q_proj"


def settings(**changes: Any) -> dict[str, Any]:
    known = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": False, "bias": "none",
        "base_model_name_or_path": EMBEDDED_BASE, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM",
    }  # fmt: skip
    return {**known, **changes}


def write(folder: Path, weights: bool = True, **changes: Any) -> Adapter:
    """Write an adapter of one layer of the embedded base model by hand, as another tool might, and open it."""
    folder.mkdir(exist_ok=True)
    base = Checkpoint.open(embedded_base())
    rows, columns = next(
        spec.shape for name, spec in base.tensors.items() if name.endswith("layers.0.self_attn.q_proj.weight")
    )
    draw = np.random.default_rng(0)
    tensors = {
        f"base_model.model.{LAYER}.lora_A.weight": draw.normal(0, 0.05, (4, columns)).astype(np.float32),
        f"base_model.model.{LAYER}.lora_B.weight": draw.normal(0, 0.05, (rows, 4)).astype(np.float32),
    }
    save_file(tensors if weights else {}, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(settings(**changes)), "utf-8")
    return Adapter.open(folder)


@pytest.mark.parametrize("change", [{"lora_alpha": 16}, {"r": 2}, {"use_rslora": True}, {"target_modules": ["v_proj"]}])
def test_the_same_weights_under_other_settings_are_another_adapter(change: dict[str, Any], tmp_path: Path) -> None:
    one = write(tmp_path / "a")
    other = write(tmp_path / "b", **change)
    assert one.sha256 != other.sha256
    subjects = [torch_target(tmp_path / name, threads=1).subject for name in "ab"]
    assert subjects[0] != subjects[1], "a run of one must never be taken for one of the other"


def test_where_the_base_lies_is_no_part_of_the_digest_but_which_base_it_is(tmp_path: Path) -> None:
    one = write(tmp_path / "a")
    by_path = write(tmp_path / "b", base_model_name_or_path=str(embedded_base()))
    assert one.sha256 == by_path.sha256 == one.sha256_upon(Checkpoint.open(embedded_base()).sha256)
    assert one.sha256 != one.sha256_upon("0" * 64)
    Provenance("sft", {"base": "0" * 64}).write(tmp_path / "a")
    assert Adapter.open(tmp_path / "a").sha256 == one.sha256_upon("0" * 64), "the base that it was trained on"


def test_other_pixel_rules_are_another_adapter(tmp_path: Path) -> None:
    before = write(tmp_path / "a").sha256
    (tmp_path / "a" / "preprocessor_config.json").write_text("{}", "utf-8")
    assert Adapter.open(tmp_path / "a").sha256 != before


def test_an_adapter_without_tensors_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="holds no tensor"):
        write(tmp_path / "a", weights=False)
    with pytest.raises(AdapterError, match="holds no tensor"):
        merge_adapter(tmp_path / "a", tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 10**400, "much"], ids=["nan", "inf", "huge", "text"])
def test_a_scale_that_is_no_number_is_refused(alpha: object, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        write(tmp_path / "a", lora_alpha=alpha)


def test_an_undefined_difference_is_no_merge() -> None:
    with pytest.raises(MergeError, match="logits differ by nan"):
        _judge(Difference(1, 1, float("nan"), 0.0, 0.0, 1.0))
    _judge(Difference(1, 1, 1e-5, 0.0, 0.0, 1.0))
