"""What an export will take before it is begun: bytes, disk, memory and about how long, level by level.

Sizes follow from the shapes of the tensors. Speeds are measured here and now: one matrix of the checkpoint is written
at each level, and a product of matrices stands for what the models compute. Nothing is left on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..devices.weights import predict
from ..evaluation.dataset import Dataset
from ..runtime import ggml_rows
from ..runtime.bundle import Bundle
from ..runtime.levels import QuantLevel, full_precision_of
from ..runtime.levels import level as level_row
from ..runtime.prompt import Prompter
from ..runtime.scratch import scratch
from ..runtime.shape import CheckpointError, ModelShape
from ..runtime.shape_check import check_shapes
from ..training.checkpoint import Checkpoint
from .adopt import check_extends, made_from
from .libraries import require_libraries
from .onnx_schemes import SCHEMES
from .onnx_source import Source
from .onnx_weights import Scheme, write_graph
from .preflight import refuse_calibration, refuse_early, refuse_license, refuse_target
from .tensorrt_export import typed_scheme

_SAMPLE_WEIGHTS = 1 << 21
# Anonymous memory: of the libraries, per token of a tokenizer, per layer of a graph; no less than docs/results/scale.md
# measured at 3B (GGUF 0.24 GB, ONNX 0.74 GB).
_FIXED_BYTES = {"gguf": 120 << 20, "onnx": 300 << 20, "tensorrt": 300 << 20}
_TOKEN_BYTES, _LAYER_BYTES = 900, 8 << 20
_REFERENCE_FIXED_BYTES = 1 << 30
# Seconds to trace a graph without weights, and per layer of it: 59 s for a decoder of 36 layers on two cores.
_TRACE_S, _TRACE_LAYER_S = 3.0, 1.6
# Of a golden prompt with its images, on average; of a product of matrices, what a model reaches of its speed.
_PROBE_TOKENS, _REACHED = 300, 0.35


@dataclass(frozen=True)
class LevelOutlook:
    """One level. weight_bytes: as the manifest will say. own_bytes: the files of its own folder. seconds: to write it.

    asked: False for a level that is built only to judge its format's graph, and removed.
    """

    level: str
    weight_bytes: int
    own_bytes: int
    seconds: float
    asked: bool


@dataclass(frozen=True)
class Outlook:
    """A whole export. disk_bytes: at its fullest, with what is removed again. memory_bytes: anonymous, at the peak.

    gate_seconds: the reference's answers and every level's, 0 without the gate.
    """

    levels: tuple[LevelOutlook, ...]
    disk_bytes: int
    memory_bytes: int
    gate_seconds: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(level.seconds for level in self.levels) + self.gate_seconds


def outlook(
    checkpoint_folder: Path,
    levels: Sequence[str],
    *,
    probes: int,
    gate: bool = True,
    threads: int = 1,
    calibration: Path | None = None,
    out: Path | None = None,
    license: str | None = None,
) -> Outlook:
    """Return what an export of `levels` will take; of a bundle at `out`, what its further levels will.

    probes: golden prompts drawn, and as many of the calibration rows. Raises what the export would, but for what lies
    in the weights.
    """
    asked = [level_row(name) for name in dict.fromkeys(levels)]
    require_libraries(levels)
    refuse_license(license)
    extends = out is not None and refuse_target(out)
    checkpoint = Checkpoint.open(checkpoint_folder)
    dataset = None if calibration is None else Dataset.open(calibration)
    probes += min(probes, refuse_calibration(checkpoint, asked, dataset))
    shape = check_shapes(checkpoint_folder)
    refuse_early(checkpoint, asked)
    if out is not None and extends:
        held = Bundle.open(out)
        check_extends(held, made_from(checkpoint, Prompter.open(checkpoint_folder)), license)
        asked = [row for row in asked if row.name not in held.names]
    rows = with_judges(asked) if gate else asked
    rates = _Rates(checkpoint, threads)
    sizes = [_Sizes.of(shape, row) for row in rows]
    found, towers = [], set()
    for size in sizes:
        row = size.row
        seconds = size.own_bytes / rates.bytes_per_s(row.format, row.storage)
        for kind, size_bytes in size.shared.items():
            if kind not in towers:
                towers.add(kind)
                seconds += size_bytes / rates.bytes_per_s(row.format, row.vision)
                if row.format != "gguf" and kind != "embeddings" and shape.vision:
                    seconds += _TRACE_S + _TRACE_LAYER_S * shape.vision.layers
        if row.format != "gguf" and (kind := f"decoder {_half(row)}") not in towers:
            towers.add(kind)
            seconds += _TRACE_S + _TRACE_LAYER_S * shape.layers
        found.append(LevelOutlook(row.name, size.weight_bytes, size.own_bytes, seconds, row in asked))
    gate_seconds = 0.0
    if gate:
        tokens = probes * _PROBE_TOKENS * (1 + len(rows))
        gate_seconds = 2.0 * shape.parameters * tokens / (_product_per_s() * _REACHED)
    return Outlook(
        levels=tuple(found),
        disk_bytes=disk_bytes(shape, rows),
        memory_bytes=_memory(shape, [row.format for row in rows], gate),
        gate_seconds=gate_seconds,
    )


def _half(row: QuantLevel) -> bool:
    """Return whether a graph is traced in half precision."""
    return row.storage == "fp16" or (row.format == "tensorrt" and row.storage != "fp32")


def with_judges(rows: Sequence[QuantLevel]) -> list[QuantLevel]:
    """Return the levels with those on which their formats' graphs are judged."""
    judges = [full_precision_of(format) for format in dict.fromkeys(row.format for row in rows)]
    return [*rows, *(row for row in judges if row not in rows)]


