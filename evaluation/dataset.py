"""A dataset is a folder: examples.jsonl, images/ and a manifest that hashes both.

The manifest is written last and the folder renamed into place, so a dataset that has its name is complete. Knows
nothing of where examples come from nor of what is done with them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtime.images import open_image
from ..runtime.publish import publishing, refuse_immovable
from .dataset_manifest import DatasetManifest, describe, load_json
from .example import JSON, ROLES, DatasetError, Example, ImageRef, utf8

EXAMPLES = "examples.jsonl"
MANIFEST = "manifest.json"
_RESERVED = {EXAMPLES, MANIFEST, "images"}
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", 0, "png"),
    (b"\xff\xd8\xff", 0, "jpg"),
    (b"WEBP", 8, "webp"),
    (b"BM", 0, "bmp"),
    (b"II*\0", 0, "tif"),
    (b"MM\0*", 0, "tif"),
)


@dataclass(frozen=True)
class RowFault:
    """A row that is no example. line: 1-based in `file`; id: empty where the row has none."""

    file: str
    line: int
    id: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """An opened dataset. Images are read, and their hash checked, when they are asked for."""

    folder: Path
    examples: tuple[Example, ...]
    manifest: DatasetManifest

    @classmethod
    def open(cls, folder: str | os.PathLike[str], on_fault: Callable[[RowFault], None] | None = None) -> Dataset:
        """Open a dataset folder. on_fault: given every row that is no example; without it the first one raises."""
        path = Path(folder)
        if not (path / MANIFEST).is_file():
            what = f"has no {MANIFEST}" if path.is_dir() else "is no folder"
            raise DatasetError(f"{path} {what}; make a dataset with: infimed data import SOURCE --out DATASET")
        manifest = DatasetManifest.read(path / MANIFEST)
        rows = path / EXAMPLES
        data = rows.read_bytes() if rows.is_file() else b""
        if hashlib.sha256(data).hexdigest() != manifest.files.get(EXAMPLES):
            raise DatasetError(f"{rows} is missing or changed after its manifest was written; import the data again")
        examples, seen = [], set[str]()
        for line, text in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
            if not text:
                continue
            where = f"{rows}:{line}"
            row: object = None
            try:
                row = load_json(text, where, "the row")
                example = Example.from_json(row, where)
                if example.id in seen:
                    raise DatasetError(f"{where}: id {example.id!r} occurs twice")
            except DatasetError as error:
                if on_fault is None:
                    raise
                reason = str(error).removeprefix(f"{where}: ")
                name = str(row.get("id", "")) if isinstance(row, dict) else ""
                on_fault(RowFault(EXAMPLES, line, utf8(name), utf8(reason)))
                continue
            seen.add(example.id)
            examples.append(example)
        return cls(path, tuple(examples), manifest)

    @property
    def sha256(self) -> str:
        """sha256 of examples.jsonl; the rows name their images by hash, so this identifies the whole content."""
        return self.manifest.files[EXAMPLES]

    @property
    def label(self) -> str:
        """The name by which runs and reports call the dataset: with its named split, where it has one."""
        split = self.manifest.details.get("split")
        named = split.get("name") if isinstance(split, Mapping) else None
        return f"{self.manifest.name}, {named} split" if isinstance(named, str) else self.manifest.name

    def in_role(self, *roles: str) -> tuple[Example, ...]:
        """Return the examples whose role is one of `roles`, in order."""
        unknown = [role for role in roles if role not in ROLES]
        if unknown:
            raise DatasetError(f"role {unknown[0]!r} is unknown; use one of {', '.join(ROLES)}")
        return tuple(example for example in self.examples if example.role in roles)

    def image_bytes(self, ref: ImageRef) -> bytes:
        """Return the file's bytes after checking their sha256."""
        path = self.folder / ref.path
        if not path.is_file():
            raise DatasetError(f"{path} is missing; import the data again")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise DatasetError(f"{path} changed after the dataset was written; import the data again")
        return data

    def image(self, ref: ImageRef) -> NDArray[np.uint8]:
        """Return the upright image, (height, width, 3) uint8."""
        return open_image(self.image_bytes(ref))

    def images(self, example: Example) -> tuple[NDArray[np.uint8], ...]:
        """Return the images of an example in their order."""
        return tuple(self.image(ref) for ref in example.images)

    def all_image_bytes(self) -> Mapping[str, bytes]:
        """Return a mapping path -> bytes that reads a file when it is asked for: what write_dataset takes."""
        refs = {ref.path: ref for example in self.examples for ref in example.images}
        return _LazyBytes(self, refs)


