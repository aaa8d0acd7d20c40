"""Readers of the official rows of the benchmarks with images: one row becomes one draft.

Modality and task come from official fields alone. Where a set states none, its modality is "unknown" and its task
"open": nothing is guessed from the words of a question. Opens no file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from .benchmark_rows import (
    OutsideError,
    Place,
    Row,
    agreed,
    first_given,
    keyed,
    lettered,
    mapped,
    option_of,
    single,
    without_choices,
)
from .example import DatasetError
from .import_rows import Draft, ImageFile, identifier, required_text, texts

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


def vqa_rad(row: Row, place: Place) -> Draft:
    """Read a row with VQA-RAD's own fields. The one public file tells test rows by phrase_type ("test_freeform")."""
    image, organ = row.text("image_name"), row.text("image_organ").upper()
    if Path(image).name != image:
        raise DatasetError(f"image_name {image!r:.80} is not a plain file name")
    head = "ct" if image in _VQA_RAD_HEAD_CT else "mri"
    modality = {"CHEST": "xray", "ABD": "ct", "HEAD": head}.get(organ)
    if modality is None:
        raise DatasetError(f"image_organ {organ!r:.40} is unknown; known are CHEST, ABD, HEAD")
    answer = row.get("answer")
    question_type, phrase_type = row.text("question_type"), str(row.get("phrase_type", "")).strip()
    first = question_type.upper().split(",")[0].strip()
    if first not in _VQA_RAD_TASKS:
        raise DatasetError(f"question_type {first!r:.40} is unknown; use one of {', '.join(_VQA_RAD_TASKS)}")
    return place.draft(
        row,
        id=f"vqa-rad-{identifier(row.get('qid'), 'qid')}",
        shown=[place.image(image, "images", "VQA_RAD Image Folder")],
        question=row.text("question"),
        answer=str(answer) if isinstance(answer, int) else required_text(answer, "answer"),
        modality=modality,
        task=_VQA_RAD_TASKS[first],
        group=image,
        split=place.split or ("test" if phrase_type.startswith("test") else "train" if phrase_type else ""),
        organ=organ.casefold(),
        official_answer_type=str(row.get("answer_type", "")).strip(),
        question_type=question_type,
        phrase_type=phrase_type,
    )


def image_question_answer(row: Row, place: Place) -> Draft:
    """Read a row of VQA-RAD or PathVQA as the hub stores it: image, question and answer alone."""
    answer = row.get("answer")
    return place.draft(
        row,
        id=place.numbered(),
        shown=[place.stored(row.get("image"))],
        question=row.text("question"),
        answer=str(answer) if isinstance(answer, int) else required_text(answer, "answer"),
        modality="unknown",
        task="open",
    )


_SLAKE_MODALITIES = {"ct": "ct", "mri": "mri", "xray": "xray"}
_SLAKE_TASKS = {
    "modality": "modality", "plane": "view", "organ": "anatomy", "position": "location", "abnormality": "finding",
    "quantity": "count", "size": "size", "color": "open", "shape": "open", "kg": "open",
}  # fmt: skip


def slake(row: Row, place: Place) -> Draft:
    """Read a row of SLAKE. Chinese yes and no come in many words, so they stay open questions with exact match."""
    name = row.text("img_name")
    return place.draft(
        row,
        id=f"slake-{identifier(row.get('qid'), 'qid')}",
        shown=[place.image(name, "imgs")],
        question=row.text("question"),
        answer=row.text("answer"),
        modality=mapped(row.text("modality"), _SLAKE_MODALITIES, "modality"),
        task=mapped(row.text("content_type"), _SLAKE_TASKS, "content_type"),
        group=f"slake:{Path(name).parent.name or name}",
        subset=row.text("q_lang"),
        official_answer_type=str(row.get("answer_type", "")).strip(),
        location=row.text("location"),
        content_type=row.text("content_type"),
    )


