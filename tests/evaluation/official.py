"""Tiny sets in the official layouts of the benchmarks: fields as published, questions and pictures of our own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Rows = list[dict[str, Any]]


def picture(seed: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def stored(seed: int) -> dict[str, Any]:
    """An image as the hub stores it."""
    return {"bytes": picture(seed), "path": None}


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    put(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def array(path: Path, rows: Any) -> None:
    put(path, json.dumps(rows, ensure_ascii=False).encode())


def table(path: Path, rows: Sequence[Mapping[str, Any]], header: bool = True) -> None:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]))
    if header:
        writer.writeheader()
    writer.writerows(rows)
    put(path, stream.getvalue().encode())


def parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def mmmu(root: Path) -> None:
    common: dict[str, Any] = {f"image_{n}": None for n in range(1, 8)}
    common |= {"explanation": "", "topic_difficulty": "Easy", "subfield": "x"}
    one: Rows = [
        {
            **common, "id": "validation_Clinical_Medicine_1", "question": "<image 1> What is shown?", "answer": "B",
            "options": "['a bone', 'a lung']", "question_type": "multiple-choice",
            "img_type": "['Microscopic Images']", "image_1": stored(1),
        },
        {
            **common, "id": "validation_Clinical_Medicine_2", "question": "Compare <image 1> with <image 2>.",
            "answer": "['1/2', '0.5']", "options": "[]", "question_type": "open",
            "img_type": "['Body Scans: MRI, CT scans, and X-rays']", "image_1": stored(2), "image_2": stored(3),
        },
        {
            **common, "id": "validation_Clinical_Medicine_3", "question": "Which picture?", "answer": "A",
            "options": '["<image 1>", "<image 2>"]', "question_type": "multiple-choice",
            "img_type": "['Diagrams']", "image_1": stored(4), "image_2": stored(5),
        },
    ]  # fmt: skip
    parquet(root / "Clinical_Medicine" / "validation-00000-of-00001.parquet", one)
    parquet(root / "Clinical_Medicine" / "test-00000-of-00001.parquet",
            [{**one[0], "id": "test_Clinical_Medicine_1", "answer": "?"}])  # fmt: skip
    parquet(root / "Music" / "dev-00000-of-00001.parquet", [{**one[0], "id": "dev_Music_1"}])


def vqa_rad(root: Path) -> None:
    """The one public file of OSF: test rows are told by phrase_type."""
    base = {"image_organ": "CHEST", "answer_type": "CLOSED", "question_type": "PRES", "evaluation": "evaluated",
            "question_rephrase": "NULL", "image_case_url": "https://medpix/1"}  # fmt: skip
    array(
        root / "VQA_RAD Dataset Public.json",
        [
            {**base, "qid": "1", "phrase_type": "freeform", "image_name": "synpic1.jpg", "question": "Is a mass there?",
             "answer": "Yes"},
            {**base, "qid": "2", "phrase_type": "test_freeform", "image_name": "synpic1.jpg", "question": "Where?",
             "answer": "left", "question_type": "POS", "answer_type": "OPEN"},
            {**base, "qid": "3", "phrase_type": "freeform", "image_name": "synpic2.jpg", "image_organ": "HEAD",
             "question": "How many?", "answer": 2, "question_type": "COUNT"},
        ],
    )  # fmt: skip
    for number in (1, 2):
        put(root / "VQA_RAD Image Folder" / f"synpic{number}.jpg", picture(number, "JPEG"))


def hub_image_rows(root: Path) -> None:
    """VQA-RAD and PathVQA as the hub stores them: two shards of one split and another split."""
    answers = ("yes", "fat")
    rows = [{"image": stored(n), "question": f"Is it {n}?", "answer": answer} for n, answer in enumerate(answers)]
    parquet(root / "data" / "test-00000-of-00002.parquet", rows[:1])
    parquet(root / "data" / "test-00001-of-00002.parquet", rows[1:])
    parquet(root / "data" / "train-00000-of-00001.parquet", rows[:1])


def slake(root: Path) -> None:
    base = {"img_id": 1, "img_name": "xmlab1/source.jpg", "location": "Lung", "modality": "X-Ray",
            "answer_type": "CLOSED", "base_type": "vqa", "triple": ["vhead", "_", "_"]}  # fmt: skip
    array(
        root / "test.json",
        [
            {**base, "question": "Is the lung healthy?", "answer": "No", "q_lang": "en", "qid": 11,
             "content_type": "Abnormality"},
            {**base, "question": "肺健康吗?", "answer": "不健康", "q_lang": "zh", "qid": 12,
             "content_type": "Abnormality"},
        ],
    )  # fmt: skip
    array(root / "train.json", [{**base, "img_name": "xmlab2/source.jpg", "modality": "MRI", "question": "Which plane?",
                                 "answer": "Transverse Plane", "q_lang": "en", "qid": 1, "content_type": "Plane",
                                 "answer_type": "OPEN"}])  # fmt: skip
    put(root / "imgs" / "xmlab1" / "source.jpg", picture(1, "JPEG"))
    put(root / "imgs" / "xmlab2" / "source.jpg", picture(2, "JPEG"))


def _choices(names: Sequence[str]) -> dict[str, str]:
    return {f"Choice {letter}": f" {letter}:{name}" for letter, name in zip("ABCD", names, strict=True)}


def pmc_vqa(root: Path) -> None:
    """Version 2, whose Answer is the letter."""
    row = {"index": 0, "Figure_path": "PMC123_Fig1_2.jpg", "Caption": "A figure.", "Question": "What is it?",
           **_choices(("a cell", "a vessel", "a nerve", "a bone")), "Answer": "B", "split": "test"}  # fmt: skip
    table(root / "test_2.csv", [row, {**row, "index": 1, "Question": "What, again?", "Answer": "D"}])
    put(root / "images" / "PMC123_Fig1_2.jpg", picture(1, "JPEG"))


def pmc_vqa_1(root: Path) -> None:
    """Version 1, whose Answer is the text and whose Answer_label is the letter."""
    row = {"Figure_path": "PMC9_F1.jpg", "Question": "What uptake?", "Answer": "Focal",
           **_choices(("Diffuse", "Focal", "None", "Unclear")), "Answer_label": "B"}  # fmt: skip
    table(root / "train.csv", [row])
    put(root / "images" / "PMC9_F1.jpg", picture(3, "JPEG"))


def omnimedvqa(root: Path) -> None:
    base = {"dataset": "ACRIMA", "question_id": "ACRIMA_0001", "question_type": "Modality Recognition",
            "question": "Which modality?", "gt_answer": "Fundus photography", "image_path": "Images/ACRIMA/1.png",
            "option_A": "CT", "option_B": "fundus photography.", "option_C": "MRI", "option_D": "X-ray",
            "modality_type": "Fundus Photography"}  # fmt: skip
    array(
        root / "QA_information" / "Open-access" / "ACRIMA.json",
        [
            base,
            {
                "dataset": "ACRIMA", "question_id": "ACRIMA_0002", "question_type": "Disease Diagnosis",
                "question": "Is there glaucoma?", "gt_answer": "No", "image_path": "Images/ACRIMA/1.png",
                "option_A": "Yes", "option_B": "No", "modality": "MR (Mag-netic Resonance Imaging)",
            },
            {**base, "question_id": "ACRIMA_0003", "modality_type": "Colposcopy", "gt_answer": "MRI"},
        ],
    )  # fmt: skip
    put(root / "Images" / "ACRIMA" / "1.png", picture(1))


def medxpertqa(root: Path) -> None:
    base = {"label": "B", "medical_task": "Diagnosis", "body_system": "Digestive", "question_type": "Reasoning"}
    stem = "What next?\nAnswer Choices: (A) a scan (B) a test"
    lines(root / "MM" / "test.jsonl", [{**base, "id": "MM-2000", "question": stem, "images": ["MM-2000-a.jpeg"],
                                        "options": {"A": "a scan", "B": "a test"}}])  # fmt: skip
    lines(root / "Text" / "dev.jsonl", [{**base, "id": "Text-0", "question": stem, "medical_task": "Basic Science",
                                         "options": {"A": "a scan", "B": "a test"}}])  # fmt: skip
    put(root / "images" / "MM-2000-a.jpeg", picture(1, "JPEG"))


_PUBMED = {"QUESTION": "Does it help?", "CONTEXTS": ["We tried.", "It did."], "LABELS": ["A", "B"],
           "MESHES": ["Humans"], "YEAR": "2011",
           "reasoning_required_pred": "yes", "reasoning_free_pred": "yes", "final_decision": "yes",
           "LONG_ANSWER": "It did help."}  # fmt: skip


def pubmedqa(root: Path) -> None:
    array(root / "ori_pqal.json", {"101": _PUBMED, "102": {**_PUBMED, "final_decision": "maybe"}})
    array(root / "test_ground_truth.json", {"102": "maybe"})


def pubmedqa_hub(root: Path) -> None:
    row = {"pubid": 7, "question": "Does it help?", "context": {"contexts": ["We tried."], "labels": ["A"],
           "meshes": ["Humans"]}, "long_answer": "It did.", "final_decision": "no"}  # fmt: skip
    parquet(root / "pqa_labeled" / "train-00000-of-00001.parquet", [row])


_MEDQA = {"question": "Which drug?", "answer": "Ibuprofen", "options": {"A": "Aspirin", "B": "Ibuprofen"},
          "meta_info": "step1", "answer_idx": "B", "metamap_phrases": ["drug"]}  # fmt: skip


def medqa(root: Path) -> None:
    lines(root / "phrases_no_exclude_test.jsonl", [_MEDQA, {**_MEDQA, "question": "Which other drug?"}])


def medqa_hub(root: Path) -> None:
    row = {"id": "test-00000", "sent1": "Which drug?", "sent2": "", "ending0": "a", "ending1": "b", "ending2": "c",
           "ending3": "d", "label": 2}  # fmt: skip
    parquet(root / "data" / "test-00000-of-00001.parquet", [row])


_MEDMCQA = {"question": "Which nerve?", "exp": "Because.", "cop": 4, "opa": "a", "opb": "b", "opc": "c", "opd": "d",
            "subject_name": "Anatomy", "topic_name": "Limb", "id": "u-1", "choice_type": "single"}  # fmt: skip


def medmcqa(root: Path) -> None:
    """The makers' file: lines in a .json file, cop from 1."""
    lines(root / "dev.json", [_MEDMCQA, {**_MEDMCQA, "id": "u-2", "cop": 1, "subject_name": "Surgery"}])