class _LazyBytes(Mapping[str, bytes]):
    def __init__(self, dataset: Dataset, refs: Mapping[str, ImageRef]) -> None:
        self._dataset = dataset
        self._refs = refs

    def __getitem__(self, path: str) -> bytes:
        return self._dataset.image_bytes(self._refs[path])

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)


def image_ref(data: bytes) -> ImageRef:
    """Return the reference of an image file by its bytes; the suffix follows the bytes, not a file name."""
    digest = hashlib.sha256(data).hexdigest()
    for magic, offset, suffix in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return ImageRef(f"images/{digest[:16]}.{suffix}", digest)
    raise DatasetError(f"not an image file of a known kind (first bytes {data[:8].hex() or 'none: it is empty'})")


def write_dataset(
    folder: str | os.PathLike[str],
    examples: Sequence[Example],
    image_bytes: Mapping[str, bytes],
    *,
    name: str,
    inputs: Mapping[str, str] | None = None,
    details: Mapping[str, JSON] | None = None,
    notices: Mapping[str, bytes] | None = None,
    official_split: bool = False,
    overwrite: bool = False,
) -> Dataset:
    """Write a dataset folder and open it.

    image_bytes: file bytes by ImageRef.path; asked for one at a time, so it may read lazily. name: recorded, never a
    path. inputs: sha256 by name. details: the maker's own facts, hashed with the rest. notices: further files to keep
    (attributions, rows left out), by plain file name. official_split: a group may stand in two roles. overwrite:
    replace a dataset that is already there; anything else in the way is refused.
    """
    path = Path(folder)
    check_target(path, overwrite)
    ids = Counter(example.id for example in examples)
    twice = next((key for key, number in ids.items() if number > 1), None)
    if twice is not None:
        raise DatasetError(f"id {twice!r} occurs {ids[twice]} times; ids are unique in a dataset")
    refs = {ref.path: ref for example in examples for ref in example.images}
    rows = "".join(json.dumps(example.to_json(), sort_keys=True, ensure_ascii=False) + "\n" for example in examples)
    files = {EXAMPLES: rows.encode(), **(notices or {})}
    for file in notices or {}:
        if file in _RESERVED or Path(file).name != file:
            raise DatasetError(f"a notice cannot be named {file!r}")
    manifest = describe(
        name,
        examples,
        {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
        inputs=inputs or {},
        details=details or {},
        official_split=official_split,
    )
    try:
        with publishing(path, replace=overwrite) as draft:
            (draft / "images").mkdir()
            for key in sorted(refs):
                (draft / key).write_bytes(_checked(refs[key], image_bytes))
            for file in sorted(files):
                (draft / file).write_bytes(files[file])
            (draft / MANIFEST).write_bytes(manifest.to_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be written ({error.strerror or error}); nothing was left there") from error
    return Dataset(path, tuple(examples), manifest)


def check_target(path: Path, overwrite: bool = False) -> None:
    """Raise DatasetError where a dataset could not be written to `path`; a long job asks before it starts."""
    refuse_immovable(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MANIFEST).is_file():
        raise DatasetError(f"{path} exists and is no dataset; choose another folder")
    if not overwrite:
        raise DatasetError(f"{path} already holds a dataset; choose another folder or remove it")
    DatasetManifest.read(path / MANIFEST)


def _checked(ref: ImageRef, image_bytes: Mapping[str, bytes]) -> bytes:
    if ref.path not in image_bytes:
        raise DatasetError(f"the bytes of {ref.path} are missing")
    data = image_bytes[ref.path]
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise DatasetError(f"the bytes of {ref.path} are not those of its sha256")
    return data
