"""The weights of a GGUF level, dequantised: read under the hub's names, or written as a file of F32 beside it.

Dequantises by gguf-py's own numpy code, which shares nothing with the engine's kernels. Knows names by gguf_names.py;
runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..runtime.files import writing
from ..runtime.gguf_file import GgufFile, read_gguf
from ..runtime.gguf_file import GgufTensor as StoredTensor
from .family_mappings import mapping_of
from .gguf_names import GgufTensor
from .level_weights import LevelWeight, WeightsError

_BLOCK_WEIGHTS = 1 << 22


def gguf_weights(text: Path, tower: Path | None, config: Mapping[str, Any]) -> tuple[LevelWeight, ...]:
    """Return the weights of a text model's file and its vision tower's, by the checkpoint's tensors.

    config: config.json. Raises GgufError, GgufUnsupported, WeightsError or MissingExtra.
    """
    _gguf()
    found: list[LevelWeight] = []
    mapping = mapping_of(config)
    files = [(text, mapping.tensors(mapping.shape(config)))]
    if tower is not None and mapping.vision_tensors is not None:
        files.append((tower, mapping.vision_tensors(config)))
    for path, tensors in files:
        header = read_gguf(path)
        by_source: dict[str, list[GgufTensor]] = {}
        for tensor in tensors:
            if tensor.values is not None:  # computed, and a header's business
                continue
            by_source.setdefault(tensor.source, []).append(tensor)
        found.extend(_weight(header, source, parts) for source, parts in by_source.items())
    return tuple(found)


def _weight(header: GgufFile, source: str, parts: list[GgufTensor]) -> LevelWeight:
    stored = {tensor.name: tensor for tensor in header.tensors}
    if missing := [part.name for part in parts if part.name not in stored]:
        raise WeightsError(f"{header.path} has no tensor {missing[0]}; export the level again")
    shape = parts[0].source_shape

    def blocks() -> Iterator[NDArray[np.float32]]:
        if parts[0].frame is not None:
            frames = sorted(parts, key=lambda part: part.frame or 0)
            slices = [np.concatenate(list(_blocks(header, stored[part.name]))) for part in frames]
            yield np.stack(slices, axis=2)
            return
        for part in sorted(parts, key=lambda part: part.rows or (0, 0)):
            if part.heads is None:
                yield from _blocks(header, stored[part.name])
            else:  # rows that lie side by side in the file, half a head apart in the checkpoint
                whole = np.concatenate(list(_blocks(header, stored[part.name])))
                half = len(whole) // part.heads // 2
                yield whole.reshape(-1, half, 2, *whole.shape[1:]).swapaxes(1, 2).reshape(whole.shape)

    return LevelWeight(source, shape, frozenset(stored[part.name].type for part in parts), blocks)


def computed_fault(text: Path, config: Mapping[str, Any]) -> str | None:
    """Return the first tensor of a text model that is computed and holds other numbers; None where all are right."""
    mapping, header = mapping_of(config), read_gguf(text)
    stored = {tensor.name: tensor for tensor in header.tensors}
    for tensor in mapping.tensors(mapping.shape(config)):
        if tensor.values is None:
            continue
        found = list(_blocks(header, stored[tensor.name])) if tensor.name in stored else []
        if not found or not np.allclose(found[0], tensor.values, rtol=1e-6, atol=0.0):
            return f"{text.name}: {tensor.name} is not what config.json makes it"
    return None


def write_dequantised_gguf(source: Path, target: Path) -> None:
    """Write the file anew with every tensor in F32 and every other word of its header as it is.

    Takes 4 bytes per weight on the disk; one block of rows is in memory at a time.
    """
    gguf = _gguf()
    header = read_gguf(source)
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(None, str(header.values["general.architecture"]))
    for key, value in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind = value.types[0]
        inner = value.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value.contents(), kind, sub_type=inner)
    if "general.file_type" in reader.fields:
        writer.kv_data[0]["general.file_type"].value = 0
    for tensor in header.tensors:
        size = 4 * int(np.prod(tensor.shape))
        kind = gguf.GGMLQuantizationType.F32
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
    with writing(target) as draft:
        try:
            writer.write_header_to_file(draft)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            out = writer.fout[0]
            for tensor in header.tensors:
                out.write(bytes(-out.tell() % writer.data_alignment))
                for block in _blocks(header, tensor):
                    out.write(np.ascontiguousarray(block).data)
            out.write(bytes(-out.tell() % writer.data_alignment))
        finally:
            writer.close()


def _blocks(header: GgufFile, tensor: StoredTensor) -> Iterator[NDArray[np.float32]]:
    """Yield a tensor's rows (of its slowest dimension) as float32, some at a time."""
    gguf = _gguf()
    kind = gguf.GGMLQuantizationType[tensor.type]
    rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
    sides = (rows, tensor.bytes // rows)
    raw = np.memmap(header.path, np.uint8, "r", offset=tensor.offset_bytes, shape=sides)
    step = max(1, _BLOCK_WEIGHTS // max(1, int(np.prod(tensor.shape)) // rows))
    for start in range(0, rows, step):
        piece = np.ascontiguousarray(raw[start : start + step])
        values: NDArray[np.float32] = np.asarray(gguf.quants.dequantize(piece, kind), dtype=np.float32)
        yield values.reshape(-1) if len(tensor.shape) == 1 else values.reshape(len(piece), *tensor.shape[1:])


def _gguf() -> Any:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtra("export", "gguf") from error
    return gguf
