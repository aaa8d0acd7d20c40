"""One question about images and texts, with its answer and where it comes from.

Validated at the door: an Example that exists can be asked and scored. Knows no file, no pixels and no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from .. import InfimedError

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]
AnswerType = Literal["choice", "yesno", "open"]
Role = Literal["train", "calibration", "search", "test", ""]

# other: a source states one that is not in this list. unknown: images whose source states none.
MODALITIES = (
    "xray", "ct", "mri", "ultrasound", "fundus", "oct", "dermoscopy", "endoscopy", "histopathology", "microscopy",
    "text", "other", "unknown",
)  # fmt: skip
TASKS = (
    "modality", "anatomy", "view", "laterality", "finding", "diagnosis", "grading", "location", "count", "open", "size",
    "change", "agreement",
)  # fmt: skip
ANSWER_TYPES: tuple[str, ...] = get_args(AnswerType)
ROLES: tuple[str, ...] = ("train", "calibration", "search", "test")
YES_NO = ("yes", "no")
IMAGE_PATH = re.compile(r"images/[0-9a-f]{16}\.(png|jpg|webp|bmp|tif)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DatasetError(InfimedError):
    """A dataset, or one row of it, cannot be used; the message names the file, the line and the field."""


def utf8(text: str) -> str:
    """Return a text that UTF-8 can hold: half a surrogate pair, which JSON can name, becomes a backslash and digits."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class ImageRef:
    """An image of a dataset. path: relative to the dataset's folder, images/<16 hex>.<suffix>. sha256: of the file."""

    path: str
    sha256: str


@dataclass(frozen=True)
class TextRef:
    """A text of an example; the last one is the question."""

    text: str


Content = ImageRef | TextRef