def medmcqa_hub(root: Path) -> None:
    """The hub's file: cop from 0, and -1 where it is withheld."""
    parquet(root / "data" / "validation-00000-of-00001.parquet",
            [{**_MEDMCQA, "cop": 0}, {**_MEDMCQA, "id": "u-2", "cop": 3}])  # fmt: skip
    parquet(root / "data" / "test-00000-of-00001.parquet", [{**_MEDMCQA, "id": "u-3", "cop": -1}])


def mmlu_hub(root: Path) -> None:
    row = {"question": "Which bone?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 3}
    parquet(root / "anatomy" / "test-00000-of-00001.parquet", [row])
    parquet(root / "all" / "test-00000-of-00001.parquet",
            [row, {**row, "subject": "virology"}, {**row, "subject": "medical_genetics", "question": "Which gene?"}],
            )  # fmt: skip


def mmlu_csv(root: Path) -> None:
    row = {"q": "Which bone?", "A": "a", "B": "b", "C": "c", "D": "d", "key": "C"}
    table(root / "test" / "anatomy_test.csv", [row, {**row, "q": "Which, then?"}], header=False)
    table(root / "val" / "anatomy_val.csv", [row], header=False)
    table(root / "test" / "astronomy_test.csv", [row], header=False)


Maker = Callable[[Path], None]
