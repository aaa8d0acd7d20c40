"""The layouts that can be brought in: how each is recognised, and how its rows are read.

One row of LAYOUTS per layout. Readers yield drafts and bad rows; what is not even JSON raises. Knows no pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dataset import EXAMPLES, MANIFEST, Dataset
from .example import DatasetError, TextRef
from .import_rows import (
    MODALITY_NAMES,
    TASK_NAMES,
    BadRow,
    Defaults,
    Draft,
    ImageFile,
    answer_of,
    given,
    identifier,
    licence_of,
    named,
    plain_draft,
    required_text,
    source_of,
    texts,
)
from .jsonform import FormError, OutOfForm, parse

Reader = Callable[[Path, Defaults], Iterator["Draft | BadRow"]]
RowReader = Callable[[Mapping[str, Any], str, int, Path, Defaults, str], Draft]


@dataclass(frozen=True)
class Layout:
    """One way in which others store questions. recognises: given the source and the keys of its first row."""

    name: str
    about: str
    recognises: Callable[[Path, frozenset[str]], bool]
    read: Reader


def files_of(source: Path, *suffixes: str) -> list[Path]:
    """Return the files of a source with one of `suffixes`, sorted: the file itself, or those in its folder."""
    found = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    return [path for path in found if path.suffix in suffixes]


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, row) of a JSONL file; a row that is JSON but holds NaN or the like is a BadRow.

    Raises DatasetError with file and line for anything that is not JSON.
    """
    with path.open("rb") as stream:
        for line, text in enumerate(stream, 1):
            if not text.strip():
                continue
            try:
                row = parse(text, "the row")
            except OutOfForm as error:
                row = BadRow(path.name, line, "", str(error))
            except FormError as error:
                raise DatasetError(f"{path}:{line}: {error}; the file is malformed") from None
            yield line, row


def split_of(path: Path) -> str:
    """Return the official split that a file's name states, or the empty text."""
    words = re.split(r"[^a-z]+", path.stem.casefold())
    for split, names in (
        ("train", {"train"}),
        ("validation", {"validation", "valid", "val", "dev"}),
        ("test", {"test"}),
    ):
        if names & set(words):
            return split
    return ""


def _rows(read_row: RowReader) -> Reader:
    """Make a reader of JSONL files out of a reader of one row."""

    def read(source: Path, defaults: Defaults) -> Iterator[Draft | BadRow]:
        for path in files_of(source, ".jsonl"):
            for line, row in json_rows(path):
                yield one_row(read_row, row, path, line, defaults)

    return read


def one_row(read_row: RowReader, row: object, path: Path, line: int, defaults: Defaults) -> Draft | BadRow:
    """Return the draft of a row, or why there is none."""
    if isinstance(row, BadRow):
        return row
    if not isinstance(row, Mapping):
        return BadRow(path.name, line, "", f"a row is an object, not {type(row).__name__}")
    try:
        return read_row(row, path.name, line, path.parent, defaults, split_of(path))
    except DatasetError as error:
        return BadRow(path.name, line, f"{row.get('id', '')!s:.200}", str(error))


def _read_dataset(source: Path, defaults: Defaults) -> Iterator[Draft | BadRow]:
    bad: list[BadRow] = []
    opened = Dataset.open(source, lambda fault: bad.append(BadRow(fault.file, fault.line, fault.id, fault.reason)))
    yield from bad
    for line, row in enumerate(opened.examples, 1):
        parts = tuple(
            part.text if isinstance(part, TextRef) else ImageFile(source / part.path, sha256=part.sha256)
            for part in row.content
        )
        yield Draft(
            EXAMPLES, line, row.id, parts, row.answer, row.options, row.answer_type, row.modality, row.task, row.source,
            row.license, row.group, row.role, row.aliases, row.attributes,
        )  # fmt: skip


# The licence of rows that state none, where no one else does: by layout and the exact name of a published file. Another
# file in the same layout is somebody else's, and says its licence itself or is given one.
_KNOWN_LICENCES: Mapping[str, Mapping[str, str]] = {
    "vqa-rad": {"train.jsonl": "CC0-1.0", "test.jsonl": "CC0-1.0"},
    "pubmedqa": {"pqal_train.jsonl": "MIT", "pqal_test.jsonl": "MIT"},
    "text-mcq": dict.fromkeys(
        ("medmcqa.jsonl", "medqa.jsonl", "medxpertqa_text_sampled.jsonl", "mmlu_medical.jsonl"), "MIT"
    ),
}

