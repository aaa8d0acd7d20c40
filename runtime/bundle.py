"""A bundle: one folder that holds every exported level of a model, verified before any parser sees a byte.

docs/formats.md states the layout. Knows hashes and paths; opens no weight.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .. import InfimedError
from .files import canonical_json, locked, sha256_file, strict_json, write_bytes
from .levels import UnknownLevel
from .manifest import ATTESTATIONS, MANIFEST, MANIFEST_SHA256, SHARED, FileEntry, LevelEntry, Manifest, VerifyError

MAX_MANIFEST_BYTES = 16 * 2**20


class BundleError(InfimedError):
    """The folder is no bundle, or cannot become one."""


@dataclass(frozen=True)
class Attestation:
    """Something learnt of a level after it was written: its kind, the level's digest, and the finding."""

    kind: str
    level: str
    digest: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path, on_file: Callable[[str, int], None] | None = None) -> Bundle:
        """Verify a bundle and open it. Raises BundleError if it is none, VerifyError if it was changed.

        on_file: called with each file's path and size in bytes once it is verified.
        """
        return cls(folder, verify(folder, on_file))

    @property
    def shared(self) -> Path:
        """The folder of what all levels use: tokenizer, template, rules, vision tower, token embeddings."""
        return self.folder / SHARED

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the levels that it holds."""
        return tuple(entry.name for entry in self.manifest.levels)

    def entry(self, level: str) -> LevelEntry:
        """Return a level's entry. Raises UnknownLevel with the levels that the bundle holds."""
        for entry in self.manifest.levels:
            if entry.name == level:
                return entry
        raise UnknownLevel(f"the bundle holds no level {level!r}; it holds: {', '.join(self.names)}")

    def attest(self, kind: str, level: str, body: Mapping[str, Any]) -> Path:
        """Add a finding on a level; the manifest stays as it is. The file is named after its own hash."""
        digest = self.manifest.level_digest(self.entry(level).name)
        data = canonical_json({"kind": kind, "level": level, "digest": digest, "body": dict(body)})
        path = self.folder / ATTESTATIONS / f"{kind}-{level}-{hashlib.sha256(data).hexdigest()[:16]}.json"
        path.parent.mkdir(exist_ok=True)
        with locked(path.parent):  # one writer at a time: a draft found here is of one that was killed
            for draft in filter(_is_draft, path.parent.iterdir()):
                draft.unlink()
            write_bytes(path, data)
        return path

    def attestations(self) -> tuple[Attestation, ...]:
        """Return every finding, in the order of the file names. Raises VerifyError for a changed or foreign one."""
        return _read_attestations(self.folder, self.manifest)


def describe(folder: Path, known: Mapping[str, FileEntry] | None = None) -> dict[str, FileEntry]:
    """Return size and sha256 of every file of a filled folder. known: files whose hashes were verified already."""
    known = known or {}
    return {
        path: known.get(path) or FileEntry(sha256_file(folder / path), (folder / path).stat().st_size)
        for path in sorted(_contents(folder, links=bool(known))[0])
    }


def write_manifest(
    folder: Path,
    *,
    family: str,
    license: str,
    preprocessing: Mapping[str, Any],
    levels: Sequence[LevelEntry],
    provenance: Mapping[str, Any],
    known: Mapping[str, FileEntry] | None = None,
) -> Manifest:
    """Hash every file of a filled folder and write its manifest last: its existence says that the export completed.

    known: as `describe` takes it, where levels are added to a bundle.
    """
    manifest = Manifest(family, license, preprocessing, tuple(levels), describe(folder, known), provenance)
    data = manifest.to_bytes()
    Manifest.from_json(json.loads(data))
    write_bytes(folder / MANIFEST_SHA256, f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode())
    write_bytes(folder / MANIFEST, data)
    return manifest


