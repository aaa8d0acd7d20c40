"""Brings foreign data in: drafts become examples, images are seen to decode, and refused rows keep their reason.

A malformed file stops the import; a bad row is refused and listed in the manifest. Source, licence, patient or group
and split of every row are kept. Knows the layouts only through their table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import InfimedError
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import sha256_file
from ..runtime.images import open_image
from ..runtime.scratch import scratch
from .benchmarks import Aside
from .dataset import Dataset, check_target, image_ref, write_dataset
from .example import JSON, Content, DatasetError, Example, ImageRef, TextRef, utf8
from .import_files import all_files
from .import_layouts import layout_of
from .import_rows import BadRow, Defaults, Draft, ImageFile
from .splits import USUAL_ROLES, divided

# Attribution travels with the data: these files are copied beside the examples.
NOTICES = ("SOURCES.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "ATTRIBUTION.txt", "CITATION.cff")


def import_dataset(
    source: Path,
    out: Path,
    *,
    layout: str | None = None,
    name: str | None = None,
    defaults: Defaults | None = None,
    split: str = "",
    subset: str = "",
    strict: bool = False,
    on_event: OnEvent = ignore,
) -> Dataset:
    """Read `source` in its layout and write a dataset folder at `out`.

    layout: recognised where None. name: the dataset's name, by default the last part of `source`. defaults: source and
    licence of rows that state none. split: the name of a split (splits.py) that gives the roles; without one, rows keep
    the role they state. subset: of a benchmark, such as "en" of SLAKE. strict: the first bad row raises instead of
    being listed. Raises DatasetError for a malformed file, an unknown layout, or when no row is left.
    """
    check_target(out)
    found = layout_of(source, layout)
    if subset and found.benchmark is None:
        raise DatasetError(f"layout {found.name} has no subsets; --subset is for benchmarks")
    aside = Aside()
    with scratch("import") as place:
        images = _Images(place, (source if source.is_dir() else source.parent).resolve())
        examples: list[Example] = []
        refused: list[BadRow] = []
        ids: set[str] = set()
        for number, draft in enumerate(found.read(source, defaults or Defaults(), aside, subset), 1):
            made = draft if isinstance(draft, BadRow) else _example(draft, images, ids)
            if isinstance(made, Example):
                ids.add(made.id)
                examples.append(made)
            elif strict:
                raise DatasetError(f"{source.name}/{made.file}:{made.line}: {made.reason}")
            else:
                refused.append(made)
            on_event(Event("import", number, 0, "rows"))
        if not examples:
            raise DatasetError(f"{source} has no usable row in layout {found.name}{_why(refused, aside)}")
        details: dict[str, JSON] = {"layout": found.name, "refused": [_told(row) for row in refused]}
        if aside.files or aside.rows:
            details["aside"] = {"files": [utf8(file) for file in aside.files], "rows": dict(sorted(aside.rows.items()))}
        if subset:
            details["subset"] = subset
        rows = tuple(examples)
        if split:
            rows, details["split"] = divided(rows, split, found.benchmark.splits if found.benchmark else USUAL_ROLES)
        return write_dataset(
            out,
            rows,
            images,
            name=name or utf8(source.resolve().stem),
            inputs=_inputs(source),
            details=details,
            notices=_notices(source),
            official_split=found.name == "dataset" or split == "official",
        )


def _why(refused: list[BadRow], aside: Aside) -> str:
    first = f"; the first: {refused[0].file}:{refused[0].line}: {refused[0].reason}" if refused else ""
    outside = "".join(f"; {number:,} rows aside: {reason}" for reason, number in sorted(aside.rows.items()))
    return f" ({len(refused)} refused{first}{outside})"


class _Images(Mapping[str, bytes]):
    """The images met so far, by their path in the dataset; bytes stay on disk until they are copied."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._files: dict[str, Path] = {}
        self._known: dict[ImageFile, ImageRef | str] = {}

    def add(self, image: ImageFile) -> ImageRef:
        """Return the reference of an image that decodes. Raises InfimedError with the reason where it does not."""
        if image.path is None:
            return self._checked(image.data, None)
        if image not in self._known:
            try:
                self._known[image] = self._read(image, image.path)
            except InfimedError as error:
                self._known[image] = f"image {self._called(image.path):.160}: {error}"
        known = self._known[image]
        if isinstance(known, str):
            raise DatasetError(known)
        return known

    def _called(self, path: Path) -> str:
        """Return an image's place in the source: of some sets every image has one name in a folder of its own."""
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else path.name

    def _read(self, image: ImageFile, path: Path) -> ImageRef:
        try:
            if not path.is_file():
                raise DatasetError("it is missing")
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            raise DatasetError(f"it cannot be read ({getattr(error, 'strerror', None) or error})") from None
        ref = self._checked(data, path)
        if image.sha256 not in ("", ref.sha256):
            raise DatasetError("it changed after its dataset was written")
        return ref

    def _checked(self, data: bytes, path: Path | None) -> ImageRef:
        ref = image_ref(data)
        if ref.path not in self._files:
            open_image(data)
            if path is None:
                path = self._folder / Path(ref.path).name
                path.write_bytes(data)
            self._files[ref.path] = path
        return ref

    def __getitem__(self, key: str) -> bytes:
        return self._files[key].read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _example(draft: Draft, images: _Images, ids: set[str]) -> Example | BadRow:
    try:
        if draft.id in ids:
            raise DatasetError(f"id {draft.id!r} occurs twice")
        content: list[Content] = [TextRef(part) if isinstance(part, str) else images.add(part) for part in draft.parts]
        first = next((part for part in content if isinstance(part, ImageRef)), None)
        # Without a patient the image is the group: its questions stay together, and curation joins its near duplicates.
        group = draft.group or (f"image:{first.sha256[:16]}" if first else f"row:{draft.id}")
        return Example(
            id=draft.id,
            content=tuple(content),
            answer=draft.answer,
            options=draft.options,
            answer_type=draft.answer_type,
            modality=draft.modality,
            task=draft.task,
            source=draft.source,
            license=draft.license,
            group=group,
            role=draft.role,
            aliases=draft.aliases,
            attributes=draft.attributes,
        )
    except InfimedError as error:
        return BadRow(draft.file, draft.line, draft.id, str(error).removeprefix(f"example {draft.id!r}: "))


def _told(row: BadRow) -> dict[str, JSON]:
    return {"file": utf8(row.file), "line": row.line, "id": utf8(row.id), "reason": utf8(row.reason)}


def _inputs(source: Path) -> dict[str, str]:
    root = source.parent if source.is_file() else source
    return {utf8(path.relative_to(root).as_posix()): sha256_file(path) for path in all_files(source)}


def _notices(source: Path) -> dict[str, bytes]:
    folder = source if source.is_dir() else source.parent
    return {name: (folder / name).read_bytes() for name in NOTICES if (folder / name).is_file()}
