"""How the matrices of each ONNX level are stored, one row each; a vision tower takes the same rows by the same names.

Knows no file and no graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..runtime.quantise import BlockFormat
from . import onnx_decoder, onnx_vision
from .onnx_blocks import BlockStorage, Method
from .onnx_channels import ChannelStorage
from .onnx_weights import Scheme

# For 8-bit weights onnxruntime's processor kernel exists with 8-bit activations only; without them it unpacks the whole
# matrix at every call (docs/onnx.md). As "int8" it is for the decoder's judge and for a GPU, as "int8-acc4" to be fast.
INT8 = BlockStorage(BlockFormat(bits=8, block=32, symmetric=True))
INT8_ACC4 = replace(INT8, int8_activations=True)


def _int4(block: int = 32, method: Method = "rtn", **settings: Any) -> Scheme:
    format = BlockFormat(bits=4, block=block, symmetric=False, float_zeros=method == "hqq")
    # The head stays at 8 bits: it decides between tokens directly (docs/onnx.md has the measurement).
    return Scheme(BlockStorage(format, method=method, **settings), named={onnx_decoder.HEAD: INT8_ACC4})


SCHEMES: Mapping[str, Scheme] = {
    "fp32": Scheme(None),
    "fp16": Scheme(None, dtype="float16"),
    "int8": Scheme(INT8),
    "int8-acc4": Scheme(INT8_ACC4),
    "int8-dynamic": Scheme(ChannelStorage("dynamic")),
    "int8-static": Scheme(ChannelStorage("static")),
    "int4": _int4(),
    "int4-acc4": _int4(int8_activations=True),
    "int4-hqq": _int4(method="hqq"),
    "int4-kquant": _int4(method="kquant"),
    "int4-b128": _int4(128),
    "int4-b128-hqq": _int4(128, "hqq"),
    "int4-b128-kquant": _int4(128, "kquant"),
}
"""By a level's storage, as its row in runtime/levels.py names it."""


def vision_scheme(storage: str) -> Scheme:
    """Return how a tower of that type is stored: the patch matrix, which sees raw pixels, in the graph's own type."""
    scheme = SCHEMES[storage]
    return Scheme(scheme.matrices, named={onnx_vision.PATCHES: None}, dtype=scheme.dtype)