# HEAD images of VQA-RAD are CT or MR and the rows do not say which. These 13 show the closed bright skull of CT; all
# 315 images were looked at one by one, and no question about the modality of an image contradicts the list.
_VQA_RAD_HEAD_CT = frozenset(
    f"synpic{number}.jpg"
    for number in (16520, 23631, 34922, 39757, 42951, 45914, 46062, 46943, 48714, 53867, 54795, 57520, 58261)
)
_VQA_RAD_TASKS = {
    "PRES": "finding", "PRSE": "finding", "ABN": "finding", "POS": "location", "SIZE": "size", "MODALITY": "modality",
    "PLANE": "view", "ORGAN": "anatomy", "COUNT": "count", "ATTRIB": "open", "ATRIB": "open", "COLOR": "open",
    "OTHER": "open",
}  # fmt: skip


def _vqa_rad(row: Mapping[str, Any], file: str, line: int, root: Path, defaults: Defaults, split: str) -> Draft:
    image = required_text(row.get("image_name"), "image_name")
    organ = required_text(row.get("image_organ"), "image_organ")
    head = "ct" if image in _VQA_RAD_HEAD_CT else "mri"
    modality = {"CHEST": "xray", "ABD": "ct", "HEAD": head}.get(organ)
    answer = row.get("answer")
    answer, options, kind = answer_of(str(answer) if isinstance(answer, int) else answer, (), None)
    first = required_text(row.get("question_type"), "question_type").upper().split(",")[0].strip()
    if first not in _VQA_RAD_TASKS:
        raise DatasetError(f"question_type {first!r} is unknown; use one of {', '.join(_VQA_RAD_TASKS)}")
    path = root / "images" / image
    if Path(image).name != image:
        raise DatasetError(f"image_name {image!r} is not a plain file name")
    return Draft(
        file=file,
        line=line,
        id=f"vqa-rad-{identifier(row.get('qid'), 'qid')}",
        parts=(ImageFile(path=path), required_text(row.get("question"), "question")),
        answer=answer,
        options=options,
        answer_type=kind,
        modality=named(modality, MODALITY_NAMES, f"modality of image_organ {organ!r}"),
        task=named(_VQA_RAD_TASKS[first], TASK_NAMES, "task"),
        source=source_of(row, defaults, "vqa-rad"),
        license=licence_of(row, defaults, _KNOWN_LICENCES["vqa-rad"].get(file, "")),
        group=image,
        attributes={
            "split": split,
            "organ": organ.casefold(),
            "official_answer_type": str(row.get("answer_type", "")).strip(),
            "question_type": str(row.get("question_type", "")).strip(),
            "phrase_type": str(row.get("phrase_type", "")).strip(),
        },
    )


def _pubmedqa(row: Mapping[str, Any], file: str, line: int, root: Path, defaults: Defaults, split: str) -> Draft:
    contexts = texts(row.get("CONTEXTS"), "CONTEXTS")
    pmid = identifier(row.get("pmid"), "pmid")
    return Draft(
        file=file,
        line=line,
        id=f"pubmedqa-{pmid}",
        parts=("\n".join(contexts) + "\n", required_text(row.get("QUESTION"), "QUESTION")),
        answer=required_text(row.get("final_decision"), "final_decision").casefold(),
        options=("yes", "no", "maybe"),
        answer_type="choice",
        modality="text",
        task="open",
        source=source_of(row, defaults, "pubmedqa"),
        license=licence_of(row, defaults, _KNOWN_LICENCES["pubmedqa"].get(file, "")),
        group=f"pubmed:{pmid}",
        attributes={"split": split, "year": row.get("YEAR"), "long_answer": row.get("LONG_ANSWER")},
    )


_CHOICES = "\nAnswer Choices: "


def parse_choices(question: str) -> tuple[str, tuple[str, ...]]:
    """Return (stem, options) of "stem\\nAnswer Choices: (A) one (B) two"; letters are taken in their order."""
    stem, mark, rest = question.rpartition(_CHOICES)
    if not mark or not rest.startswith("(A) "):
        raise DatasetError("the question does not end with 'Answer Choices: (A) ...'")
    options, start = [], 4
    for letter in "BCDEFGHIJKLMNOPQRSTUVWXYZ":
        end = rest.find(f" ({letter}) ", start)
        if end < 0:
            break
        options.append(rest[start:end].strip())
        start = end + 5
    return stem.strip(), (*options, rest[start:].strip())


