"""A portable reference: the runs of a full-precision model in one ZIP file, for a device that never holds the model.

In it lie the rows of the reference with its answers kept token by token (answer_tokens.py), its grey run, the majority
answer and its probes as far as they were run, each as `infimed evaluate` wrote it, and a manifest that names every file
by its sha256. docs/predictions.md states the format. Same runs, same bytes. Knows no engine.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .. import InfimedError
from ..runtime.files import canonical_json, write_bytes
from .answer_tokens import RULES, ForceAnswers, KeptAnswer
from .jsonform import FormError, from_json, parse, to_json
from .plan_kept import PLAN_NAME
from .predict import GREY_SUFFIX
from .predict_probes import PROBES_FOLDER, read_record
from .prediction import Identity, RunFiles, RunMeta, complete_runs, read_meta, read_run, require_sha256, rows_of
from .prior import PRIOR

SCHEMA = "infimed.reference/1"
SUFFIX = ".zip"
MANIFEST = "manifest.json"
LIMIT_BYTES = 1 << 30
"""A store that says it would unpack to more is refused."""
_NAME = re.compile(rf"(?:{PROBES_FOLDER}/)?[A-Za-z0-9][A-Za-z0-9_.+\-]{{0,160}}\.(?:jsonl|json)")
_META = ".meta.json"
_ROWS = ".jsonl"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class StoreError(InfimedError):
    """A reference store that cannot be written, read, or used for these questions and this model."""


@dataclass(frozen=True)
class StoreManifest:
    """What a store holds. reference: its run's name. made_from: the checkpoint's sha256, empty for an adapter.

    token_path_sha256: of tokenizer, chat template and pixel rules. files: name -> sha256. Dataset, role, settings and
    the digest of the reference stand in the meta files of the runs.
    """

    reference: str
    made_from: str
    token_path_sha256: str
    files: Mapping[str, str]
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        require_sha256(token_path_sha256=self.token_path_sha256, **dict(self.files))
        if self.made_from:
            require_sha256(made_from=self.made_from)
        if wrong := [name for name in self.files if not _NAME.fullmatch(name)]:
            raise FormError(f"it names the file {wrong[0]!r:.80}, which is none of a run's")


@dataclass(frozen=True)
class ReferenceStore:
    """A store whose every byte was checked. data: the files by name."""

    path: Path
    manifest: StoreManifest
    data: Mapping[str, bytes]

    @classmethod
    def open(cls, path: Path) -> ReferenceStore:
        """Read and check a store. Raises StoreError for one that is cut, damaged, or of another kind or schema."""
        if not path.is_file():
            raise StoreError(f"{path} does not exist; write a store with infimed evaluate --reference-store")
        try:
            data = dict(_read(path))
        except _DAMAGED as error:
            raise _damaged(path, " ".join(str(error).split())) from None
        try:
            value = parse(data.pop(MANIFEST, b""), MANIFEST)
            schema = value.get("schema") if isinstance(value, dict) else None
            if schema != SCHEMA:
                raise FormError(f"its schema is {schema!r:.60}, not {SCHEMA!r}")
            manifest = from_json(StoreManifest, value, MANIFEST)
        except FormError as error:
            raise StoreError(f"{path} is no reference store ({error}); write one with infimed evaluate "
                             "--reference-store") from None  # fmt: skip
        if odd := sorted(set(data) ^ set(manifest.files)):
            raise _damaged(path, f"{odd[0]} is {'not named in its manifest' if odd[0] in data else 'missing'}")
        for name, digest in manifest.files.items():
            if hashlib.sha256(data[name]).hexdigest() != digest:
                raise _damaged(path, f"{name} is not what its manifest says")
        store = cls(path, manifest, data)
        if store.identity.answers != RULES:
            raise StoreError(f"{path} keeps answers by other rules ({store.identity.answers!r:.60}, not {RULES!r}); "
                             "write it again with this infimed")  # fmt: skip
        return store

    @cached_property
    def metas(self) -> Mapping[str, RunMeta]:
        """The meta of every run, by the file's name without its end; rows belong to it by their sha256."""
        found = {}
        for name in self.manifest.files:
            if name.endswith(_META):
                stem = name.removesuffix(_META)
                try:
                    found[stem] = from_json(RunMeta, parse(self.data[name], name), name)
                except FormError as error:
                    raise _damaged(self.path, str(error)) from None
                if self.manifest.files.get(stem + _ROWS) != found[stem].predictions_sha256:
                    raise _damaged(self.path, f"{stem}{_ROWS} is not the one of {name}")
        if self.manifest.reference not in found:
            raise _damaged(self.path, f"it holds no run {self.manifest.reference}")
        return found

    @property
    def identity(self) -> Identity:
        """What the reference is: subject, dataset, role, settings, engine."""
        return self.metas[self.manifest.reference].identity

    def rule(self) -> ForceAnswers:
        """Return how a level is asked: with the answers that were kept, of the plain run and of each probe."""
        answers: dict[str, dict[str, KeptAnswer]] = {}
        marks = {}
        for stem, meta in self.metas.items():
            if meta.identity.answers:
                suffix = meta.identity.run.removeprefix(self.manifest.reference)
                rows = rows_of(self.data[stem + _ROWS], f"{self.path}, {stem}{_ROWS}")
                answers[suffix] = {row.example_id: row.kept for row in rows if row.kept is not None}
                marks[suffix] = meta.predictions_sha256
        return ForceAnswers(answers, marks)

    def check(
        self, *, dataset_sha256: str, role: str, settings: Mapping[str, str | int | bool], made_from: str,
        token_path_sha256: str, level: str,
    ) -> None:  # fmt: skip
        """Raise StoreError where a level cannot be held against this reference. made_from: as in the manifest."""
        mine = self.identity
        for what, kept, found in (
            ("dataset", mine.dataset_sha256, dataset_sha256),
            ("role", mine.role, role),
            ("settings", str(dict(sorted(mine.settings.items()))), str(dict(sorted(settings.items())))),
            ("tokenizer, template or pixel rules", self.manifest.token_path_sha256, token_path_sha256),
        ):
            if kept != found:
                raise StoreError(f"{self.path} is for another {what} ({kept[:120]}, not {found[:120]}); write a store "
                                 "with infimed evaluate --reference-store for this one")  # fmt: skip
        if self.manifest.made_from and made_from and self.manifest.made_from != made_from:
            raise StoreError(
                f"{self.path} is of another model than {level}: its checkpoint is {self.manifest.made_from[:16]}, that "
                f"of {level} {made_from[:16]}; take the store of the checkpoint that the bundle was exported from"
            )

    def lay(self, folder: Path) -> None:
        """Write the store's runs into a folder of runs, where `infimed drift` finds them; those that are there stay.

        Nothing is written where anything of them would replace another file. Meta files come last.
        """
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder} is a file; name a folder for the runs")
        missing = []
        for name in sorted(self.data, key=lambda name: (name.endswith(_META), name)):
            path = folder / name
            if path.exists():
                if path.read_bytes() != self.data[name]:
                    raise StoreError(f"{path} is not the one of {self.path}; name another folder for the runs, or "
                                     "remove that run's files")  # fmt: skip
                continue
            if name.endswith(_META):
                files = RunFiles(path.parent, path.name.removesuffix(_META))
                if begun := [one for one in (files.part, files.started) if one.exists()]:
                    raise StoreError(f"{begun[0]} is of a run that was begun there; remove it, or name another folder")
            missing.append(name)
        for name in missing:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, self.data[name])

    def check_runs(self, folder: Path) -> None:
        """Raise StoreError for a run of a folder whose level was given the answers of another reference."""
        own = {meta.predictions_sha256 for meta in self.metas.values()}
        for name in complete_runs(folder):
            meta = read_meta(folder, name)
            answers = meta.identity.answers if meta else ""
            if answers not in ("", RULES) and answers not in own:
                raise StoreError(
                    f"run {name!r} was given the answers of another reference ({answers[:16]}) than {self.path} holds; "
                    "evaluate it with this one into another folder"
                )