def pmc_vqa(row: Row, place: Place) -> Draft:
    """Read a row of PMC-VQA: version 1 (Answer and Answer_label) or version 2 (Answer is the letter)."""
    options = {}
    for letter in "ABCD":
        text = row.text(f"Choice {letter}")
        options[letter] = re.sub(rf"^{letter}\s*:\s*(?=\S)", "", text)
    stated = row.text("Answer")
    label = row.text("Answer_label") if "Answer_label" in row else stated
    if "Answer_label" in row or stated in options:
        answer = keyed(options, label, "Answer_label" if "Answer_label" in row else "Answer")
        if label is not stated:
            agreed(re.sub(r"^[ABCD]\s*:\s*(?=\S)", "", stated), answer, "Answer")
    else:
        answer = option_of(stated, list(options.values()), "Answer")
    name = row.text("Figure_path")
    article = re.match(r"PMC\d+", Path(name).name)
    version = "2" if re.search(r"2$", place.path.stem) else "1-clean" if "clean" in place.path.stem else "1"
    return place.draft(
        row,
        id=f"pmc-vqa-{place.path.stem}-{place.number:06d}",
        shown=[place.image(name, "images", "figures", "images_2")],
        question=row.text("Question"),
        answer=answer,
        options=list(options.values()),
        modality="unknown",
        task="open",
        group=f"pmc:{article.group()}" if article else "",
        subset=f"version-{version}",
    )


_OMNI_MODALITIES = {
    "ct": "ct", "mr": "mri", "mri": "mri", "xray": "xray", "mammography": "xray", "ultrasound": "ultrasound",
    "fundusphotography": "fundus", "oct": "oct", "opticalcoherencetomography": "oct", "dermoscopy": "dermoscopy",
    "endoscopy": "endoscopy", "histopathology": "histopathology", "microscopyimages": "microscopy",
    "microscopy": "microscopy", "colposcopy": "other", "digitalphotography": "other",
    "infraredreflectanceimaging": "other",
}  # fmt: skip
_OMNI_TASKS = {
    "modalityrecognition": "modality", "anatomyidentification": "anatomy", "diseasediagnosis": "diagnosis",
    "lesiongrading": "grading", "otherbiologicalattributes": "open",
}  # fmt: skip


def omni_med_vqa(row: Row, place: Place) -> Draft:
    """Read a row of OmniMedVQA. One row of the official files says modality where all others say modality_type."""
    modality = first_given(row, "modality_type", "modality")
    options = [required_text(row.get(name), name) for name in _stated_options(row)]
    return place.draft(
        row,
        id=f"omnimedvqa-{identifier(row.get('question_id'), 'question_id')}",
        shown=[place.image(row.text("image_path"), "Images")],
        question=row.text("question"),
        answer=option_of(row.text("gt_answer"), options, "gt_answer"),
        options=options,
        modality=mapped(required_text(modality, "modality_type"), _OMNI_MODALITIES, "modality_type"),
        task=mapped(row.text("question_type"), _OMNI_TASKS, "question_type"),
        subset=next((name for name in place.folders if name.endswith("-access")), ""),
        split=place.split or "test",
        modality_type=str(modality),
        question_type=row.text("question_type"),
    )


def _stated_options(row: Row) -> list[str]:
    """Return the names of the options that a row has: D, or C and D, may be missing; a gap may not."""
    names = [f"option_{letter}" for letter in "ABCD"]
    held = [isinstance(text := row.get(name), str) and bool(text.strip()) for name in names]
    if held != sorted(held, reverse=True):
        raise DatasetError(f"{names[held.index(False)]} is empty before an option that is not")
    return [name for name, there in zip(names, held, strict=True) if there]


MMMU_SUBJECTS = (
    "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health",
)  # fmt: skip
# "Body Scans: MRI, CT Scans, and X-rays" and "Medical Images" leave open which of our modalities they are.
_MMMU_MODALITIES = {
    "microscopicimages": "microscopy", "pathologicalimages": "histopathology", "medicalimages": "unknown",
    "bodyscansmrictscansandxrays": "unknown",
}  # fmt: skip
_MMMU_ID = re.compile(r"(dev|validation|test)_(.+)_(\d+)")
_MARK = re.compile(r"<image (\d)>")


