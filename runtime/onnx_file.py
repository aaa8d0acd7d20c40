"""Checks an ONNX file before onnxruntime sees it: its data files lie beside it, and every tensor lies inside its file.

onnxruntime 1.23, the last for Python 3.10, follows a path to anywhere on the disk. Reads the protobuf wire format just
far enough to find external tensors (onnx.proto3 of the ONNX repository); knows nothing of what the graph computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import InfimedError

MAX_GRAPH_BYTES = 64 * 2**20
MAX_DEPTH = 32

# Message -> field number -> message of that field: every way from a model to a tensor.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {},
}


class OnnxFileError(InfimedError):
    """An ONNX file is damaged, or reaches for data outside its folder."""


def check_onnx_file(path: Path) -> None:
    """Refuse an ONNX file whose tensors do not lie in plain files beside it. Raises OnnxFileError."""
    if not path.is_file():
        raise OnnxFileError(f"{path} is missing; export the level again")
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise OnnxFileError(
            f"{path} is larger than {MAX_GRAPH_BYTES:,} bytes; a graph of infimed keeps its data beside it"
        )
    try:
        tensors = list(_external(memoryview(path.read_bytes()), "Model", 0))
        for entries in tensors:
            _check(path, entries)
    except (ValueError, IndexError, UnicodeDecodeError):
        raise OnnxFileError(f"{path} is no ONNX file; export the level again") from None


def _check(path: Path, entries: Mapping[str, str]) -> None:
    name = entries.get("location", "")
    data = path.parent / name
    if name in ("", "..") or Path(name).name != name or "\\" in name or "\0" in name or data.is_symlink():
        raise OnnxFileError(f"{path} takes data from {name!r}; only plain files beside it are read")
    if not data.is_file():
        raise OnnxFileError(f"{data} is missing; export the level again")
    offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    if offset < 0 or length < 0 or offset + length > data.stat().st_size:
        raise OnnxFileError(f"{data} is shorter than {path.name} says; export the level again")


def _external(message: memoryview, kind: str, depth: int) -> Iterator[dict[str, str]]:
    """Yield key and value of each external tensor in a message. Raises ValueError or IndexError if it is malformed."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    entries: dict[str, str] = {}
    for field, value in _fields(message):
        inner = _FIELDS[kind].get(field)
        if inner is None or value is None:
            continue
        if inner == "Entry":
            pair = {number: bytes(text).decode() for number, text in _fields(value) if text is not None}
            key = pair.get(1, "")
            if key in entries:
                raise ValueError(f"{key} is given twice")
            entries[key] = pair.get(2, "")
        else:
            yield from _external(value, inner, depth + 1)
    if entries:
        yield entries


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Yield each field's number, and its bytes where it has a length; None for plain numbers."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value = None
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            value = message[at : at + length]
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(message):
            raise ValueError("cut short")
        yield tag >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
