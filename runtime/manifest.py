"""The manifest of a bundle: what it holds, file by file, and the digest by which each level is known.

docs/formats.md states the format. Knows JSON and hashes; touches no weight.
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
_LEVEL_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_KEYS = frozenset({"schema", "family", "license", "preprocessing", "provenance", "files", "levels"})
_FILE_KEYS = frozenset({"sha256", "size_bytes"})
_LEVEL_KEYS = frozenset({"digest", "files", "shared", "tensors", "weight_bytes"})


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
            if type(value["schema"]) is not int or value["schema"] != SCHEMA:
                raise VerifyError(f"{MANIFEST} is of schema {value['schema']!r}; this infimed reads schema {SCHEMA}")
            _exactly(value, _KEYS, "it")
            files = {_safe_path(path): _file(path, entry) for path, entry in value["files"].items()}
            manifest = cls(
                family=_text(value["family"], "family"),
                license=_text(value["license"], "license"),
                preprocessing=_mapping(value["preprocessing"], "preprocessing"),
                levels=tuple(_level(name, entry, files) for name, entry in value["levels"].items()),
                files=files,
                provenance=_provenance(value["provenance"]),
            )
            stated = {name: entry["digest"] for name, entry in value["levels"].items()}
            wrong = [name for name in stated if stated[name] != manifest.level_digest(name)]
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise VerifyError(f"{MANIFEST} is malformed ({type(error).__name__}: {error})") from None
        if not manifest.levels:
            raise VerifyError(f"{MANIFEST} names no level")
        if wrong:
            raise VerifyError(f"{MANIFEST}: the digest of level {wrong[0]} is not that of its files")
        folded = {path.casefold() for path in files}
        if len(folded) != len(files):
            raise VerifyError(f"{MANIFEST} names two files that differ only in upper and lower case")
        return manifest


def _level(name: str, entry: Any, files: Mapping[str, FileEntry]) -> LevelEntry:
    """Return a level's entry: its own files lie in the folder of its name, those it shares in shared/."""
    if not _LEVEL_NAME.fullmatch(name) or name in (SHARED, PROBES, ATTESTATIONS):
        raise VerifyError(f"{MANIFEST} names {name!r} as a level, which is no name of one")
    where = f"level {name}"
    _exactly(entry, _LEVEL_KEYS, where)
    tensors = _mapping(entry["tensors"], f"tensors of {where}")
    return LevelEntry(
        name=name,
        files=_known(entry["files"], f"{name}/", files, where),
        shared=_known(entry["shared"], f"{SHARED}/", files, where),
        tensors={key: _text(kind, f"tensor {key!r} of {where}") for key, kind in tensors.items()},
        weight_bytes=_count(entry["weight_bytes"], f"weight_bytes of {where}"),
    )


def _file(path: str, entry: Any) -> FileEntry:
    _exactly(entry, _FILE_KEYS, path)
    return FileEntry(_sha256(entry["sha256"]), _count(entry["size_bytes"], f"size_bytes of {path}"))


def _exactly(value: Any, keys: frozenset[str], where: str) -> None:
    """Raise VerifyError unless a mapping has these keys and no other: what is new bears a new schema."""
    if strange := sorted(set(_mapping(value, where)) ^ keys):
        kind = "has no" if strange[0] in keys else "has an unknown"
        raise VerifyError(f"{MANIFEST} is malformed: {where} {kind} key {strange[0]!r}")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise VerifyError(f"{MANIFEST} is malformed: {where} is no mapping")
    return dict(value)


def _provenance(value: Any) -> dict[str, Any]:
    """Return the provenance, which says by sha256 what the bundle was made of."""
    provenance = _mapping(value, "provenance")
    if "checkpoint_sha256" not in provenance:
        raise VerifyError(f"{MANIFEST} is malformed: provenance has no checkpoint_sha256")
    _sha256(_text(provenance["checkpoint_sha256"], "checkpoint_sha256 of provenance"))
    return provenance


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise VerifyError(f"{MANIFEST} is malformed: {where} is {value!r} in place of a text")
    return value


def _count(value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        raise VerifyError(f"{MANIFEST} is malformed: {where} is {value!r} in place of a number of bytes")
    return value


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


def _known(value: Any, folder: str, files: Mapping[str, FileEntry], where: str) -> tuple[str, ...]:
    """Return a level's list of paths, each once, in `folder`, and among the manifest's files."""
    if not isinstance(value, list) or len({*value}) != len(value):
        raise VerifyError(f"{MANIFEST} is malformed: {where} names its files by no list, or one twice")
    for path in value:
        if path not in files or not path.startswith(folder):
            raise VerifyError(f"{MANIFEST}: {where} uses {path!r}, which is not among the files of {folder}")
    return tuple(value)
