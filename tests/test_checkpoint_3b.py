"""The benchmark's checkpoint has the published model's shape: by its index, and by what transformers builds."""

from __future__ import annotations

import json
from pathlib import Path

from infimed.benchmarks.checkpoint_3b import SMALL, Size, config_of, tensors_of

# metadata.total_size and the number of tensors in the index that Qwen/Qwen2.5-VL-3B-Instruct is published with.
PUBLISHED_BYTES, PUBLISHED_TENSORS = 7509245952, 824


def test_the_full_size_has_the_bytes_and_tensors_of_the_published_index() -> None:
    specs = list(tensors_of(Size()))
    assert (sum(spec.bytes for spec in specs), len(specs)) == (PUBLISHED_BYTES, PUBLISHED_TENSORS)


def test_transformers_builds_the_same_tensors_from_its_config(tmp_path: Path) -> None:
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    for size in (Size(), SMALL):
        (tmp_path / "config.json").write_text(json.dumps(config_of(size, size.tokens)), "utf-8")
        with torch.device("meta"):
            config = Qwen2_5_VLConfig.from_pretrained(str(tmp_path), local_files_only=True)
            model = Qwen2_5_VLForConditionalGeneration(config)
        built = {
            name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): tuple(tensor.shape)
            for name, tensor in model.named_parameters()
        }
        assert built == {spec.name: spec.shape for spec in tensors_of(size)}
        assert model.config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
