"""Qwen2 and the text models of Qwen2.5 in GGUF and ONNX: the checkpoint's tensors as they are.

Its graph is llama.cpp's "qwen2", which reads the norms' epsilon from the file and takes all heads of the hidden width.
"""

from __future__ import annotations

from .gguf_names import FamilyMapping, taken_as_is

MAPPING = FamilyMapping(
    unusual=lambda config: [],
    own_head_dim=False,
    tensors=lambda shape: taken_as_is(shape.sizes.tensors()),
    keys=lambda shape: {},
)