def verify(folder: Path, on_file: Callable[[str, int], None] | None = None) -> Manifest:
    """Check every file of a bundle against its manifest, and the manifest against its own hash.

    Raises BundleError if the folder is no bundle, VerifyError naming the first file that is changed, missing, extra,
    a link, or of another kind. Nothing but the manifest is parsed before all is checked, then the attestations.
    """
    manifest = read_manifest(folder)
    found, folders = _contents(folder)
    if missing := sorted(set(manifest.files) - found):
        raise VerifyError(f"{missing[0]} is missing from the bundle; get it again")
    known = {parent.as_posix() for path in manifest.files for parent in PurePosixPath(path).parents} | {ATTESTATIONS}
    if extra := sorted((found - set(manifest.files)) | (folders - known)):
        raise VerifyError(f"{extra[0]} does not belong to the bundle; remove it, or get the bundle again")
    for path, entry in sorted(manifest.files.items()):
        file = folder / path
        if file.stat().st_size != entry.size_bytes or sha256_file(file) != entry.sha256:
            raise VerifyError(f"{path} was changed after the export; get the bundle again")
        if on_file:
            on_file(path, entry.size_bytes)
    _read_attestations(folder, manifest)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest once its own hash is checked; no other file is. Raises BundleError, VerifyError.

    Its bytes are canonical, so no second reading of them exists.
    """
    manifest_file, hash_file = folder / MANIFEST, folder / MANIFEST_SHA256
    if not any(os.path.lexists(file) for file in (manifest_file, hash_file)):
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}; give the folder that `infimed export` wrote")
    for file in (manifest_file, hash_file):
        _refuse_link(file, folder)
        if not file.is_file():
            raise VerifyError(f"{file.name} is missing from the bundle; get it again")
    if manifest_file.stat().st_size > MAX_MANIFEST_BYTES:
        raise VerifyError(f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES:,} bytes; get the bundle again")
    data = manifest_file.read_bytes()
    expected = f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode()
    if hash_file.stat().st_size != len(expected) or hash_file.read_bytes() != expected:
        raise VerifyError(f"{MANIFEST} is not the one that {MANIFEST_SHA256} names; get the bundle again")
    try:
        manifest = Manifest.from_json(strict_json(data))
        canonical = manifest.to_bytes()
    except (ValueError, RecursionError):
        raise VerifyError(f"{MANIFEST} is not JSON; get the bundle again") from None
    if canonical != data:
        raise VerifyError(f"{MANIFEST} is not written in the canonical form; get the bundle again")
    return manifest


def _contents(folder: Path, *, links: bool = False) -> tuple[set[str], set[str]]:
    """Return the relative paths of a bundle's files and folders; refuse devices and, unless `links`, second names.

    The manifest's two files are left out, and what lies in attestations/, though not a folder in there.
    """
    files, folders = set(), set()

    def unreadable(error: OSError) -> None:
        raise error

    for place, below, names in os.walk(folder, onerror=unreadable):
        for name in (*below, *names):
            path = Path(place) / name
            relative = path.relative_to(folder)
            _refuse_link(path, folder, links=links)
            if name in below:
                folders.add(relative.as_posix())
            elif str(relative) not in (MANIFEST, MANIFEST_SHA256) and relative.parts[:-1] != (ATTESTATIONS,):
                files.add(relative.as_posix())
    return files, folders


def _refuse_link(path: Path, folder: Path, *, links: bool = False) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    regular = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and (links or status.st_nlink == 1))
    if not regular:
        raise VerifyError(f"{path.relative_to(folder)} is a link or no plain file; a bundle holds none")


def _is_draft(path: Path) -> bool:
    """Whether a file of attestations/ is what a killed `attest` left; `writing` gives drafts their names."""
    return path.name.startswith(".") and path.name.endswith(".part")


def _read_attestations(folder: Path, manifest: Manifest) -> tuple[Attestation, ...]:
    place = folder / ATTESTATIONS
    paths = sorted(place.iterdir()) if place.is_dir() else []
    return tuple(_read_attestation(path, manifest) for path in paths if not _is_draft(path))


def _read_attestation(path: Path, manifest: Manifest) -> Attestation:
    name = f"{ATTESTATIONS}/{path.name}"
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise VerifyError(f"{name} is larger than {MAX_MANIFEST_BYTES:,} bytes; remove it")
    data = path.read_bytes()
    short_hash = hashlib.sha256(data).hexdigest()[:16]
    if path.stem.rsplit("-", 1)[-1] != short_hash:
        raise VerifyError(f"{name} was changed after it was written; remove it")
    try:
        value = strict_json(data)
        found = Attestation(value["kind"], value["level"], value["digest"], dict(value["body"]))
        named = path.name == f"{found.kind}-{found.level}-{short_hash}.json"
        whole = named and len(value) == len(vars(found)) and isinstance(value["body"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise VerifyError(f"{name} is malformed; remove it")
    if found.level not in {entry.name for entry in manifest.levels}:
        raise VerifyError(f"{name} speaks of level {found.level}, which the bundle does not hold; remove it")
    if found.digest != manifest.level_digest(found.level):
        raise VerifyError(f"{name} speaks of another {found.level} than the bundle's; remove it")
    return found
