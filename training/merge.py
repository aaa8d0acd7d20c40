"""Merges an adapter into its base, some rows at a time, and measures what merging and rounding changed.

Each weight becomes W + scale * B A, stored in the base's type. No model is built to write it; afterwards the written
file is held against base plus unmerged adapter, as whole models or layer by layer. Knows no format but safetensors.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .. import CheckFailed, InfimedError
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import canonical_json, write_bytes
from ..runtime.publish import publishing
from .adapter import PIXELS_FILE, Adapter, AdapterError, Update
from .checkpoint import Checkpoint, TensorSpec, copy_companions, decode, write_weights
from .merge_check import Difference, Rounding, difference_of
from .merge_layers import LayerDifference, check_modules, layer_difference_of
from .provenance import Provenance, versions

LOGIT_LIMIT = 1e-4
"""How far merged and unmerged logits may lie apart in float32."""
MODEL_CHECK_BYTES = 2 << 30
"""Up to this size of its float32 weights a model is checked whole by default, above it layer by layer."""
Check = Literal["auto", "model", "layers"]
CHECKS: tuple[str, ...] = get_args(Check)
_SAFETENSORS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_FLOATS = ("F32", "F16", "BF16")


class MergeError(CheckFailed):
    """A merged checkpoint that does not answer as base and adapter do."""


def merge_adapter(
    adapter: Path,
    out: Path,
    *,
    base: Path | None = None,
    dtype: str | None = None,
    check: Check = "auto",
    threads: int = 2,
    max_shard_bytes: int = 4 << 30,
    on_event: OnEvent = ignore,
) -> Checkpoint:
    """Publish the merged checkpoint at `out` and return it opened.

    base: where the base lies, if not where the adapter says. dtype: the type that float weights are stored in; the
    base's own by default. check: "model" holds the logits of whole models against each other, in memory three times the
    float32 weights at most; "layers" each layer's outputs, some rows in memory at a time; "auto" the first up to
    MODEL_CHECK_BYTES. Raises MergeError, before `out` appears, where merged weights in float32 answer otherwise than
    base plus adapter. What storing rounds away is recorded, not judged.
    """
    if dtype is not None and dtype not in _SAFETENSORS:
        raise InfimedError(f"dtype {dtype!r} is unknown; choose one of {', '.join(_SAFETENSORS)}")
    if check not in CHECKS:
        raise InfimedError(f"check {check!r} is unknown; choose one of {', '.join(CHECKS)}")
    opened = Adapter.open(adapter)
    source = opened.find_base(base)
    updates = _by_tensor(source, opened.updates())
    chosen = _chosen(check, source)
    made_from = Provenance(
        step="merge",
        inputs={"adapter": opened.sha256_upon(source.sha256), "base": source.sha256},
        libraries=versions("torch", "transformers", "peft", "numpy"),
        licences=opened.provenance.licences if opened.provenance else {},
    )
    if chosen == "layers":
        check_modules(source, opened)
    with publishing(out) as work:
        rounding = write_merged(source, updates, work, dtype, max_shard_bytes, on_event)
        _copy_settings(source, opened, work, dtype)
        attest: dict[str, Any] = {"check": chosen, "rounding": asdict(rounding)}
        if chosen == "model":
            differences = difference_of(opened, source, updates, Checkpoint.open(work), threads, on_event)
            _judge(differences["merged"])
            attest |= {name: asdict(difference) for name, difference in differences.items()}
        else:
            difference = layer_difference_of(source, updates, Checkpoint.open(work), on_event)
            _judge_layers(difference)
            attest["layers"] = asdict(difference)
        Provenance(**{**vars(made_from), "attest": attest}).write(work)
    return Checkpoint.open(out)


def write_merged(
    source: Checkpoint,
    updates: Mapping[str, Update],
    folder: Path,
    dtype: str | None,
    max_shard_bytes: int,
    on_event: OnEvent,
) -> Rounding:
    """Write the merged weights into `folder`; return how large the stored type's rounding is beside the updates.

    updates: by the name of the tensor in `source` that each belongs to.
    """
    kind = _SAFETENSORS[dtype] if dtype else None
    specs = [
        TensorSpec(spec.name, kind if kind and spec.dtype in _FLOATS else spec.dtype, spec.shape)
        for spec in source.tensors.values()
    ]
    total, done = sum(spec.bytes for spec in specs), 0
    shares: list[float] = []

    def bytes_of(spec: TensorSpec) -> NDArray[np.uint8] | Iterator[NDArray[np.uint8]]:
        nonlocal done
        done += spec.bytes
        on_event(Event("merge", done, total, "bytes"))
        update = updates.get(spec.name)
        if update is not None:
            return _merged(source, update, spec, shares)
        if spec.dtype == source.tensors[spec.name].dtype:
            return source.raw(spec.name)
        return (store(rows, spec) for _, rows in source.float_blocks(spec.name))

    write_weights(folder, specs, bytes_of, max_shard_bytes)
    kinds = sorted({spec.dtype for spec in specs if spec.name in updates})
    return Rounding("+".join(kinds), len(shares), float(np.median(shares)), max(shares))


def _merged(source: Checkpoint, update: Update, spec: TensorSpec, shares: list[float]) -> Iterator[NDArray[np.uint8]]:
    """Yield the stored bytes of a merged weight, some rows at a time; at the end its rounding joins `shares`."""
    lost = gained = 0.0
    for first, weight in source.float_blocks(spec.name):
        merged = update.merged_into(weight, first)
        stored = store(merged, spec)
        yield stored
        lost += _squares(load(stored, TensorSpec(spec.name, spec.dtype, merged.shape)) - merged)
        gained += _squares(merged - weight)
    shares.append(math.sqrt(lost) / max(math.sqrt(gained), 1e-30))


def _squares(values: NDArray[np.float32]) -> float:
    wide = values.astype(np.float64).reshape(-1)
    return float(wide @ wide)


def store(weight: NDArray[np.float32], spec: TensorSpec) -> NDArray[np.uint8]:
    """Return a weight's bytes in the type that `spec` names, rounded to nearest, halves to even."""
    if not np.isfinite(weight).all():
        raise AdapterError(f"tensor {spec.name} holds infinite or undefined numbers after merging; train it again")
    if spec.dtype == "F32":
        flat = np.ascontiguousarray(weight, "<f4")
    elif spec.dtype == "BF16":
        bits = np.ascontiguousarray(weight, "<f4").view("<u4")
        flat = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    else:
        with np.errstate(over="ignore"):
            flat = weight.astype("<f2")
        if not np.isfinite(flat).all():
            raise AdapterError(f"tensor {spec.name} does not fit float16; store it as bfloat16")
    return flat.reshape(-1).view(np.uint8)


