"""The manifest of a bundle: what it holds, file by file, and the digest by which each level is known.

docs/bundle.md states the format. Knows JSON and hashes; touches no weight.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .. import CheckFailed
from .files import canonical_json

SCHEMA = 1
MANIFEST = "manifest.json"
MANIFEST_SHA256 = "manifest.sha256"
SHARED = "shared"
PROBES = "probes"
ATTESTATIONS = "attestations"

_SHA256 = re.compile(r"[0-9a-f]{64}")


class VerifyError(CheckFailed):
    """A bundle is not what its manifest says; nothing of it may be loaded."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle. sha256: hexadecimal. size_bytes: its length."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class LevelEntry:
    """One level of a bundle.

    files: its own, by path. shared: those of shared/ that it uses. tensors: the type each tensor really got.
    weight_bytes: all weights it loads, the vision tower's included.
    """

    name: str
    files: tuple[str, ...]
    shared: tuple[str, ...]
    tensors: Mapping[str, str]
    weight_bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle promises. preprocessing: the pixel rules. provenance: inputs by name and sha256."""

    family: str
    license: str
    preprocessing: Mapping[str, Any]
    levels: tuple[LevelEntry, ...]
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, Any]

    def level_digest(self, name: str) -> str:
        """Return the digest of a level: over its files, the shared files it uses, and the preprocessing."""
        entry = next(entry for entry in self.levels if entry.name == name)
        covered = {path: self.files[path].sha256 for path in (*entry.files, *entry.shared)}
        body = {"level": name, "family": self.family, "files": covered, "preprocessing": dict(self.preprocessing)}
        return hashlib.sha256(canonical_json(body)).hexdigest()

    def to_bytes(self) -> bytes:
        """Return manifest.json's exact bytes."""
        return canonical_json(
            {
                "schema": SCHEMA,
                "family": self.family,
                "license": self.license,
                "preprocessing": dict(self.preprocessing),
                "provenance": dict(self.provenance),
                "files": {
                    path: {"sha256": entry.sha256, "size_bytes": entry.size_bytes} for path, entry in self.files.items()
                },
                "levels": {
                    entry.name: {
                        "digest": self.level_digest(entry.name),
                        "files": list(entry.files),
                        "shared": list(entry.shared),
                        "tensors": dict(entry.tensors),
                        "weight_bytes": entry.weight_bytes,
                    }
                    for entry in self.levels
                },
            }
        )

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Read a parsed manifest. Raises VerifyError for anything that is not exactly the format."""
        try:
            if value["schema"] != SCHEMA:
                raise VerifyError(f"{MANIFEST} is of schema {value['schema']!r}; this infimed reads schema {SCHEMA}")
            files = {
                _safe_path(path): FileEntry(_sha256(entry["sha256"]), int(entry["size_bytes"]))
                for path, entry in value["files"].items()
            }
            levels = tuple(
                LevelEntry(
                    name=str(name),
                    files=tuple(_known(path, files) for path in entry["files"]),
                    shared=tuple(_known(path, files) for path in entry["shared"]),
                    tensors={str(key): str(kind) for key, kind in entry["tensors"].items()},
                    weight_bytes=int(entry["weight_bytes"]),
                )
                for name, entry in value["levels"].items()
            )
            manifest = cls(
                family=str(value["family"]),
                license=str(value["license"]),
                preprocessing=dict(value["preprocessing"]),
                levels=levels,
                files=files,
                provenance=dict(value["provenance"]),
            )
            stated = {name: entry["digest"] for name, entry in value["levels"].items()}
            wrong = [name for name in stated if stated[name] != manifest.level_digest(name)]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise VerifyError(f"{MANIFEST} is malformed ({type(error).__name__}: {error})") from None
        if wrong:
            raise VerifyError(f"{MANIFEST}: the digest of level {wrong[0]} is not that of its files")
        folded = {path.casefold() for path in files}
        if len(folded) != len(files):
            raise VerifyError(f"{MANIFEST} names two files that differ only in upper and lower case")
        return manifest


def _safe_path(path: str) -> str:
    """Return the path if it stays inside the bundle: relative, plain, and not under attestations/."""
    pure = PurePosixPath(path)
    plain = bool(path) and not pure.is_absolute() and str(pure) == path and "\\" not in path and "\0" not in path
    if not plain or ".." in pure.parts or pure.parts[0] in (ATTESTATIONS, MANIFEST, MANIFEST_SHA256):
        raise VerifyError(f"{MANIFEST} names {path!r}, which is no plain path inside the bundle")
    return path


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise VerifyError(f"{MANIFEST} holds {value!r} in place of a sha256")
    return value


def _known(path: str, files: Mapping[str, FileEntry]) -> str:
    if path not in files:
        raise VerifyError(f"{MANIFEST}: a level uses {path!r}, which is not among its files")
    return path