def _text_mcq(row: Mapping[str, Any], file: str, line: int, root: Path, defaults: Defaults, split: str) -> Draft:
    subset = Path(file).stem
    stem, options = parse_choices(required_text(row.get("question"), "question"))
    label = texts(row.get("label"), "label")
    index = ord(label[0]) - ord("A") if len(label) == 1 and re.fullmatch("[A-Z]", label[0]) else -1
    if not 0 <= index < len(options):
        raise DatasetError(f"label {list(label)!r:.60} is not one letter of the {len(options)} options")
    known = subset.removesuffix("_text_sampled") if file in _KNOWN_LICENCES["text-mcq"] else subset
    name = f"{line:06d}" if given(row, "id") is None else identifier(row["id"], "id")
    subject = str(row.get("subject_name") or row.get("subject") or row.get("medical_task") or "")
    kept = ("subject", "subject_name", "topic_name", "medical_task", "body_system", "question_type")
    return Draft(
        file=file,
        line=line,
        id=f"{known}-{name}",
        parts=(stem,),
        answer=options[index],
        options=options,
        answer_type="choice",
        modality="text",
        task={"anatomy": "anatomy", "diagnosis": "diagnosis"}.get(subject.casefold(), "open"),
        source=source_of(row, defaults, known),
        license=licence_of(row, defaults, _KNOWN_LICENCES["text-mcq"].get(file, "")),
        group=f"{known}:{name}",
        attributes={"split": split or "test", **{key: row[key] for key in kept if row.get(key)}},
    )


def _read_parquet(source: Path, defaults: Defaults) -> Iterator[Draft | BadRow]:
    from .import_tables import read_parquet

    return read_parquet(source, defaults)


def _read_saved(source: Path, defaults: Defaults) -> Iterator[Draft | BadRow]:
    from .import_tables import read_saved

    return read_saved(source, defaults)


def _has(*names: str) -> Callable[[Path, frozenset[str]], bool]:
    return lambda source, keys: set(names) <= keys


LAYOUTS = (
    Layout("dataset", "a dataset folder of ours", lambda source, keys: (source / MANIFEST).is_file(), _read_dataset),
    Layout(
        "datasets",
        "a folder saved by datasets.save_to_disk, fields as in jsonl",
        lambda source, keys: (source / "state.json").is_file() or (source / "dataset_dict.json").is_file(),
        _read_saved,
    ),
    Layout("vqa-rad", "VQA-RAD: train.jsonl, test.jsonl, images/", _has("qid", "image_organ"), _rows(_vqa_rad)),
    Layout("pubmedqa", "PubMedQA: pqal_train.jsonl, ...", _has("pmid", "QUESTION", "CONTEXTS"), _rows(_pubmedqa)),
    Layout(
        "text-mcq",
        "MedQA, MedMCQA, MMLU medical, MedXpertQA-Text: 'Answer Choices: (A) ...' and label",
        lambda source, keys: {"question", "label"} <= keys and "answer" not in keys,
        _rows(_text_mcq),
    ),
    Layout(
        "jsonl",
        "plain rows: id, image(s) or content, question, options, answer, modality, task, source, license, patient",
        lambda source, keys: "answer" in keys and bool(files_of(source, ".jsonl")),
        _rows(plain_draft),
    ),
    Layout(
        "parquet",
        "Parquet files, fields as in jsonl, images as paths or {bytes}",
        lambda source, keys: bool(files_of(source, ".parquet")),
        _read_parquet,
    ),
)


def layout_of(source: Path, name: str | None = None) -> Layout:
    """Return the layout of a source: the one named, else the first that recognises it."""
    names = ", ".join(layout.name for layout in LAYOUTS)
    if name is not None:
        found = next((layout for layout in LAYOUTS if layout.name == name), None)
        if found is None:
            raise DatasetError(f"layout {name!r} is unknown; use one of {names}")
        return found
    if not source.exists():
        raise DatasetError(f"{source} does not exist; give a folder, a .jsonl or a .parquet file")
    rows = (row for path in files_of(source, ".jsonl")[:1] for _, row in json_rows(path))
    keys: frozenset[str] = frozenset(next((row for row in rows if isinstance(row, Mapping)), {}))
    for layout in LAYOUTS:
        if layout.recognises(source, keys):
            return layout
    raise DatasetError(f"{source} is in no known layout ({names}); see docs/curation.md for the plain JSONL form")