def write_store(folder: Path, reference: str, path: Path, *, made_from: str, token_path_sha256: str) -> StoreManifest:
    """Write a store of a reference's complete runs in a folder; return its manifest.

    Beside the reference's own run: its grey run, the majority answer, its probes and the plan, where they lie there.
    Raises StoreError where the reference's rows keep no answers.
    """
    own = read_run(folder, reference)
    if own.meta.identity.answers != RULES:
        raise StoreError(f"the run {reference!r} in {folder} keeps no answers; evaluate it with --reference-store into "
                         "another folder")  # fmt: skip
    names = [(folder, reference)]
    for beside in (reference + GREY_SUFFIX, PRIOR):
        meta = read_meta(folder, beside)
        if meta is not None and _belongs(meta.identity, own.meta.identity):
            names.append((folder, beside))
    data: dict[str, bytes] = {}
    probes = folder / PROBES_FOLDER
    for record in sorted(probes.glob("*.json")) if probes.is_dir() else ():
        if record.name.endswith((_META, ".started.json")):
            continue
        run = f"{reference}.{record.stem}"
        meta = read_meta(probes, run)
        if meta is not None and _belongs(meta.identity, own.meta.identity) and read_record(record):
            names.append((probes, run))
            data[f"{PROBES_FOLDER}/{record.name}"] = record.read_bytes()
    for place, run in names:
        read_run(place, run)  # refuses rows that changed after they were written
        files = RunFiles(place, run)
        for file in (files.rows, files.meta):
            data[file.relative_to(folder).as_posix()] = file.read_bytes()
    if (folder / PLAN_NAME).is_file() and own.meta.identity.plan:
        data[PLAN_NAME] = (folder / PLAN_NAME).read_bytes()
    digests = {name: hashlib.sha256(value).hexdigest() for name, value in sorted(data.items())}
    manifest = StoreManifest(reference, made_from, token_path_sha256, digests)
    packed = _packed({MANIFEST: canonical_json(to_json(manifest)), **dict(sorted(data.items()))})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, packed)
    return manifest


def _belongs(other: Identity, own: Identity) -> bool:
    """Whether a run is of the same questions, and of the reference itself unless it is a prior."""
    same = (other.dataset_sha256, other.role) == (own.dataset_sha256, own.role)
    return same and (other.subject == own.subject or other.subject.kind == "prior")


def _packed(files: Mapping[str, bytes]) -> bytes:
    """Return a ZIP file that holds no time and no machine's habits: same files, same bytes under one zlib."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, value in files.items():
            entry = zipfile.ZipInfo(name)  # of 1 January 1980
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            made.writestr(entry, value, zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


def _read(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each file of a ZIP file, none larger than it says and all together within LIMIT_BYTES."""
    with zipfile.ZipFile(path) as packed:
        entries = packed.infolist()
        if len({entry.filename for entry in entries}) != len(entries):
            raise ValueError("a file is in it twice")
        if (total := sum(entry.file_size for entry in entries)) > LIMIT_BYTES:
            raise ValueError(f"it would unpack to {total:,} bytes, more than {LIMIT_BYTES:,}")
        for entry in entries:
            with packed.open(entry) as stream:
                yield entry.filename, stream.read(entry.file_size)


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{path} is cut or damaged ({reason}); copy it again, or write it again with infimed evaluate --reference-store"
    )
