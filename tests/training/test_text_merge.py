"""Adapters of text-only families, made by peft elsewhere: merged as any other, and checked without an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
from safetensors.numpy import load_file

from infimed.training.merge import merge_adapter

from ..text_models import TEXT_FAMILIES, build_text_checkpoint


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_an_adapter_of_a_text_only_family_is_merged_as_peft_merges_it(family: str, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = build_text_checkpoint(tmp_path / "base", family)
    torch.manual_seed(1)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "down_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged", base=base, threads=1)
    theirs = model.merge_and_unload().state_dict()
    ours = load_file(tmp_path / "merged" / "model.safetensors")
    assert set(ours) <= set(theirs)
    for name, values in ours.items():
        assert np.allclose(values, theirs[name].numpy(), atol=1e-6), name
    opened, told = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(told.values()) and opened.config.architectures == [type(opened).__name__]
    written = AutoTokenizer.from_pretrained(tmp_path / "merged")
    asked = [{"role": "user", "content": "Is there a lesion?"}]
    assert written.apply_chat_template(asked) == AutoTokenizer.from_pretrained(base).apply_chat_template(asked)
