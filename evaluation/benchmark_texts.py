"""Readers of the official rows of the benchmarks without images: one row becomes one draft.

The modality is text. The task is what an official field says (a subject "anatomy", a task "diagnosis"), else open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .benchmark_rows import (
    OutsideError,
    Place,
    Row,
    agreed,
    first_given,
    indexed,
    keyed,
    lettered,
    single,
    without_choices,
)
from .example import DatasetError
from .import_files import KEY
from .import_rows import Draft, identifier, required_text, texts

_TASKS = {"anatomy": "anatomy", "diagnosis": "diagnosis"}
TEST_IDS = "test_ground_truth.json"  # of PubMedQA: the official 500 of 1,000


def pubmedqa(row: Row, place: Place) -> Draft:
    """Read a row of PubMedQA: a line with pmid, an entry of ori_pqal.json by its id, or a row of the hub.

    The hub and ori_pqal.json state no split: rows are test where test_ground_truth.json, in the row's folder or one
    above it up to the source, lists them, train where it does not, and without a split where there is no such file.
    """
    context = row.get("context")
    held = context.get("contexts") if isinstance(context, Mapping) else first_given(row, "CONTEXTS")
    contexts = texts(held, "CONTEXTS")
    if not contexts:
        raise DatasetError("CONTEXTS is empty: there is no abstract to ask about")
    pmid = identifier(first_given(row, "pmid", "pubid", KEY), "pmid")
    hub = "final_decision" in row and "pubid" in row
    split = place.split if place.split and not hub else _test_or_train(place, pmid)
    return place.draft(
        row,
        id=f"pubmedqa-{pmid}",
        shown=["\n".join(contexts) + "\n"],
        question=required_text(first_given(row, "QUESTION", "question"), "QUESTION"),
        answer=row.text("final_decision").casefold(),
        options=("yes", "no", "maybe"),
        kind="choice",
        modality="text",
        task="open",
        group=f"pubmed:{pmid}",
        subset=next((name for name in place.folders if name.startswith("pqa_")), ""),
        split=split,
        year=row.get("YEAR"),
        long_answer=first_given(row, "LONG_ANSWER", "long_answer"),
    )


def _test_or_train(place: Place, pmid: str) -> str:
    ids = place.found
    return "" if ids is None else "test" if pmid in ids else "train"


def pubmedqa_test_ids(path: Path, root: Path, rows: Iterable[Any]) -> frozenset[str] | None:
    """Return the ids of the official test split, None where no file tells them; raises DatasetError if it is broken."""
    for folder in (path.parent, *path.parent.parents):
        if folder != root and root not in folder.parents:
            return None
        if (folder / TEST_IDS).is_file():
            try:
                told = json.loads((folder / TEST_IDS).read_bytes())
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{folder / TEST_IDS}: not JSON ({error!s:.80})") from None
            if not isinstance(told, Mapping) or not told:
                raise DatasetError(f"{folder / TEST_IDS}: it is an object of ids, not {type(told).__name__}")
            return frozenset(map(str, told))
    return None


def medqa(row: Row, place: Place) -> Draft:
    """Read a row of MedQA (options by letter and answer_idx) or of its hub form (sent1, ending0 .. ending3, label)."""
    if "sent1" in row:
        question = " ".join(text for name in ("sent1", "sent2") if (text := str(row.get(name) or "").strip()))
        endings = [row.text(f"ending{number}") for number in range(4)]
        options, answer = endings, indexed(endings, row.get("label"), "label")
        stated = row.get("id")
    else:
        held = lettered(row.get("options"), "options")
        question, options = row.text("question"), list(held.values())
        answer, stated = keyed(held, row.get("answer_idx"), "answer_idx"), None
        if "answer" in row:
            agreed(row.text("answer"), answer, "answer")
    region = next((name for name in place.folders if name in ("US", "Mainland", "Taiwan")), "US")
    subset = f"{region}-{len(options)}-options"
    name = place.numbered(subset) if stated is None else f"medqa-{identifier(stated, 'id')}"
    return place.draft(
        row,
        id=name,
        question=required_text(question, "question"),
        answer=answer,
        options=options,
        modality="text",
        task="open",
        group=f"medqa:{name}",
        subset=subset,
    )


def medmcqa(row: Row, place: Place) -> Draft:
    """Read a row of MedMCQA. cop counts from 1 in its own files and from 0 in the hub's; see medmcqa_first."""
    name = identifier(row.get("id"), "id")
    options = [row.text(field) for field in ("opa", "opb", "opc", "opd")]
    key = row.get("cop")
    if key in (None, "", -1, "-1"):
        raise DatasetError("the answer is withheld (no cop): the test split is scored by its makers alone")
    subject = str(row.get("subject_name") or "").strip()
    return place.draft(
        row,
        id=f"medmcqa-{name}",
        question=row.text("question"),
        answer=indexed(options, key, "cop", place.found),
        options=options,
        modality="text",
        task=_TASKS.get(subject.casefold(), "open"),
        group=f"medmcqa:{name}",
        subject_name=subject,
    )


