"""What the readers of official benchmarks share: where a row stands, its fields, its images, and how a key is read.

Every field of a row that its reader does not take is kept in the attributes. Knows no benchmark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .example import JSON, YES_NO, AnswerType, DatasetError
from .import_files import KEY
from .import_rows import Defaults, Draft, ImageFile, answer_of, given, licence_of, required_text, source_of

CHOICES = "Answer Choices:"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class OutsideError(DatasetError):
    """A sound row that is no part of the benchmark (another subject), or of the subset that was asked for."""


class Row(Mapping[str, Any]):
    """The fields of a row. What was never asked for is the rest."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self._taken = {KEY}

    def __getitem__(self, name: str) -> Any:
        self._taken.add(name)
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or `default` where the row has none."""
        self._taken.add(name)
        return self._fields.get(name, default)

    def text(self, name: str) -> str:
        """Return a text field without blanks at its ends. Raises DatasetError where it is missing or empty."""
        if name not in self._fields:
            raise DatasetError(f"the field {name} is missing")
        return required_text(self.get(name), name)

    def rest(self) -> dict[str, JSON]:
        """Return the fields that no one asked for and that say something in JSON."""
        left: dict[str, JSON] = {}
        for name, value in self._fields.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                continue  # bytes: a picture that this reader does not show
            if name not in self._taken and value not in (None, "", [], {}):
                left[name] = value
        return left


@dataclass(frozen=True)
class Place:
    """Where a row stands. number: of the row in its table, from 1, its shards taken together. found: by Form.survey.

    root: the source's folder; images are read from inside it alone. split: what the file's place states, or empty.
    """

    benchmark: str
    path: Path
    root: Path
    line: int
    number: int
    split: str
    license: str
    defaults: Defaults
    found: Any = None

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders between the source and the file."""
        return self.path.relative_to(self.root).parent.parts

    def numbered(self, *parts: str) -> str:
        """Return an id for a row that has none of its own."""
        return "-".join((self.benchmark, *(part for part in (*parts, self.split) if part), f"{self.number:06d}"))

    def image(self, name: str, *folders: str) -> ImageFile:
        """Return the image `name`, from `folders` beside the file, then beside each folder above up to the source.

        Raises DatasetError for a path that leads outside the source. A missing image is found missing when it is read.
        """
        root, here, tried = self.root.resolve(), self.path.parent, []
        while True:
            for folder in (*folders, ""):
                try:
                    full = (here / folder / name).resolve()
                    inside, there = full.is_relative_to(root), full.is_file()
                except (OSError, ValueError) as error:
                    raise DatasetError(f"image {name!r:.80} is no path of a file ({error})") from None
                if not inside:
                    raise DatasetError(f"image {name!r:.80} lies outside the source; only files inside are read")
                if there:
                    return ImageFile(path=full)
                tried.append(full)
            if here == self.root or self.root not in here.parents:
                return ImageFile(path=tried[0])
            here = here.parent

    def stored(self, value: object, *folders: str) -> ImageFile:
        """Return the image of a field: {bytes, path} as the hub stores it, or a path."""
        data = value.get("bytes") if isinstance(value, Mapping) else None
        if isinstance(data, bytes) and data:
            return ImageFile(data=data)
        name = value.get("path") if isinstance(value, Mapping) else value
        if not isinstance(name, str) or not name:
            raise DatasetError(f"image holds neither bytes nor a path: {value!r:.60}")
        return self.image(name, *folders)

    def draft(
        self,
        row: Row,
        *,
        id: str,
        question: str,
        answer: str,
        options: Sequence[str] = (),
        kind: AnswerType | None = None,
        shown: Sequence[ImageFile | str] = (),
        modality: str,
        task: str,
        group: str = "",
        subset: str = "",
        split: str | None = None,
        aliases: Sequence[str] = (),
        source: str = "",
        **kept: JSON,
    ) -> Draft:
        """Return the draft of a row. shown: images and texts before the question. kept: attributes by our names."""
        answer, told, answer_type = answer_of(answer, tuple(options), kind)
        source = source_of(row, self.defaults, source or self.benchmark)
        license = licence_of(row, self.defaults, self.license)
        attributes: dict[str, JSON] = {"split": self.split if split is None else split}
        if subset:
            attributes["subset"] = subset
        attributes.update({name: value for name, value in kept.items() if value not in (None, "")})
        for name, value in row.rest().items():
            attributes.setdefault(name, value)
        return Draft(
            file=self.path.name, line=self.line, id=id, parts=(*shown, question), answer=answer, options=told,
            answer_type=answer_type, modality=modality, task=task, source=source, license=license, group=group,
            aliases=tuple(aliases), attributes=attributes,
        )  # fmt: skip


