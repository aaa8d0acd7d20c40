"""Writes and reads a bundle's probes/: the golden prompts with the reference's replies and logits, for acceptance.

probes.json holds the messages and the greedy continuation of each; images are PNG files beside it;
reference.safetensors holds the logits as float32. Knows no engine.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.files import canonical_json, write_bytes
from ..runtime.images import open_image
from ..runtime.manifest import VerifyError
from ..runtime.messages import ImagePart, Message, Part, TextPart
from .parity import Reference
from .probes import Probe

PROBES_FILE = "probes.json"
LOGITS_FILE = "reference.safetensors"


def write_probes(folder: Path, references: Sequence[Reference]) -> None:
    """Write the probes and what the reference made of them; image embeddings are left out."""
    from safetensors.numpy import save

    folder.mkdir(parents=True)
    rows = []
    for reference in references:
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
            }
        )
    write_bytes(folder / PROBES_FILE, canonical_json(rows))
    write_bytes(folder / LOGITS_FILE, save({reference.probe.id: reference.rows for reference in references}))


def read_probes(folder: Path) -> tuple[Reference, ...]:
    """Return the probes of a verified bundle, without image embeddings. Raises VerifyError if they are malformed."""
    from safetensors.numpy import load_file

    try:
        logits = load_file(folder / LOGITS_FILE)
        return tuple(
            Reference(
                Probe(row["id"], row["kind"], tuple(_read_message(folder, message) for message in row["messages"])),
                tuple(int(token) for token in row["continuation"]),
                logits[row["id"]].astype(np.float32),
                (),
            )
            for row in json.loads((folder / PROBES_FILE).read_bytes())
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerifyError(f"{folder} holds no readable probes ({error}); get the bundle again") from None


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
