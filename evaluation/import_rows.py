"""A row of any layout becomes a Draft: our names for modality and task, and the answer type that its options imply.

Knows the words other people use; opens no file and looks at no pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from .example import JSON, MODALITIES, TASKS, YES_NO, AnswerType, DatasetError, Role

# Names as sources write them, lower case with blanks, hyphens and underscores removed -> our vocabulary.
MODALITY_NAMES: Mapping[str, str] = {
    **{name: name for name in MODALITIES},
    **dict.fromkeys(("radiograph", "radiography", "plainfilm", "cxr", "chestxray", "cr", "dx"), "xray"),
    **dict.fromkeys(("computedtomography", "ctscan"), "ct"),
    **dict.fromkeys(("mr", "magneticresonanceimaging"), "mri"),
    **dict.fromkeys(("us", "ultrasonography", "sonography"), "ultrasound"),
    **dict.fromkeys(("fundusphotography", "fundusphotograph", "retinalphotograph", "colorfundus"), "fundus"),
    **dict.fromkeys(("opticalcoherencetomography",), "oct"),
    **dict.fromkeys(("dermatoscopy", "dermoscopicimage"), "dermoscopy"),
    **dict.fromkeys(("colonoscopy", "gastroscopy"), "endoscopy"),
    **dict.fromkeys(("histology", "pathology", "h&e"), "histopathology"),
    **dict.fromkeys(("lightmicroscopy", "bloodsmear", "cytology"), "microscopy"),
}
TASK_NAMES: Mapping[str, str] = {
    **{name: name for name in TASKS},
    **dict.fromkeys(("plane", "orientation"), "view"),
    **dict.fromkeys(("organ", "bodypart"), "anatomy"),
    **dict.fromkeys(("side",), "laterality"),
    **dict.fromkeys(("presence", "abnormality"), "finding"),
    **dict.fromkeys(("position",), "location"),
    **dict.fromkeys(("grade", "severity"), "grading"),
    **dict.fromkeys(("counting", "number"), "count"),
    **dict.fromkeys(("disease",), "diagnosis"),
}


@dataclass(frozen=True)
class ImageFile:
    """An image of a row. path: an absolute path inside the source, or empty where `data` holds the bytes.

    sha256: what the source says the file's bytes hash to; empty where it says nothing.
    """

    path: Path | None = None
    data: bytes = b""
    sha256: str = ""


@dataclass(frozen=True)
class Draft:
    """A row as its layout understood it, before anything was checked.

    file, line: where it stands, for errors. parts: images and texts in their order, the question last.
    """

    file: str
    line: int
    id: str
    parts: tuple[ImageFile | str, ...]
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
    attributes: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True)
class BadRow:
    """A row that its layout could not understand, with the reason."""

    file: str
    line: int
    id: str
    reason: str


@dataclass(frozen=True)
class Defaults:
    """What the user says of rows that do not say it themselves; empty where nothing was said."""

    source: str = ""
    license: str = ""


def named(value: object, names: Mapping[str, str], what: str) -> str:
    """Return our name for `value`. Raises DatasetError with the vocabulary."""
    text = required_text(value, what)
    key = text.casefold().replace(" ", "").replace("-", "").replace("_", "")
    if key not in names:
        raise DatasetError(f"{what} {text!r:.60} is unknown; use one of {', '.join(dict.fromkeys(names.values()))}")
    return names[key]


def required_text(value: object, what: str) -> str:
    """Return a text without blanks at its ends. Raises DatasetError where there is none."""
    if not isinstance(value, str) or not value.strip():
        raise DatasetError(f"{what} is a text, not {value!r:.60}")
    return value.strip()


def identifier(value: object, what: str) -> str:
    """Return the name of a row, a patient or a group: a text, or a whole number as tables store it (0 and 0.0 too)."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DatasetError(f"{what} is a text or a whole number, not {value!r:.60}")
    return value.strip()


def given(row: Mapping[str, Any], *names: str) -> Any:
    """Return the first of these fields that says anything; None and blank texts say nothing, 0 does."""
    values = (row.get(name) for name in names)
    return next(
        (value for value in values if value is not None and not (isinstance(value, str) and not value.strip())), None
    )


def source_of(row: Mapping[str, Any], defaults: Defaults, known: str = "") -> str:
    """Return the source: what the row states, else what the user does, else what its file is known to be."""
    stated = given(row, "source")
    return required_text(defaults.source or known if stated is None else stated, "source (or --source)")


def licence_of(row: Mapping[str, Any], defaults: Defaults, known: str = "") -> str:
    """Return the licence: what the row states, else what the user does, else the one its file is known to be under."""
    stated = given(row, "license", "licence")
    return required_text(defaults.license or known if stated is None else stated, "license (or --license)")


def texts(value: object, what: str) -> tuple[str, ...]:
    """Return a list of texts; None and a single text are lists too."""
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise DatasetError(f"{what} is a list of texts, not {value!r:.60}")
    return tuple(required_text(item, f"an entry of {what}") for item in items)


