"""Two corrections to the graphs that llama.cpp builds for Qwen2.5-VL, made on their nodes before they run.

llama.cpp 0.5.0-dev (llama-cpp-python 0.3.36) never reads the norms' epsilon of a qwen2vl file and computes with 0: at
embeddings of 0.02 that alone moves the mean KL to 7e-6. And its vision merger takes the tanh form of GELU through a
table in half precision, where the model has the exact one. llama.cpp shows every node to a callback before computing
it; here that callback sets the one number that is wrong. docs/decisions/012-llama-graph.md has the measurements. Knows
ggml's public tensor struct (ggml.h); checks on every run that it met the nodes it expects.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Sequence
from typing import Any, Protocol

from .llama_library import LlamaError, LlamaLibrary


class _TensorHead(ctypes.Structure):
    """The first fields of struct ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("sides", ctypes.c_int64 * 4),
        ("strides", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
    )


_OP = _TensorHead.op.offset
_PARAMS = _TensorHead.op_params.offset


class NodeCorrection:
    """Sets the first parameter of all nodes of one kind, and counts them.

    op: ggml's number of the operation. known: values (as 32-bit patterns) that the nodes to correct may have; others of
    that operation are left alone. right: what it becomes.
    """

    def __init__(self, library: LlamaLibrary, op: int, known: Sequence[int], right: int) -> None:
        self.met = 0
        self._op, self._known, self._right = op, frozenset(known) | {right}, right
        # The attribute keeps the callback alive as long as the context that calls it.
        self.callback = library.llama.ggml_backend_sched_eval_callback(self._visit)

    def _visit(self, node: int, asked: bool, _: object) -> bool:
        if asked and ctypes.c_int.from_address(node + _OP).value == self._op:
            parameter = ctypes.c_uint32.from_address(node + _PARAMS)
            if parameter.value in self._known:
                parameter.value = self._right
                self.met += 1
        return False  # llama.cpp need not stop to show the node's result

    def check(self, expected: int) -> None:
        """Raise LlamaError unless `expected` nodes were met since the last check."""
        met, self.met = self.met, 0
        if met != expected:
            raise LlamaError(
                f"llama.cpp built a graph with {met} nodes to correct where {expected} are known; this version of "
                "llama-cpp-python is not supported, install the one in constraints.txt"
            )


def norm_epsilon(library: LlamaLibrary, epsilon: float) -> NodeCorrection | None:
    """Return the correction of the text model's norms, None where llama.cpp has just logged that it read `epsilon`."""
    said = re.search(r"f_norm_rms_eps\s*=\s*(\S+)", "\n".join(library.log.lines()))
    if said and said.group(1) == f"{epsilon:.1e}":
        return None
    (right,) = struct.unpack("<I", struct.pack("<f", epsilon))
    return NodeCorrection(library, _number(library, "ggml_op_name", "RMS_NORM"), [0], right)


def exact_gelu(library: LlamaLibrary) -> NodeCorrection:
    """Return the correction of the vision merger's activation."""
    return NodeCorrection(
        library,
        _number(library, "ggml_op_name", "UNARY"),
        [_number(library, "ggml_unary_op_name", "GELU")],
        _number(library, "ggml_unary_op_name", "GELU_ERF"),
    )


class _Named(Protocol):
    def __call__(self, number: int) -> bytes: ...


def _number(library: LlamaLibrary, function: str, name: str) -> int:
    """Return ggml's number of an operation, which changes from release to release, by its name, which does not."""
    named: Any = getattr(library.llama._lib, function)
    named.restype = ctypes.c_char_p
    lookup: _Named = named
    for number in range(96):
        if lookup(number) == name.encode():
            return number
    raise LlamaError(f"llama.cpp has no operation {name}; install the llama-cpp-python of constraints.txt")