@dataclass(frozen=True)
class Example:
    """One question: what is shown and asked in order, the answer, and its origin.

    answer: one of `options` ("choice", "yesno") or free text ("open"). group: the patient, else the near-duplicate
    group; never divided between roles. role: "" until curation divides the set. aliases: other right answers of an
    open question. attributes: what a source knows besides (wording index, lesion positions, official split).
    Raises DatasetError for anything that could not be asked or scored.
    """

    id: str
    content: tuple[Content, ...]
    answer: str
    options: tuple[str, ...]
    answer_type: AnswerType
    modality: str
    task: str
    source: str
    license: str
    group: str
    role: Role = ""
    aliases: tuple[str, ...] = ()
    attributes: Mapping[str, JSON] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault:
            raise DatasetError(f"example {self.id!r}: {fault}")

    @property
    def question(self) -> str:
        """The last text."""
        return next(part.text for part in reversed(self.content) if isinstance(part, TextRef))

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """The images in their order."""
        return tuple(part for part in self.content if isinstance(part, ImageRef))

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts in their order, the question last."""
        return tuple(part.text for part in self.content if isinstance(part, TextRef))

    @property
    def cell(self) -> tuple[str, str]:
        """modality x task: the unit that balancing and drift report by."""
        return self.modality, self.task

    def with_role(self, role: Role, group: str | None = None) -> Example:
        """Return this example in `role`, and in `group` where curation merged groups."""
        return replace(self, role=role, group=self.group if group is None else group)

    def to_json(self) -> dict[str, JSON]:
        """Return the row of examples.jsonl; every field is present."""
        content: list[JSON] = [
            {"image": part.path, "sha256": part.sha256} if isinstance(part, ImageRef) else {"text": part.text}
            for part in self.content
        ]
        return {
            "id": self.id,
            "content": content,
            "answer": self.answer,
            "options": list(self.options),
            "answer_type": self.answer_type,
            "modality": self.modality,
            "task": self.task,
            "source": self.source,
            "license": self.license,
            "group": self.group,
            "role": self.role,
            "aliases": list(self.aliases),
            "attributes": dict(self.attributes),
        }

    @classmethod
    def from_json(cls, row: object, where: str = "example") -> Example:
        """Return the example of a row. where: file and line, for the error."""
        if not isinstance(row, dict):
            raise DatasetError(f"{where}: a row is a JSON object, not {type(row).__name__}")
        names = set(cls.__dataclass_fields__)
        needed = names - {"role", "aliases", "attributes"}
        if needed - set(row):
            raise DatasetError(f"{where}: the row lacks {', '.join(sorted(needed - set(row)))}")
        if set(row) - names:
            raise DatasetError(f"{where}: unknown field {', '.join(sorted(set(row) - names))}; put it in attributes")
        values: dict[str, Any] = dict(row)
        for name in ("options", "aliases"):
            if name in values:
                values[name] = _strings(values[name], name, where)
        values["content"] = _content(values["content"], where)
        try:
            return cls(**values)
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from None


def _strings(value: object, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DatasetError(f"{where}: {name} is a list of texts, not {value!r:.80}")
    return tuple(value)


def _content(value: object, where: str) -> tuple[Content, ...]:
    if not isinstance(value, list):
        raise DatasetError(f"{where}: content is a list, not {value!r:.80}")
    parts: list[Content] = []
    for item in value:
        keys = set(item) if isinstance(item, dict) else set()
        if keys == {"text"}:
            parts.append(TextRef(cast("dict[str, str]", item)["text"]))
        elif keys == {"image", "sha256"}:
            parts.append(ImageRef(cast("dict[str, str]", item)["image"], cast("dict[str, str]", item)["sha256"]))
        else:
            raise DatasetError(f"{where}: content holds {{text}} or {{image, sha256}}, not {item!r:.80}")
    return tuple(parts)


def _fault(example: Example) -> str:
    """Return why the example cannot be asked or scored, or the empty text."""
    for name in ("id", "answer", "answer_type", "modality", "task", "source", "license", "group", "role"):
        value = getattr(example, name)
        if not isinstance(value, str):
            return f"{name} is a text, not {value!r:.80}"
        if not value.strip() and name != "role":
            return f"{name} is empty"
    for name, vocabulary in (("modality", MODALITIES), ("task", TASKS), ("answer_type", ANSWER_TYPES)):
        if getattr(example, name) not in vocabulary:
            return f"{name} {getattr(example, name)!r} is unknown; use one of {', '.join(vocabulary)}"
    if example.role not in (*ROLES, ""):
        return f"role {example.role!r} is unknown; use one of {', '.join(ROLES)} or leave it empty"
    if not isinstance(example.attributes, Mapping):
        return f"attributes is an object, not {example.attributes!r:.80}"
    return _content_fault(example) or _answer_fault(example) or _json_fault(example)


def _json_fault(example: Example) -> str:
    try:
        json.dumps(example.to_json(), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return f"it cannot be written as JSON in UTF-8 ({error})"
    return ""


def _content_fault(example: Example) -> str:
    for part in example.content:
        if isinstance(part, TextRef):
            if not isinstance(part.text, str) or not part.text.strip():
                return "a text of the content is empty"
        elif not isinstance(part.path, str) or not IMAGE_PATH.fullmatch(part.path):
            return f"image path {part.path!r:.80} is not images/<16 hex digits>.<png|jpg|webp|bmp|tif>"
        elif not isinstance(part.sha256, str) or not _SHA256.fullmatch(part.sha256):
            return f"image {part.path} has no sha256 of 64 hex digits"
        elif not part.path.startswith(f"images/{part.sha256[:16]}."):
            return f"image {part.path} does not carry the name of its sha256 {part.sha256[:16]}"
    if not example.content or not isinstance(example.content[-1], TextRef):
        return "the question is missing: content ends with a text"
    return ""


def _answer_fault(example: Example) -> str:
    if any(not option.strip() for option in (*example.options, *example.aliases)):
        return "an option or alias is empty"
    if len({" ".join(option.casefold().split()) for option in example.options}) < len(example.options):
        return f"options repeat: {', '.join(example.options):.120}"
    if example.answer_type == "open":
        return "an open question has no options" if example.options else ""
    if example.answer_type == "yesno" and example.options != YES_NO:
        return f"the options of a yesno question are yes, no; not {', '.join(example.options):.120}"
    if len(example.options) < 2:
        return f"a choice needs at least 2 options, not {len(example.options)}"
    if example.answer not in example.options:
        return f"the answer {example.answer!r:.80} is not one of the options {', '.join(example.options):.120}"
    return ""
