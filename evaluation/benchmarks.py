"""The benchmarks that can be brought in: one row each, with fields, split, licence and how modality and task are found.

Only local files are read; nothing is ever fetched. The readers of rows stand in benchmark_images.py and
benchmark_texts.py; another benchmark is one more row here and one more reader there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .. import InfimedError
from . import benchmark_images as images
from . import benchmark_texts as text
from .benchmark_rows import OutsideError, Place, ReadRow, Row
from .example import DatasetError, Role
from .import_files import all_files, family_of, first_keys, rows_of, split_of
from .import_rows import BadRow, Defaults, Draft

KeysOf = Callable[[Path], tuple[frozenset[str], ...]]
"""first_keys, remembered while a source is looked at: a large JSON file is parsed once for all benchmarks."""
_HUB = ("*-?????-of-?????.parquet", "*-?????-of-?????.arrow")


@dataclass(frozen=True)
class Form:
    """One way in which the rows of a benchmark are stored.

    keys: fields that its rows have. files: the names under which it is published, for the licence. telling: the fields
    alone tell the benchmark; else it is read only where its name is given. columns: of CSV files without a header.
    survey: looks at all rows of a file first; what it finds goes to every row's Place.
    """

    keys: tuple[str, ...]
    read: ReadRow
    files: tuple[str, ...]
    telling: bool = True
    columns: tuple[str, ...] = ()
    survey: Callable[[Path, Path, Iterable[Any]], Any] | None = None

    def fits(self, path: Path, keys_of: KeysOf) -> bool:
        """Return whether one of a file's first rows has the fields."""
        if self.columns:
            return any(fnmatchcase(path.name, pattern) for pattern in self.files)
        return any(set(self.keys) <= keys for keys in keys_of(path))


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. splits: its official splits and the role each takes under the official split.

    modality, task: the rule by which they are found. subsets: what a subset is; exclusive: subsets hold the same
    questions, so that only one may be brought in. home: where the official files come from.
    """

    name: str
    title: str
    forms: tuple[Form, ...]
    splits: Mapping[str, Role]
    license: str
    home: str
    modality: str
    task: str
    subsets: str = ""
    exclusive: bool = False


@dataclass
class Aside:
    """What a reading left aside without fault: files without rows of the benchmark, and rows outside it by reason."""

    files: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)


_USUAL: Mapping[str, Role] = {"train": "train", "validation": "search", "test": "test"}
_UNSTATED = "unknown: no field states it"

BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "mmmu", "MMMU, Health & Medicine",
        (Form(("img_type", "subfield", "question_type", "image_1", "options"), images.mmmu, _HUB),),
        {"dev": "train", "validation": "test", "test": ""},
        "Apache-2.0", "huggingface.co/datasets/MMMU/MMMU, the folders of the five subjects",
        "img_type: microscopic and pathological images; body scans and medical images are unknown, all else other",
        "open", subsets="the subject",
    ),
    Benchmark(
        "vqa-rad", "VQA-RAD",
        (
            Form(
                ("qid", "image_name", "image_organ", "question_type"), images.vqa_rad,
                ("train.jsonl", "test.jsonl", "trainset.json", "testset.json", "VQA_RAD Dataset Public.json"),
            ),
            Form(("image", "question", "answer"), images.image_question_answer, _HUB, telling=False),
        ),
        {"train": "train", "test": "test"},
        "CC0-1.0", "osf.io/89kps; huggingface.co/datasets/flaviagiammarino/vqa-rad has image, question, answer alone",
        "image_organ: CHEST xray, ABD ct, HEAD mri but for 13 images looked at; unknown in the hub's form",
        "the first question_type; open in the hub's form",
    ),
    Benchmark(
        "slake", "SLAKE, English and Chinese",
        (
            Form(
                ("img_name", "q_lang", "content_type", "modality", "qid"), images.slake,
                ("train.json", "validation.json", "validate.json", "test.json"),
            ),
        ),
        _USUAL, "CC-BY-4.0 (unverified)",
        "med-vqa.com/slake; huggingface.co/datasets/BoKelvin/SLAKE with imgs.zip unpacked",
        "modality", "content_type; Color, Shape and KG are open", subsets="q_lang: en, zh",
    ),
    Benchmark(
        "path-vqa", "PathVQA",
        (Form(("image", "question", "answer"), images.image_question_answer, _HUB, telling=False),),
        _USUAL, "MIT (card), images under their publishers' copyright",
        "huggingface.co/datasets/flaviagiammarino/path-vqa; the makers' pickles are never opened",
        _UNSTATED, "open",
    ),
    Benchmark(
        "pmc-vqa", "PMC-VQA",
        (
            Form(
                ("Figure_path", "Question", "Choice A", "Choice B", "Choice C", "Choice D", "Answer"), images.pmc_vqa,
                ("train.csv", "test.csv", "test_clean.csv", "train_2.csv", "test_2.csv", "train2.csv", "test2.csv"),
            ),
        ),
        {"train": "train", "test": "test"},
        "CC-BY-SA", "huggingface.co/datasets/xmcmic/PMC-VQA with images.zip or images_2.zip unpacked",
        _UNSTATED, "open", subsets="version-1, version-1-clean, version-2", exclusive=True,
    ),
    Benchmark(
        "omnimedvqa", "OmniMedVQA",
        (
            Form(
                ("question_id", "gt_answer", "option_A", "image_path", "question_type"), images.omni_med_vqa,
                ("*.json",),
            ),
        ),
        {"test": "test"},
        "per source set (OmniMedVQA)", "huggingface.co/datasets/foreverbeliever/OmniMedVQA, OmniMedVQA.zip unpacked",
        "modality_type; colposcopy, digital photography and infrared reflectance are other",
        "question_type; Other Biological Attributes are open", subsets="Open-access, Restricted-access",
    ),
    Benchmark(
        "medxpertqa", "MedXpertQA, MM and Text",
        (
            Form(
                ("medical_task", "body_system", "options", "label"), images.medxpertqa,
                ("dev.jsonl", "test.jsonl", "medxpertqa_*.jsonl"),
            ),
        ),
        {"dev": "train", "test": "test"},
        "MIT", "huggingface.co/datasets/TsinghuaC3I/MedXpertQA with images.zip unpacked",
        "text without images; unknown with images, for no field states it",
        "medical_task: Diagnosis; treatment and basic medicine are open", subsets="MM, Text",
    ),
    Benchmark(
        "pubmedqa", "PubMedQA",
        (
            Form(
                ("QUESTION", "CONTEXTS", "final_decision"), text.pubmedqa,
                ("pqal_train.jsonl", "pqal_test.jsonl", "ori_pqal.json", "ori_pqaa.json", "*_set.json"),
                survey=text.pubmedqa_test_ids,
            ),
            Form(
                ("pubid", "question", "context", "final_decision"), text.pubmedqa, _HUB,
                survey=text.pubmedqa_test_ids,
            ),
        ),
        _USUAL, "MIT",
        "github.com/pubmedqa/pubmedqa; huggingface.co/datasets/qiaojin/PubMedQA and test_ground_truth.json",
        "text", "open", subsets="pqa_labeled, pqa_artificial",
    ),
    Benchmark(
        "medqa", "MedQA (USMLE and others)",
        (
            Form(
                ("question", "options", "answer_idx"), text.medqa,
                ("phrases_*.jsonl", "train.jsonl", "dev.jsonl", "test.jsonl"),
            ),
            Form(("sent1", "ending0", "ending3", "label"), text.medqa, _HUB, telling=False),
        ),
        _USUAL, "MIT", "github.com/jind11/MedQA; huggingface.co/datasets/GBaker/MedQA-USMLE-4-options",
        "text", "open", subsets="region and number of options, as in US-4-options", exclusive=True,
    ),
    Benchmark(
        "medmcqa", "MedMCQA",
        (
            Form(
                ("opa", "opb", "opc", "opd", "question"), text.medmcqa,
                (*_HUB, "train.json", "dev.json", "test.json"), survey=text.medmcqa_first,
            ),
        ),
        {"train": "train", "validation": "test", "test": ""},
        "MIT", "github.com/medmcqa/medmcqa; huggingface.co/datasets/openlifescienceai/medmcqa (card: Apache-2.0)",
        "text", "subject_name Anatomy; all else open",
    ),
    Benchmark(
        "mmlu-medical", "MMLU, six medical subjects",
        (
            Form(("question", "subject", "choices", "answer"), text.mmlu, _HUB),
            Form(
                text.MMLU_COLUMNS, text.mmlu,
                tuple(f"{name}_{split}.csv" for name in text.MMLU_SUBJECTS for split in ("dev", "val", "test")),
                columns=text.MMLU_COLUMNS,
            ),
        ),
        {"dev": "train", "validation": "search", "test": "test"},
        "MIT", "github.com/hendrycks/test; huggingface.co/datasets/cais/mmlu",
        "text", "subject anatomy; all else open", subsets="the subject",
    ),
    Benchmark(
        "text-mcq", "MedQA, MedMCQA, MMLU and MedXpertQA as MedXpertQA's makers evaluate them",
        (
            Form(
                ("question", "label"), text.text_input,
                (
                    "medmcqa.jsonl", "medqa.jsonl", "mmlu_medical.jsonl", "medxpertqa_text_sampled.jsonl",
                    "*_input.jsonl",
                ),
                telling=False,
            ),
        ),
        {"train": "train", "validation": "test", "test": "test"},
        "MIT", "github.com/TsinghuaC3I/MedXpertQA, eval/data",
        "text", "subject anatomy, medical_task Diagnosis; all else open", subsets="the set",
    ),
)  # fmt: skip


def benchmark_named(name: str) -> Benchmark | None:
    """Return the benchmark of a name, None where there is none."""
    return next((row for row in BENCHMARKS if row.name == name), None)


def recognised(source: Path, first: Benchmark | None = None) -> Benchmark | None:
    """Return the benchmark whose fields the files of a source have, None where they are of none.

    first: the one that is meant where no telling field stands in the first file. Raises DatasetError where files of two
    benchmarks lie in one folder. A file that cannot be read shows nothing here.
    """
    found: dict[str, Benchmark] = {}
    keys_of = functools.cache(first_keys)
    for path in all_files(source):
        shown = [row for row in BENCHMARKS if _tells(row, path, keys_of)]
        if not shown and first is not None and not found and any(form.fits(path, keys_of) for form in first.forms):
            return first
        found.update((row.name, row) for row in shown)
    if len(found) > 1:
        raise DatasetError(f"{source} holds files of {' and '.join(found)}; name one of them with --layout")
    return next(iter(found.values()), None)


def _form_of(benchmark: Benchmark, path: Path, keys_of: KeysOf = first_keys) -> Form | None:
    """Return the form of a file, None where it has none; a CSV file without a header is known by its name alone."""
    headless = any(form.columns for form in benchmark.forms) and path.suffix == ".csv"
    return next((form for form in benchmark.forms if bool(form.columns) == headless and form.fits(path, keys_of)), None)


def _tells(benchmark: Benchmark, path: Path, keys_of: KeysOf) -> bool:
    try:
        form = _form_of(benchmark, path, keys_of)
        return form is not None and form.telling
    except InfimedError:
        return False


def read_benchmark(
    benchmark: Benchmark, source: Path, defaults: Defaults, aside: Aside, subset: str = ""
) -> Iterator[Draft | BadRow]:
    """Yield the drafts and bad rows of a source, files in the order of their names; `aside` is filled on the way.

    subset: keep only these rows. Raises DatasetError where no file has rows of the benchmark, where a file is
    malformed, or where exclusive subsets meet.
    """
    root = source if source.is_dir() else source.parent
    counted: dict[tuple[Path, str], int] = {}
    seen: set[str] = set()
    keep_dev = "dev" in benchmark.splits
    for path in all_files(source):
        form = _form_of(benchmark, path)
        if form is None:
            aside.files.append(path.relative_to(root).as_posix())
            continue
        published = any(fnmatchcase(path.name, pattern) for pattern in form.files)
        found = form.survey(path, root, (row for _, row in rows_of(path))) if form.survey else None
        family, split = family_of(path), split_of(path, root, keep_dev=keep_dev)
        for line, row in rows_of(path, form.columns):
            counted[family] = number = counted.get(family, 0) + 1
            place = Place(
                benchmark.name, path, root, line, number, split, benchmark.license if published else "", defaults, found
            )
            draft = _read_row(form, row, place, aside)
            if isinstance(draft, Draft):
                held = str(draft.attributes.get("subset", ""))
                if subset and held != subset:
                    aside.rows[f"subset {held or '(none)'}"] = aside.rows.get(f"subset {held or '(none)'}", 0) + 1
                    continue
                seen.add(held)
                if benchmark.exclusive and len(seen) > 1:
                    raise DatasetError(
                        f"{source} holds {benchmark.title} as {' and '.join(sorted(seen))}, which share questions; "
                        "choose one with --subset"
                    )
            if draft is not None:
                yield draft
    if not counted:
        _refuse(benchmark, source, aside)


def _read_row(form: Form, row: object, place: Place, aside: Aside) -> Draft | BadRow | None:
    if isinstance(row, BadRow):
        return row
    if not isinstance(row, Mapping):
        return BadRow(place.path.name, place.line, "", f"a row is an object, not {type(row).__name__}")
    try:
        return form.read(Row(row), place)
    except OutsideError as error:
        aside.rows[str(error)] = aside.rows.get(str(error), 0) + 1
        return None
    except DatasetError as error:
        name = next((row[key] for key in ("id", "qid", "question_id", "pmid", "pubid", "#") if row.get(key)), "")
        return BadRow(place.path.name, place.line, f"{name!s:.200}", str(error))


def _refuse(benchmark: Benchmark, source: Path, aside: Aside) -> None:
    wanted = " or ".join(f"({', '.join(form.keys)})" for form in benchmark.forms)
    first = next(iter(all_files(source)), None)
    if first is None:
        pickles = any(source.rglob("*.pkl")) if source.is_dir() else source.suffix == ".pkl"
        more = "; pickle files are never opened" if pickles else ""
        raise DatasetError(f"{source} has no .jsonl, .json, .csv, .parquet or .arrow file{more}")
    lacks = min((sorted(set(form.keys).difference(*first_keys(first))) for form in benchmark.forms), key=len)
    raise DatasetError(
        f"{source}: no file has the fields of {benchmark.title}: {wanted}; {aside.files[0]} lacks {', '.join(lacks)}"
    )