def load(stored: NDArray[np.uint8], spec: TensorSpec) -> NDArray[np.float32]:
    """Return what `store` wrote as float32."""
    return decode(stored, spec.dtype, spec.shape).astype(np.float32)


def _by_tensor(source: Checkpoint, updates: Iterable[Update]) -> dict[str, Update]:
    """Return the updates by the checkpoint's names of the weights they belong to, each weight at most once."""
    found: dict[str, Update] = {}
    for update in updates:
        name = _tensor_name(source, update)
        if name in found:
            raise AdapterError(
                f"layers {found[name].module} and {update.module} are both {name}; train the adapter again"
            )
        found[name] = update
    return found


def _chosen(check: Check, source: Checkpoint) -> Literal["model", "layers"]:
    if check != "auto":
        return check
    float32_bytes = 4 * sum(math.prod(spec.shape) for spec in source.tensors.values())
    return "model" if float32_bytes <= MODEL_CHECK_BYTES else "layers"


def _tensor_name(source: Checkpoint, update: Update) -> str:
    """Return the checkpoint's name of a layer's weight: files may keep the names of transformers 4, models do not."""
    name = f"{update.module}.weight"
    older = name.replace("model.language_model.", "model.", 1).replace("model.visual.", "visual.", 1)
    found = next((n for n in (name, older) if n in source.tensors), None)
    if found is None:
        raise AdapterError(f"{source.folder} has no weight for layer {update.module}; it is no base of this adapter")
    shape = source.tensors[found].shape
    if shape != (update.b.shape[0], update.a.shape[1]) or source.tensors[found].dtype not in _FLOATS:
        raise AdapterError(f"{source.folder}: {found} is {shape}, the adapter's update does not fit it")
    return found


def _copy_settings(source: Checkpoint, adapter: Adapter, work: Path, dtype: str | None) -> None:
    """Copy config, tokenizer, template and preprocessing, the last one as the adapter was trained with."""
    config = dict(source.config)
    if dtype:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    write_bytes(work / "config.json", canonical_json(config))
    copy_companions(source.folder, work)
    if (adapter.folder / PIXELS_FILE).is_file():
        shutil.copyfile(adapter.folder / PIXELS_FILE, work / PIXELS_FILE)


def _judge(merged: Difference) -> None:
    # Written so that an undefined difference (NaN) is refused too.
    if not merged.max_abs_logit <= LOGIT_LIMIT:
        raise MergeError(
            f"merged and unmerged logits differ by {merged.max_abs_logit:.2e}, at most {LOGIT_LIMIT:.0e} is allowed; "
            "the adapter does not merge exactly, so keep it unmerged or report it"
        )


def _judge_layers(found: LayerDifference) -> None:
    if found.changed:
        raise MergeError(
            f"{len(found.changed)} tensors that the adapter does not touch changed, {found.changed[0]} first"
        )
    # Written so that an undefined difference (NaN) is refused too.
    for what, largest in (("merged", found.merged_of_limit), ("stored", found.stored_of_limit)):
        if not largest <= 1:
            raise MergeError(
                f"{what} and unmerged layers differ by {largest:.2g} times what rounding explains, "
                f"most in {found.worst}; the adapter does not merge exactly, so keep it unmerged or report it"
            )