def disk_bytes(shape: ModelShape, rows: Sequence[QuantLevel]) -> int:
    """Return what the weights of these levels take together; what they share counts once."""
    sizes = [_Sizes.of(shape, row) for row in rows]
    shared = {kind: size_bytes for size in sizes for kind, size_bytes in size.shared.items()}
    return sum(size.own_bytes for size in sizes) + sum(shared.values())


@dataclass(frozen=True)
class _Sizes:
    """The bytes of a level's weights: all, those of its own folder, and those in shared/ by what they are."""

    row: QuantLevel
    weight_bytes: int
    own_bytes: int
    shared: Mapping[str, int]

    @staticmethod
    def of(shape: ModelShape, row: QuantLevel) -> _Sizes:
        weights = predict(shape, row)
        kind = "gguf" if row.format == "gguf" else "graph"
        shared = {f"{kind} {row.vision}": weights.vision_bytes} if weights.vision_bytes else {}
        if row.format != "gguf":
            shared["embeddings"] = weights.embedding_bytes
        own = weights.total_bytes - sum(shared.values())
        return _Sizes(row, weights.total_bytes, own, shared)


def _memory(shape: ModelShape, formats: Sequence[str], gate: bool) -> int:
    writing = max(_FIXED_BYTES[format] for format in formats)
    if any(format != "gguf" for format in formats):
        writing += _LAYER_BYTES * (shape.layers + (shape.vision.layers if shape.vision else 0))
    if "gguf" in formats:
        writing += _TOKEN_BYTES * shape.vocab
    # The reference is transformers in float32, closed before a level is written.
    return max(writing, 4 * shape.parameters + _REFERENCE_FIXED_BYTES if gate else 0)


class _Rates:
    """Bytes of a level that this machine writes in a second, by writing some rows of one matrix."""

    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        matrices = [spec for spec in checkpoint.tensors.values() if len(spec.shape) == 2]
        if not matrices:
            raise CheckpointError(f"{checkpoint.folder} holds no matrix; it is no model")
        inner = [spec for spec in matrices if ".layers." in spec.name] or matrices
        spec = max(inner, key=lambda spec: min(spec.shape[0] * spec.shape[1], _SAMPLE_WEIGHTS))
        self._source = Source(checkpoint, spec.name, (spec.shape[0], spec.shape[1]))
        self._threads = threads
        self._found: dict[tuple[str, str], float] = {}

    def bytes_per_s(self, format: str, storage: str) -> float:
        """Return the rate of one type, measured once."""
        key = (format, storage)
        if key not in self._found:
            began = time.perf_counter()
            size_bytes = self._gguf(storage) if format == "gguf" else self._graph(format, storage)
            self._found[key] = size_bytes / max(time.perf_counter() - began, 1e-6)
        return self._found[key]

    def _gguf(self, storage: str) -> float:
        out, inner = self._source.shape
        rows = self._source.read(slice(0, max(1, min(out, _SAMPLE_WEIGHTS // inner))))
        kind = _ROW_TYPES.get(storage.upper(), storage.upper())
        if kind in ("F32", "F16", "BF16") or inner % 256:
            return float(rows.astype(np.float32 if kind == "F32" else np.float16).nbytes) * self._threads
        importance = np.ones(inner, np.float32) if ggml_rows.needs_importance(kind) else None
        return float(ggml_rows.quantise(np.ascontiguousarray(rows), kind, importance).nbytes) * self._threads

    def _graph(self, format: str, storage: str) -> float:
        import onnx

        out, inner = self._source.shape
        scheme: Scheme = SCHEMES[storage] if format == "onnx" else typed_scheme(storage, {"w": (inner, out)})
        kind = onnx.TensorProto.FLOAT16 if scheme.dtype == "float16" else onnx.TensorProto.FLOAT
        ports = [onnx.helper.make_tensor_value_info(n, kind, s) for n, s in (("w", (inner, out)), ("x", ("n", inner)))]
        end = onnx.helper.make_tensor_value_info("y", kind, ("n", out))
        node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="MatMul_0")
        graph = onnx.helper.make_graph([node], "sample", ports, [end])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
        with scratch("sample") as folder:
            sources: Mapping[str, Source] = {"w": self._source}
            made = write_graph(
                model, folder, "sample", sources, scheme, threads=self._threads, ranges={"w": 1.0}
            )  # fmt: skip
            return float(sum((folder / name).stat().st_size for name in made.files))


# What a mix of llama.cpp mostly consists of, for its speed alone; what each tensor gets is llama.cpp's choice.
_ROW_TYPES = {"Q5_K_M": "Q5_K", "Q4_K_M": "Q4_K", "Q3_K_M": "Q3_K"}


def _product_per_s() -> float:
    """Return the floating-point operations of a matrix product that this machine does in a second."""
    square = np.ones((1024, 1024), np.float32)
    square @ square  # the library starts its threads
    began = time.perf_counter()
    for _ in range(4):
        square @ square
    return 4 * 2 * 1024**3 / (time.perf_counter() - began)
