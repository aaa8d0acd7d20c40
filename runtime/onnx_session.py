"""A graph opened in onnxruntime, as infimed wants it opened: checked, without fallback, and its errors in one line.

Knows the library and no model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import InfimedError, MissingExtra
from .onnx_file import check_onnx_file

_TYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxError(InfimedError):
    """onnxruntime cannot open or run a graph here."""


def open_session(path: Path, threads: int, providers: tuple[str, ...], *, as_written: bool = False) -> Any:
    """Return an onnxruntime.InferenceSession. Raises OnnxError, OnnxFileError or MissingExtra.

    providers: in order; each must really run here, or the session is refused. as_written: Q/DQ are computed as they
    stand; otherwise onnxruntime may fuse them into products of its own, at 4 bits with activations rounded to 8.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtra("onnx", "onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # a plan is kept for every length seen, and lengths never end
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    check_onnx_file(path)
    missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
    session = None
    if not missing:  # without fallback: it would print, and try again by other means than those asked for
        chosen = {"providers": list(providers), "enable_fallback": 0}
        session = run(onnxruntime.InferenceSession, str(path), options, **chosen)
    # Only a session tells what runs: the list of available providers names what was compiled in.
    if session is None or not set(providers) <= set(session.get_providers()):
        raise OnnxError(
            f"onnxruntime {onnxruntime.__version__} cannot run {providers[0]} here; use the processor, or install "
            "onnxruntime-gpu in place of onnxruntime together with the CUDA libraries it names"
        )
    return session


def giving_back() -> Any:
    """Return the options of a run after which working memory on the processor is freed."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def run(call: Any, *arguments: Any, **named: Any) -> Any:
    """Call onnxruntime; its errors, each of its own class under Exception, become one line."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime") or isinstance(error, (RuntimeError, ValueError)):
            raise OnnxError(f"onnxruntime: {' '.join(str(error).split())[:300]}") from None
        raise


def float_types(session: Any) -> dict[str, type[np.floating[Any]]]:
    """Return numpy's type of each input and output of floating-point numbers, by name."""
    ports = (*session.get_inputs(), *session.get_outputs())
    return {port.name: _TYPES[port.type] for port in ports if port.type in _TYPES}
