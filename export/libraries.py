"""Says before a long job which of its libraries is not installed, and the command that installs it.

Knows the extras of pyproject.toml by the modules they bring; imports none of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from .. import MissingExtra
from ..runtime.levels import level as level_row

_EXTRA = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "accelerate": "train",
    "scipy": "evaluate",
    "matplotlib": "evaluate",
    "llama_cpp": "llama",
    "onnxruntime": "onnx",
    "gguf": "export",
    "onnx": "export",
    "onnxscript": "export",
    "optimum": "export",
}
_ALWAYS = ("torch", "transformers", "optimum")
_ONNX = ("onnx", "onnxscript", "onnxruntime")  # a TensorRT level is a graph, and its graph is run here
_OF_FORMAT = {"gguf": ("gguf", "llama_cpp"), "onnx": _ONNX, "tensorrt": _ONNX}


def require_libraries(levels: Iterable[str], *further: str) -> None:
    """Raise MissingExtra for the first library that an export of `levels` would lack, or that is among `further`.

    An export writes each level, and runs it beside the torch reference. Raises UnknownLevel for a name of no level.
    """
    formats = dict.fromkeys(level_row(name).format for name in levels)
    for module in (*_ALWAYS, *(name for format in formats for name in _OF_FORMAT[format]), *further):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(_EXTRA[module], module)
