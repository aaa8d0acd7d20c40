"""llama.cpp as one object: its C API loaded once, its log caught instead of printed, its failures turned into words.

llama.cpp says why a call failed only through its log, so the last lines are kept and quoted in errors. The functions
are those of llama-cpp-python 0.3.36, untyped there. Knows no model file and no prompt.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import InfimedError, MissingExtra

_WARNING, _ERROR, _CONTINUED = 3, 4, 5  # ggml.h
# Loading a model takes about 150 lines, and what it read of the header is among the first.
_KEPT_LINES = 512


class LlamaError(InfimedError):
    """llama.cpp refused a file or a step."""


class LlamaLog:
    """The last lines that llama.cpp wrote, with their severity."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
        self._record: list[str] | None = None

    def clear(self) -> None:
        """Forget what was said, before a call whose failure is to be explained."""
        self._lines.clear()

    def take(self, severity: int, text: str) -> None:
        """Keep a line; what continues a line is joined to it."""
        if self._record is not None:
            self._record.append(text)
        if severity == _CONTINUED and self._lines:
            before, start = self._lines.pop()
            self._lines.append((before, start + text))
        else:
            self._lines.append((severity, text))

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Give a list that takes every piece said until the block ends, however many there are."""
        self.clear()
        record: list[str] = []
        self._record = record
        try:
            yield record
        finally:
            self._record = None

    def reason(self) -> str:
        """Return what was said of a failure: the errors, else the warnings, else the last line; on one line."""
        for severity in (_ERROR, _WARNING):
            found = [text for level, text in self._lines if level == severity]
            if found:
                break
        else:
            found = [text for _, text in self._lines][-1:]
        return "; ".join(" ".join(text.split()) for text in found[:3]) or "llama.cpp gave no reason"

    def lines(self) -> list[str]:
        """Return everything kept, line by line."""
        return [text.rstrip("\n") for _, text in self._lines]


class LlamaLibrary:
    """The two halves of llama.cpp's C API. llama: text models. mtmd: vision towers. log: what they said."""

    def __init__(self, llama: Any, mtmd: Any) -> None:
        self.llama = llama
        self.mtmd = mtmd
        self.log = LlamaLog()
        # ctypes frees a callback that nothing refers to; llama.cpp would then call into nothing.
        self._callback = llama.llama_log_callback(self._on_log)
        for set_log in (llama.llama_log_set, mtmd.mtmd_log_set, mtmd.mtmd_helper_log_set):
            set_log(self._callback, ctypes.c_void_p(0))
        llama.llama_backend_init()

    @property
    def version(self) -> str:
        """Return llama.cpp's own name for its version, without the build's path or time."""
        return str(self.llama.llama_version().decode("utf-8", "replace"))

    def _on_log(self, severity: int, text: bytes, _: object) -> None:
        self.log.take(severity, text.decode("utf-8", "replace"))


@lru_cache(maxsize=1)
def llama_library() -> LlamaLibrary:
    """Load llama.cpp, once per process. Raises MissingExtra, or LlamaError where its library does not load."""
    try:
        from llama_cpp import llama_cpp, mtmd_cpp
    except ModuleNotFoundError as error:
        raise MissingExtra("llama", "llama_cpp") from error
    except (OSError, RuntimeError, AttributeError) as error:
        raise LlamaError(f"llama.cpp's library does not load ({error}); install llama-cpp-python again") from error
    return LlamaLibrary(llama_cpp, mtmd_cpp)


def path_bytes(path: Path) -> bytes:
    """Return a path as the C API takes it."""
    return str(path).encode("utf-8", "surrogateescape")


def pointer(array: Any, kind: Any) -> Any:
    """Return a C pointer to a numpy array's values, which must outlive its use."""
    return array.ctypes.data_as(ctypes.POINTER(kind))


def flash_type(library: LlamaLibrary, enabled: bool) -> int:
    """Return llama.cpp's number for flash attention on or off."""
    llama = library.llama
    return int(llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if enabled else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED)
