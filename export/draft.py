"""The folder in which a bundle is being made, and what of it is finished: so that a killed export goes on.

Beside the draft lies a folder of notes, taken away when the bundle bears its name: whose draft it is, the reference's
image embeddings, each format's gate, each finished level and its distance. A note is written when what it tells of is
on the disk. Knows no format.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..runtime.files import canonical_json, write_bytes
from ..runtime.manifest import PROBES, SHARED, LevelEntry, VerifyError
from ..runtime.prompt import Prompter
from ..runtime.publish import empty
from .parity import Parity, Reference
from .probe_store import read_probes, write_probes

_IDENTITY = "identity.json"


def notes_of(out: Path) -> Path:
    """Return where the notes on the making of the bundle `out` lie."""
    whole = Path(os.path.abspath(out))
    return whole.with_name(f".{whole.name}.export")


def read_references(draft: Path, notes: Path) -> tuple[Reference, ...] | None:
    """Return a draft's probes with what the reference made of them, None where they were not taken yet."""
    from safetensors.numpy import load_file

    try:
        kept = load_file(notes / "embeddings.safetensors")
        probes = read_probes(draft / PROBES)
    except (OSError, VerifyError):  # not written yet, or taken back from a draft that had adopted a bundle
        return None
    found = []
    for reference in probes:
        mine = sorted(name for name in kept if name.partition("/")[0] == reference.probe.id)
        found.append(replace(reference, embeddings=tuple(kept[name] for name in mine)))
    return tuple(found)


class Draft:
    """A bundle that is being made in `folder`, with `notes` on it; what another identity left in them is removed.

    identity: everything that decides the bundle's bytes, but for the levels that are asked for.
    """

    def __init__(self, folder: Path, notes: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.notes = notes
        own = canonical_json(dict(identity))
        if not (notes / _IDENTITY).is_file() or (notes / _IDENTITY).read_bytes() != own:
            self.discard()
            notes.mkdir()
            write_bytes(notes / _IDENTITY, own)

    def references(self) -> tuple[Reference, ...] | None:
        """Return the probes with what the reference made of them, None where they were not taken yet."""
        return read_references(self.folder, self.notes)

    def keep_references(self, references: Sequence[Reference]) -> None:
        """Write the bundle's probes, and beside them what only an export needs."""
        from safetensors.numpy import save

        rows = {
            f"{reference.probe.id}/{index:04d}": values
            for reference in references
            for index, values in enumerate(reference.embeddings)
        }
        write_bytes(self.notes / "embeddings.safetensors", save(rows))
        half = self.notes / PROBES
        shutil.rmtree(half, ignore_errors=True)
        write_probes(half, references, Prompter.open(self.folder / SHARED))
        shutil.rmtree(self.folder / PROBES, ignore_errors=True)
        half.rename(self.folder / PROBES)

    def gate(self, format: str) -> Parity | None:
        """Return how a format's graph passed, None where it was not judged yet."""
        noted = self._read(f"gate-{format}")
        return None if noted is None else Parity(**noted)

    def keep_gate(self, format: str, parity: Parity) -> None:
        """Note that a format's graph passed."""
        self._write(f"gate-{format}", parity.to_json())

    def level(self, name: str) -> LevelEntry | None:
        """Return a finished level's entry, None where the level is not finished or a file of it is not as it was."""
        noted = self._read(f"level-{name}")
        if noted is None:
            return None
        sizes: Mapping[str, int] = noted.pop("sizes")
        for path, size_bytes in sizes.items():
            file = self.folder / path
            if not file.is_file() or file.stat().st_size != size_bytes:
                return None
        return LevelEntry(**{**noted, "files": tuple(noted["files"]), "shared": tuple(noted["shared"])})

    def keep_level(self, entry: LevelEntry) -> None:
        """Note that a level's files are on the disk."""
        sizes = {path: (self.folder / path).stat().st_size for path in (*entry.files, *entry.shared)}
        self._write(f"level-{entry.name}", {**asdict(entry), "sizes": sizes})

    def finished_bytes(self, names: Sequence[str]) -> int:
        """Return the bytes of what those levels consist of that are finished; what they share counts once."""
        finished = [entry for entry in map(self.level, names) if entry is not None]
        paths = {path for entry in finished for path in (*entry.files, *entry.shared)}
        return sum((self.folder / path).stat().st_size for path in paths)

    def distance(self, name: str) -> Parity | None:
        """Return a level's distance to the reference, None where it was not measured yet."""
        noted = self._read(f"distance-{name}")
        return None if noted is None else Parity(**noted)

    def keep_distance(self, parity: Parity) -> None:
        """Note a level's distance."""
        self._write(f"distance-{parity.level}", parity.to_json())

    def keep_only(self, entries: Sequence[LevelEntry]) -> None:
        """Remove every level that is not among `entries`, and what no level of them shares."""
        names = {entry.name for entry in entries}
        shared = {path for entry in entries for path in entry.shared}
        for place in list(self.folder.iterdir()):
            if place.is_dir() and place.name not in {*names, SHARED, PROBES}:
                shutil.rmtree(place)
        for file in list((self.folder / SHARED).iterdir()):
            if f"{SHARED}/{file.name}" not in shared:
                file.unlink()

    def discard(self) -> None:
        """Remove everything that was made, and the notes."""
        empty(self.folder)
        shutil.rmtree(self.notes, ignore_errors=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.notes / f"{name}.json"
        return dict(json.loads(path.read_bytes())) if path.is_file() else None

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        write_bytes(self.notes / f"{name}.json", canonical_json(dict(value)))
