"""How far does each type of weight move a tensor, so that the certificate can tell rounding from another tensor?

Rounds matrices to every type that a level may store, by the code that export rounds with, and prints the largest
||W - V|| / ||W|| per type beside the limit of export/certificate_limits.py: those of the embedded base model, and drawn
ones with normal and with heavy tails (Student's t of 4 degrees of freedom, as weights of large models have them). Types
that a quantiser may weigh by an importance matrix are rounded with one, too. A limit must lie between the largest error
and twice it; those of floating point are derived and only have to hold. Exit code 1 if one does not.
Run: python benchmarks/weight_errors.py [--rows 128] [--types Q4_K int4-block32-asymmetric]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infimed.export.certificate_limits import WEIGHT_LIMITS
from infimed.export.onnx_blocks import BlockStorage
from infimed.export.onnx_schemes import SCHEMES
from infimed.export.onnx_weights import Scheme
from infimed.export.tensorrt_quantise import channel_scales, round_blocks, round_channels
from infimed.runtime import ggml_rows
from infimed.runtime.channels import dequantise_channels, quantise_channels
from infimed.runtime.gguf_file import TENSOR_TYPES
from infimed.runtime.hqq import fit_hqq, quantise_hqq
from infimed.runtime.kquant import quantise_kquant
from infimed.runtime.levels import TENSORRT_BLOCK
from infimed.runtime.quantise import dequantise, quantise, unpack
from infimed.training.checkpoint import Checkpoint

HOUSE = Path(__file__).resolve().parent.parent
FLOATING = ("F32", "F16", "BF16", "float32", "float16")
Matrix = NDArray[np.float32]
Rounding = Callable[[Matrix, NDArray[np.float32]], Matrix]
"""Returns what rows stand for once they are rounded. Takes the rows and how much each column counts."""


def main() -> None:
    """Round every matrix to every type, print a line for each type, and say which limit does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=128, help="of each matrix at most so many")
    parser.add_argument("--types", nargs="*", default=list(WEIGHT_LIMITS))
    given = parser.parse_args()
    ways: dict[str, list[Rounding]] = {}
    for kind, rounding in (*_ggml(), *_onnx(), *_tensorrt()):
        ways.setdefault(kind, []).append(rounding)
    if strange := sorted(set(given.types) - ways.keys() - set(FLOATING)):
        sys.exit(f"nothing here rounds to {strange[0]}; say how, so that its limit is a measured one")
    found = {kind: dict.fromkeys(("base", "normal", "heavy"), 0.0) for kind in given.types if kind in ways}
    for source, matrix in _matrices(given.rows):
        counts = np.exp(np.random.default_rng(1).standard_normal(matrix.shape[1], np.float32))
        for kind, errors in found.items():
            for rounding in ways[kind]:
                try:
                    made = rounding(matrix, counts)
                except ggml_rows.RowsError:
                    continue  # rows that fill no blocks of this type, for which another one is taken
                errors[source] = max(errors[source], _apart(matrix, made))
    wrong = []
    print(f"{'type':32}{'base':>9}{'normal':>9}{'heavy':>9}{'limit':>9}")
    for kind, errors in found.items():
        limit, largest = WEIGHT_LIMITS[kind], max(errors.values())
        print(f"{kind:32}{''.join(f'{error:9.2g}' for error in errors.values())}{limit:9.2g}")
        if not largest <= limit or not (kind in FLOATING or limit <= 2 * largest):
            wrong.append(f"{kind}: at most {largest:.2g}, limit {limit:.2g}")
    for line in wrong:
        print(f"BEYOND: {line}")
    sys.exit(1 if wrong else 0)


def _apart(matrix: Matrix, made: Matrix) -> float:
    wide = matrix.astype(np.float64)
    return float(np.linalg.norm(made - wide) / np.linalg.norm(wide))


def _matrices(rows: int) -> Iterator[tuple[str, Matrix]]:
    checkpoint = Checkpoint.open(HOUSE / "training/base")
    for name, spec in checkpoint.tensors.items():
        if len(spec.shape) > 1:
            whole = np.asarray(checkpoint.array(name), np.float32).reshape(spec.shape[0], -1)
            yield "base", np.ascontiguousarray(whole[:rows])
    draw = np.random.default_rng(0)
    for width in (512, 2048):
        yield "normal", draw.standard_normal((rows, width), np.float32)
        yield "heavy", draw.standard_t(4, (rows, width)).astype(np.float32)


def _ggml() -> Iterator[tuple[str, Rounding]]:
    def rounded(kind: str, weighed: bool, rows: Matrix, counts: NDArray[np.float32]) -> Matrix:
        stored = ggml_rows.quantise(rows, kind, counts if weighed else None)
        return ggml_rows.dequantise(stored, kind, rows.size).reshape(rows.shape)

    for kind in (type.name for type in TENSOR_TYPES.values() if type.name in WEIGHT_LIMITS):
        if kind in FLOATING:
            continue
        for weighed in (True,) if ggml_rows.needs_importance(kind) else (False, True):
            yield kind, partial(rounded, kind, weighed)


def _onnx() -> Iterator[tuple[str, Rounding]]:
    def blocks(storage: BlockStorage, rows: Matrix, counts: NDArray[np.float32]) -> Matrix:
        format = storage.format
        if storage.method == "hqq":
            (fitted,) = fit_hqq(lambda: [rows], format)
            return dequantise(quantise_hqq(rows, fitted, format), rows.shape[1], format)
        method = quantise_kquant if storage.method == "kquant" else quantise
        return dequantise(method(rows, format), rows.shape[1], format)

    seen = set()
    for scheme in SCHEMES.values():
        for storage in _storages(scheme):
            if (storage.format, storage.method) not in seen:
                seen.add((storage.format, storage.method))
                yield storage.format.name, partial(blocks, storage)
    yield "int8-channel-symmetric", lambda rows, counts: dequantise_channels(quantise_channels(rows))


def _storages(scheme: Scheme) -> list[BlockStorage]:
    return [one for one in (scheme.matrices, *scheme.named.values()) if isinstance(one, BlockStorage)]


def _tensorrt() -> Iterator[tuple[str, Rounding]]:
    def channels(rows: Matrix, counts: NDArray[np.float32]) -> Matrix:
        scales = channel_scales([rows])
        integers = round_channels(np.ascontiguousarray(rows.T), scales).T.astype(np.float32)
        return integers * scales[:, None].astype(np.float32)

    def blocks(weighed: bool, rows: Matrix, counts: NDArray[np.float32]) -> Matrix:
        if rows.shape[1] % TENSORRT_BLOCK:
            raise ggml_rows.RowsError("rows that fill no blocks stay float16")
        packed, scales = round_blocks(np.ascontiguousarray(rows.T), counts if weighed else None)
        whole = (unpack(packed, 4) ^ np.uint8(8)).astype(np.int8) - np.int8(8)
        turned = whole.reshape(rows.shape[::-1]) * np.repeat(scales, TENSORRT_BLOCK, axis=0).astype(np.float32)
        return np.ascontiguousarray(turned.T)

    yield "int8-channel-symmetric", channels
    for weighed in (False, True):
        yield f"int4-block{TENSORRT_BLOCK}-symmetric", partial(blocks, weighed)


if __name__ == "__main__":
    main()