def answer_of(answer: object, options: tuple[str, ...], stated: object) -> tuple[str, tuple[str, ...], AnswerType]:
    """Return (answer, options, answer type): what the row states, else what its options imply."""
    text = required_text(answer, "answer")
    yes_no = text.casefold() in YES_NO and {option.casefold() for option in options} <= set(YES_NO)
    kind = stated or ("yesno" if yes_no else "choice" if options else "open")
    if kind == "yesno":
        if not yes_no:
            raise DatasetError(f"the answer {text!r:.60} of a yesno question is yes or no")
        return text.casefold(), YES_NO, "yesno"
    if kind == "choice":
        return text, options, "choice"
    if kind == "open":
        return text, (), "open"
    raise DatasetError(f"answer_type {kind!r:.60} is unknown; use choice, yesno or open")


# Fields of the plain form; whatever else a row has is kept in its attributes.
_PLAIN = {
    "id", "content", "image", "images", "context", "question", "options", "answer", "answer_type", "modality", "task",
    "source", "license", "licence", "patient", "group", "role", "aliases",
}  # fmt: skip
_RENAMED = {"phrasing": "wording"}
_MISSPELT = 0.83  # likeness from which an unknown field is taken for a known one that the row lacks: "optoins"


def plain_draft(row: Mapping[str, Any], file: str, line: int, root: Path, defaults: Defaults, split: str) -> Draft:
    """Return the draft of a plain row (JSONL, Parquet, a saved `datasets` folder).

    root: the folder that image paths are relative to. split: official split by file name, or empty. Raises
    DatasetError, without file and line, for a field that is missing or wrong.
    """
    _refuse_misspelt(row)
    options = texts(row.get("options"), "options")
    answer, options, kind = answer_of(row.get("answer"), options, row.get("answer_type"))
    attributes: dict[str, JSON] = {
        _RENAMED.get(key, key): value for key, value in row.items() if key not in _PLAIN and value is not None
    }
    if split:
        attributes.setdefault("split", split)
    parts = _plain_parts(row, root)
    images = [part for part in parts if isinstance(part, ImageFile)]
    modality = given(row, "modality")
    group = given(row, "patient", "group")
    return Draft(
        file=file,
        line=line,
        id=identifier(row.get("id"), "id"),
        parts=parts,
        answer=answer,
        options=options,
        answer_type=kind,
        modality=named("text" if modality is None and not images else modality, MODALITY_NAMES, "modality"),
        task=named("open" if given(row, "task") is None else row["task"], TASK_NAMES, "task"),
        source=source_of(row, defaults),
        license=licence_of(row, defaults),
        group="" if group is None else identifier(group, "patient (or group)"),
        role=cast("Role", row.get("role") or ""),
        aliases=texts(row.get("aliases"), "aliases"),
        attributes=attributes,
    )


def _refuse_misspelt(row: Mapping[str, Any]) -> None:
    """Raise DatasetError for a field that is nearly one of ours: kept as an attribute, it would silently do nothing."""
    lacking = sorted(name for name in _PLAIN if row.get(name) is None)
    for name in row:
        if name not in _PLAIN and (meant := get_close_matches(str(name), lacking, 1, _MISSPELT)):
            raise DatasetError(f"unknown field {name!r:.60}; is {meant[0]} meant? Else give it another name")


def _plain_parts(row: Mapping[str, Any], root: Path) -> tuple[ImageFile | str, ...]:
    if row.get("content") is not None:
        if not isinstance(row["content"], list):
            raise DatasetError(f"content is a list, not {row['content']!r:.60}")
        return tuple(_part(item, root) for item in row["content"])
    pictures = row.get("images") if row.get("images") is not None else row.get("image")
    if pictures is None:
        pictures = []
    elif not isinstance(pictures, list):
        pictures = [pictures]
    context = tuple(text + "\n" for text in texts(row.get("context"), "context"))
    return (*(_image(item, root) for item in pictures), *context, required_text(row.get("question"), "question"))


def _part(item: object, root: Path) -> ImageFile | str:
    if isinstance(item, Mapping) and "image" in item:
        return _image(item["image"], root)
    if isinstance(item, Mapping) and isinstance(item.get("text"), str):
        return cast("str", item["text"])
    raise DatasetError(f"content holds {{text}} or {{image}}, not {item!r:.60}")


def _image(item: object, root: Path) -> ImageFile:
    """A path relative to the source, or the {bytes, path} of Parquet and `datasets`."""
    data = item.get("bytes") if isinstance(item, Mapping) else None
    if data is not None:
        if not isinstance(data, bytes):
            raise DatasetError(f"the bytes of an image are bytes, as Parquet stores them, not {data!r:.60}")
        return ImageFile(data=data)
    path = item.get("path") if isinstance(item, Mapping) else item
    if not isinstance(path, str) or not path:
        raise DatasetError(f"image is a path relative to its file, not {path!r:.60}")
    try:
        full = (root / path).resolve()
    except (OSError, ValueError) as error:
        raise DatasetError(f"image {path!r:.80} is no path of a file ({error})") from None
    if not full.is_relative_to(root.resolve()):
        raise DatasetError(f"image {path!r:.80} lies outside the folder of its file; only files inside are read")
    return ImageFile(path=full)
