"""Writes and reads a bundle's probes/: golden prompts with the reference's replies and logits, and sketches of weights.

probes.json holds the messages and the greedy continuation of each; images are PNG files beside it;
reference.safetensors holds the logits as float32, golden.safetensors what each prompt was (golden.py),
weights.safetensors a sketch of each tensor of the checkpoint (sketch.py). docs/parity.md states them. Knows no engine.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import canonical_json, write_bytes
from ..runtime.images import open_image
from ..runtime.manifest import SHARED, VerifyError
from ..runtime.messages import ImagePart, Message, Part, TextPart
from ..runtime.prompt import Prompter
from ..training.checkpoint import Checkpoint, decode
from .gguf_names import hub_names
from .golden import Golden, Reading, golden
from .parity import Reference
from .probes import Probe
from .sketch import PAIRS, sketch

PROBES_FILE = "probes.json"
LOGITS_FILE = "reference.safetensors"
GOLDEN_FILE = "golden.safetensors"
SKETCHES_FILE = "weights.safetensors"
_READING = "reading"
_FLOATING = ("F64", "F32", "F16", "BF16")
_BLOCK_WEIGHTS = 1 << 22


def write_probes(folder: Path, references: Sequence[Reference], prompter: Prompter | None = None) -> None:
    """Write the probes, what each prompt is and what the reference made of it; image embeddings are left out.

    prompter: of the checkpoint; by default that of the shared/ folder beside `folder`.
    """
    from safetensors.numpy import save

    folder.mkdir(parents=True)
    prompter = prompter or Prompter.open(folder.parent / SHARED)
    records = {}
    rows = []
    for reference in references:
        record = golden(prompter, reference.probe.messages)
        for part in ("token_ids", "positions", "grids", "pixel_sample"):
            records[f"{reference.probe.id}/{part}"] = getattr(record, part)
        messages = [
            {"role": message.role, "parts": [_write_part(folder, part) for part in message.parts]}
            for message in reference.probe.messages
        ]
        rows.append(
            {
                "id": reference.probe.id,
                "kind": reference.probe.kind,
                "messages": messages,
                "continuation": list(reference.continuation),
                "pixels_sha256": list(record.pixels_sha256),
            }
        )
    write_bytes(folder / PROBES_FILE, canonical_json(rows))
    write_bytes(folder / LOGITS_FILE, save({reference.probe.id: reference.rows for reference in references}))
    reading = canonical_json(asdict(Reading.of(prompter))).decode()
    write_bytes(folder / GOLDEN_FILE, save(records, {_READING: reading}))


def write_sketches(folder: Path, checkpoint: Checkpoint, on_event: OnEvent = ignore) -> None:
    """Write a sketch of every floating-point tensor of the checkpoint, by its name in the layout of the model hub."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    names = hub_names(checkpoint.tensors)
    found = {}
    for done, (hub, stored) in enumerate(sorted(names.items())):
        spec = checkpoint.tensors[stored]
        if spec.dtype in _FLOATING and spec.shape:
            found[hub] = sketch(_blocks(checkpoint, stored), spec.shape)
        on_event(Event("sketches", done + 1, len(names), "tensors"))
    write_bytes(folder / SKETCHES_FILE, save(found))


def read_sketches(folder: Path) -> Mapping[str, NDArray[np.float64]] | None:
    """Return each tensor's sketch by its name on the hub, None where the bundle has none. Raises VerifyError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / SKETCHES_FILE).is_file():
        return None
    try:
        found = load_file(folder / SKETCHES_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise VerifyError(f"{folder} holds no readable sketches of weights ({error}); get the bundle again") from None
    for name, values in found.items():
        if values.dtype != np.float64 or values.shape != (1 + PAIRS,) or not np.isfinite(values).all():
            raise VerifyError(f"{folder / SKETCHES_FILE}: the sketch of {name} is malformed; get the bundle again")
    return found


def _blocks(checkpoint: Checkpoint, stored: str) -> Iterator[NDArray[np.float32]]:
    """Yield a tensor's rows as float32, some at a time."""
    spec = checkpoint.tensors[stored]
    raw = checkpoint.raw(stored).reshape(spec.shape[0], -1)
    step = max(1, _BLOCK_WEIGHTS // max(1, int(np.prod(spec.shape[1:]))))
    for start in range(0, spec.shape[0], step):
        rows = np.ascontiguousarray(raw[start : start + step])
        yield decode(rows.reshape(-1), spec.dtype, (len(rows), *spec.shape[1:])).astype(np.float32)


def read_probes(folder: Path) -> tuple[Reference, ...]:
    """Return the probes of a verified bundle, without image embeddings. Raises VerifyError if they are malformed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        logits = load_file(folder / LOGITS_FILE)
        records = load_file(folder / GOLDEN_FILE) if (folder / GOLDEN_FILE).is_file() else None
        reading = _read_reading(folder / GOLDEN_FILE) if records is not None else None
        return tuple(
            Reference(
                Probe(row["id"], row["kind"], tuple(_read_message(folder, message) for message in row["messages"])),
                tuple(int(token) for token in row["continuation"]),
                logits[row["id"]].astype(np.float32),
                (),
                None if records is None else _read_golden(row, records, reading),
            )
            for row in json.loads((folder / PROBES_FILE).read_bytes())
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise VerifyError(f"{folder} holds no readable probes ({error}); get the bundle again") from None


def _read_reading(file: Path) -> Reading | None:
    """Return by what the prompts were made; None of a bundle that was made before it was recorded."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        text = (opened.metadata() or {}).get(_READING)
    if text is None:
        return None
    value = json.loads(text)
    ends = tuple(int(token) for token in value["end_ids"])
    return Reading(ends, int(value["image_token_id"]), dict(value["pixel_rules"]))


def _read_golden(row: Mapping[str, Any], records: Mapping[str, NDArray[Any]], reading: Reading | None) -> Golden:
    before = f"{row['id']}/"
    return Golden(
        records[f"{before}token_ids"].astype(np.int64),
        records[f"{before}positions"].astype(np.int64),
        records[f"{before}grids"].astype(np.int64),
        tuple(str(value) for value in row["pixels_sha256"]),
        records[f"{before}pixel_sample"].astype(np.float32),
        reading,
    )


def _write_part(folder: Path, part: Part) -> dict[str, str]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(part.rgb).save(buffer, "PNG")
    name = f"{part.key[:16]}.png"
    write_bytes(folder / name, buffer.getvalue())
    return {"image": name}


def _read_message(folder: Path, value: dict[str, Any]) -> Message:
    parts: list[Part] = [
        TextPart(part["text"]) if "text" in part else ImagePart(open_image(folder / Path(part["image"]).name))
        for part in value["parts"]
    ]
    return Message(value["role"], tuple(parts))