def medmcqa_first(path: Path, root: Path, rows: Iterable[Any]) -> int:
    """Return the number of option A in a file: 0 where some cop is 0, 1 where some cop is 4.

    A file with neither counts as its kind does: from 0 in Parquet and Arrow (the hub), from 1 in JSON and CSV (its
    makers). Raises DatasetError for a file that has both.
    """
    keys = {str(row.get("cop")).strip().removesuffix(".0") for row in rows if isinstance(row, Mapping)}
    if {"0", "4"} <= keys:
        raise DatasetError(f"{path}: cop runs from 0 and up to 4, so it cannot be told which number option A has")
    if "0" in keys:
        return 0
    return 1 if "4" in keys or path.suffix not in (".parquet", ".arrow") else 0


# The six subjects that medical reports of MMLU mean.
MMLU_SUBJECTS = (
    "anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics", "professional_medicine",
)  # fmt: skip
MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")


def mmlu(row: Row, place: Place) -> Draft:
    """Read a row of MMLU: of the hub (subject, choices, answer 0 .. 3) or of its CSV files (named by the subject)."""
    if "choices" in row:
        subject = row.text("subject")
        held = lettered(row.get("choices"), "choices")
        answer = indexed(list(held.values()), row.get("answer"), "answer")
    else:
        subject = re.sub(r"_(dev|val|test)$", "", place.path.stem)
        held = {letter: row.text(letter) for letter in "ABCD"}
        answer = keyed(held, row.text("answer").upper(), "answer")
    if subject not in MMLU_SUBJECTS:
        raise OutsideError(f"subject {subject} is not one of the six medical ones")
    if place.path.parent.name == "all" and (place.path.parent.parent / subject).is_dir():
        raise OutsideError("the row stands in all/ and in its subject's folder too")
    return place.draft(
        row,
        id=place.numbered(subject),
        question=row.text("question"),
        answer=answer,
        options=list(held.values()),
        modality="text",
        task=_TASKS.get(subject, "open"),
        group=f"{place.numbered(subject)}",
        subset=subject,
        subject=subject,
    )


# The evaluation inputs of MedXpertQA's makers: four sets in one form, by the names of their files.
_INPUTS = {
    "medxpertqa_text_sampled": "medxpertqa", "medxpertqa_sampled_text_input": "medxpertqa",
    "medxpertqa_text_input": "medxpertqa", "medmcqa_input": "medmcqa", "medqa_input": "medqa",
    "mmlu_medical_input": "mmlu_medical",
}  # fmt: skip


def parse_choices(question: str) -> tuple[str, tuple[str, ...]]:
    """Return (stem, options) of "stem\\nAnswer Choices: (A) one (B) two"; letters are taken in their order."""
    stem, mark, rest = question.rpartition("\nAnswer Choices: ")
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


def text_input(row: Row, place: Place) -> Draft:
    """Read a row whose options stand in the question and whose label is a letter."""
    question = row.text("question")
    if row.get("options"):
        options = tuple(lettered(row.get("options"), "options").values())
        stem = without_choices(question)
    else:
        stem, options = parse_choices(question)
    label = single(row.get("label"), "label")
    answer = keyed(dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", options, strict=False)), label, "label")
    known = _INPUTS.get(place.path.stem, place.path.stem)
    name = identifier(row["id"], "id") if row.get("id") not in (None, "") else f"{place.line:06d}"
    subject = str(first_given(row, "subject_name", "subject", "medical_task") or "")
    kept = {field: row.get(field) for field in ("subject", "subject_name", "medical_task")}
    return place.draft(
        row,
        id=f"{known}-{name}",
        question=stem,
        answer=answer,
        options=options,
        kind="choice",
        modality="text",
        task=_TASKS.get(subject.casefold(), "open"),
        group=f"{known}:{name}",
        source=known,
        split=place.split or ("validation" if known == "medmcqa" else "test"),
        **{field: value for field, value in kept.items() if isinstance(value, str)},
    )