ReadRow = Callable[[Row, Place], Draft]


def mapped(value: str, names: Mapping[str, str], field: str) -> str:
    """Return our name for an official one, compared by letters and digits before any bracket. Raises DatasetError."""
    key = re.sub(r"[\W_]+", "", value.split("(")[0].casefold())
    if key not in names:
        raise DatasetError(f"{field} {value!r:.60} is unknown; known are {', '.join(names)}")
    return names[key]


def keyed(options: Mapping[str, str], key: object, field: str) -> str:
    """Return the option of a key such as "B". Raises DatasetError for a key that is no option."""
    letter = key.strip() if isinstance(key, str) else key
    if not isinstance(letter, str) or letter not in options:
        raise DatasetError(f"{field} {key!r:.40} is the key of no option; the options are {', '.join(options)}")
    return options[letter]


def indexed(options: Sequence[str], index: object, field: str, first: int = 0) -> str:
    """Return the option of a number, counted from `first`. Raises DatasetError for a number that is no option's."""
    if isinstance(index, str) and index.strip().lstrip("-").isdecimal():
        index = int(index)
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool) or not first <= index < first + len(options):
        last = first + len(options) - 1
        raise DatasetError(f"{field} {index!r:.40} is the number of no option; they run from {first} to {last}")
    return options[index - first]


def lettered(value: object, field: str) -> dict[str, str]:
    """Return {letter: option} of {"A": text}, [{"letter": "A", "content": text}] or [text], without empty letters.

    Raises DatasetError for any other form, a repeated letter, or an empty option before the last.
    """
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value) and value:
        pairs = [(item.get("letter"), item.get("content")) for item in value]
    elif isinstance(value, (list, tuple)):
        pairs = list(zip(_LETTERS, value, strict=False)) if len(value) <= len(_LETTERS) else []
    else:
        pairs = []
    pairs = sorted((pair for pair in pairs if pair[1] is not None), key=lambda pair: str(pair[0]))
    found = {str(letter): required_text(text, f"option {letter} of {field}") for letter, text in pairs}
    if not found or "".join(found) != _LETTERS[: len(pairs)]:
        raise DatasetError(f"{field} is no list of options by their letters from A: {value!r:.80}")
    return found


def single(value: object, field: str) -> object:
    """Return the one entry of a list, or the value itself: a label is stored as "B" or as ["B"]."""
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != 1:
        raise DatasetError(f"{field} holds {len(value)} keys, not one: {value!r:.60}")
    return cast("object", value[0])


def agreed(stated: str, option: str, field: str) -> None:
    """Raise DatasetError where a row states its answer twice and not the same."""
    if _plain(stated) != _plain(option):
        raise DatasetError(f"the key names the option {option!r:.60}, {field} says {stated!r:.60}")


def option_of(stated: str, options: Sequence[str], field: str) -> str:
    """Return the option that a stated answer is: the same text, else the same but for case and a final full stop."""
    for found in ([o for o in options if o == stated], [o for o in options if _plain(o) == _plain(stated)]):
        if len(found) == 1:
            return found[0]
    raise DatasetError(f"{field} {stated!r:.60} is not one of the options {'; '.join(options):.120}")


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(". ")


def without_choices(question: str) -> str:
    """Return a question without the options that some files repeat after "Answer Choices:" at its end."""
    stem, mark, rest = question.rpartition(CHOICES)
    return stem.strip() if mark and rest.lstrip().startswith("(A)") and stem.strip() else question


def yes_or_no(answer: str) -> bool:
    """Return whether an answer is yes or no and nothing else."""
    return answer.strip().casefold() in YES_NO


def first_given(row: Row, *names: str) -> Any:
    """Return the first of these fields that says anything, and take them all."""
    for name in names:
        row.get(name)
    return given(row, *names)
