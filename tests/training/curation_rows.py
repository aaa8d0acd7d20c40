"""Builds examples, pictures and datasets for the tests of curation; knows nothing of what a test does with them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infimed.evaluation.dataset import Dataset, image_ref, write_dataset
from infimed.evaluation.example import Example, ImageRef, TextRef
from infimed.evaluation.phantom_images import KINDS
from infimed.evaluation.phantoms import phantoms


def pictures(number: int, seed: int = 0, modality: str = "ct") -> list[NDArray[np.uint8]]:
    """Return different pictures of one modality: phantoms, 112 x 112."""
    return [one.rgb for one in phantoms([KINDS[modality]], number, seed)]


def png(rgb: NDArray[np.uint8], level: int = 6) -> bytes:
    """Return PNG bytes; another compression level gives other bytes of the same pixels."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG", compress_level=level)
    return stream.getvalue()


def jpeg(rgb: NDArray[np.uint8], quality: int = 60) -> bytes:
    """Return JPEG bytes."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def example(
    name: str, image: ImageRef | None = None, question: str = "Is there a mass here?", **changes: Any
) -> Example:
    """Return a yes/no question about an image, or about nothing, with any field changed."""
    fields: dict[str, Any] = {
        "id": name, "content": ((image,) if image else ()) + (TextRef(question),), "answer": "yes",
        "options": ("yes", "no"), "answer_type": "yesno", "modality": "ct" if image else "text", "task": "finding",
        "source": "made", "license": "CC0-1.0", "group": f"group of {name}",
    }  # fmt: skip
    return Example(**{**fields, **changes})


@dataclass
class Set:
    """A dataset that grows row by row."""

    rows: list[Example] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, data: bytes | None, question: str = "Is there a mass here?", **changes: Any) -> Example:
        """Add a row about the image file `data`, which may be broken."""
        ref = None
        if data is not None:
            ref = image_ref(data)
            self.files[ref.path] = data
        row = example(name, ref, question, **changes)
        self.rows.append(row)
        return row

    def write(self, folder: Path, **options: Any) -> Dataset:
        """Write the dataset."""
        return write_dataset(folder, self.rows, self.files, name=folder.name, **options)


def add_lines(dataset: Dataset, lines: Sequence[Mapping[str, Any] | str]) -> None:
    """Append lines to examples.jsonl by hand, with a manifest that fits, as another tool might leave them."""
    path = dataset.folder / "examples.jsonl"
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    data = path.read_bytes() + text.encode()
    path.write_bytes(data)
    manifest = json.loads((dataset.folder / "manifest.json").read_bytes())
    manifest["files"]["examples.jsonl"] = hashlib.sha256(data).hexdigest()
    (dataset.folder / "manifest.json").write_text(json.dumps(manifest))