def mmmu(row: Row, place: Place) -> Draft:
    """Read a row of MMMU, of the five subjects of Health & Medicine. A withheld answer ("?") refuses the row."""
    name = row.text("id")
    parts = _MMMU_ID.fullmatch(name)
    if parts is None:
        raise DatasetError(f"id {name!r:.60} is not <split>_<subject>_<number>")
    split, subject = parts.group(1), parts.group(2)
    if subject not in MMMU_SUBJECTS:
        raise OutsideError(f"subject {subject} is not of Health & Medicine")
    stated, kind = row.text("answer"), row.text("question_type")
    if stated == "?":
        raise DatasetError("the answer is withheld ('?'): the test split is scored by its makers alone")
    options = _literal_list(row.get("options"), "options")
    types = _literal_list(row.text("img_type"), "img_type")
    modalities = {_MMMU_MODALITIES.get(re.sub(r"\W+", "", item.casefold()), "other") for item in types}
    if kind == "multiple-choice":
        answer, aliases = keyed(lettered(options, "options"), stated, "answer"), []
    elif kind == "open":
        answer, *aliases = _literal_list(stated, "answer")
        options = []
    else:
        raise DatasetError(f"question_type {kind!r:.40} is unknown; known are multiple-choice, open")
    shown, question = _mmmu_shown(row, place, row.text("question"), options)
    return place.draft(
        row,
        id=f"mmmu-{name}",
        shown=shown,
        question=question,
        answer=answer,
        options=options,
        aliases=aliases,
        modality=modalities.pop() if len(modalities) == 1 else "unknown",
        task="open",
        subset=subject,
        split=split,
        img_type=", ".join(types),
    )


def _mmmu_shown(row: Row, place: Place, question: str, options: list[str]) -> tuple[list[ImageFile | str], str]:
    """Return what is shown before the question, and the question.

    A single picture that the question names at its begin or end stands before it, without the mark. Else every picture
    stands before the question under its mark, and the marks stay where the text has them.
    """
    pictures = {n: place.stored(value) for n in range(1, 8) if (value := row.get(f"image_{n}")) is not None}
    named = [int(number) for number in _MARK.findall(" ".join((question, *options)))]
    missing = sorted(set(named) - set(pictures))
    if missing:
        raise DatasetError(f"the text names <image {missing[0]}> and image_{missing[0]} is empty")
    bare = _MARK.sub("", question).strip()
    outer = re.match(r"\s*<image \d>", question) or re.search(r"<image \d>\s*$", question)
    if len(pictures) == 1 and len(named) <= 1 and bare and (not named or outer):
        return list(pictures.values()), bare
    shown: list[ImageFile | str] = []
    for number, picture in pictures.items():
        shown += [f"<image {number}>", picture]
    return shown, question


def _literal_list(value: object, field: str) -> list[str]:
    """Return a list of texts that is stored as one, as the text of a Python list, or as a single text."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise DatasetError(f"{field} is no list of texts: {value!r:.60}") from None
        value = [item if isinstance(item, str) else str(item) for item in value] if isinstance(value, list) else value
    return list(texts(value, field))


_MEDXPERT_TASKS = {"diagnosis": "diagnosis", "treatment": "open", "basicscience": "open", "basicmedicine": "open"}


def medxpertqa(row: Row, place: Place) -> Draft:
    """Read a row of MedXpertQA: of the hub (options by letter), or of its evaluation inputs (letter, content)."""
    name, options = row.text("id"), lettered(row.get("options"), "options")
    images = row.get("images") or []
    if not isinstance(images, (list, tuple)):
        raise DatasetError(f"images is a list, not {images!r:.60}")
    subset = "MM" if name.startswith("MM") else "Text"
    if bool(images) != (subset == "MM"):
        raise DatasetError(f"{name!r:.40} has {len(images)} images: those of MM have some, those of Text none")
    shown = [
        place.stored(item.get("image_path", item) if isinstance(item, Mapping) else item, "images") for item in images
    ]
    return place.draft(
        row,
        id=f"medxpertqa-{name}",
        shown=shown,
        question=without_choices(row.text("question")),
        answer=keyed(options, single(row.get("label"), "label"), "label"),
        options=list(options.values()),
        modality="unknown" if images else "text",
        task=mapped(row.text("medical_task"), _MEDXPERT_TASKS, "medical_task"),
        group="" if images else f"medxpertqa:{name}",
        subset=subset,
        medical_task=row.text("medical_task"),
        body_system=row.text("body_system"),
        question_type=row.text("question_type"),
    )
