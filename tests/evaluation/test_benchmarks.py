"""Every benchmark in its official layout becomes examples: key, options, split, group, modality and task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infimed.evaluation.benchmark_list import told, written
from infimed.evaluation.benchmarks import BENCHMARKS, recognised
from infimed.evaluation.dataset import Dataset
from infimed.evaluation.example import MODALITIES, ROLES, TASKS, Example
from infimed.evaluation.importers import import_dataset

from . import official

pytest.importorskip("pyarrow")  # the hub's files; of the train extra


def brought(make: official.Maker, tmp_path: Path, **settings: Any) -> Dataset:
    make(tmp_path / "in")
    return import_dataset(tmp_path / "in", tmp_path / "out", **settings)


def rows(made: Dataset) -> dict[str, Example]:
    return {example.id: example for example in made.examples}


def reasons(made: Dataset) -> list[str]:
    refused = made.manifest.details["refused"]
    assert isinstance(refused, list)
    return [f"{row['file']}:{row['line']}: {row['reason']}" for row in refused]  # type: ignore[index,call-overload]


# layout, maker, whether the fields alone tell it, and of each example: (answer, options, split, modality, task).
SETS = [
    ("mmmu", official.mmmu, True, {
        "mmmu-validation_Clinical_Medicine_1": ("a lung", 2, "validation", "microscopy", "open"),
        "mmmu-validation_Clinical_Medicine_2": ("1/2", 0, "validation", "unknown", "open"),
        "mmmu-validation_Clinical_Medicine_3": ("<image 1>", 2, "validation", "other", "open"),
    }),
    ("vqa-rad", official.vqa_rad, True, {
        "vqa-rad-1": ("yes", 2, "train", "xray", "finding"),
        "vqa-rad-2": ("left", 0, "test", "xray", "location"),
        "vqa-rad-3": ("2", 0, "train", "mri", "count"),
    }),
    ("vqa-rad", official.hub_image_rows, False, {
        "vqa-rad-test-000001": ("yes", 2, "test", "unknown", "open"),
        "vqa-rad-test-000002": ("fat", 0, "test", "unknown", "open"),
        "vqa-rad-train-000001": ("yes", 2, "train", "unknown", "open"),
    }),
    ("path-vqa", official.hub_image_rows, False, {
        "path-vqa-test-000001": ("yes", 2, "test", "unknown", "open"),
        "path-vqa-test-000002": ("fat", 0, "test", "unknown", "open"),
        "path-vqa-train-000001": ("yes", 2, "train", "unknown", "open"),
    }),
    ("slake", official.slake, True, {
        "slake-11": ("no", 2, "test", "xray", "finding"),
        "slake-12": ("不健康", 0, "test", "xray", "finding"),
        "slake-1": ("Transverse Plane", 0, "train", "mri", "view"),
    }),
    ("pmc-vqa", official.pmc_vqa, True, {
        "pmc-vqa-test_2-000001": ("a vessel", 4, "test", "unknown", "open"),
        "pmc-vqa-test_2-000002": ("a bone", 4, "test", "unknown", "open"),
    }),
    ("pmc-vqa", official.pmc_vqa_1, True, {"pmc-vqa-train-000001": ("Focal", 4, "train", "unknown", "open")}),
    ("omnimedvqa", official.omnimedvqa, True, {
        "omnimedvqa-ACRIMA_0001": ("fundus photography.", 4, "test", "fundus", "modality"),
        "omnimedvqa-ACRIMA_0002": ("no", 2, "test", "mri", "diagnosis"),
        "omnimedvqa-ACRIMA_0003": ("MRI", 4, "test", "other", "modality"),
    }),
    ("medxpertqa", official.medxpertqa, True, {
        "medxpertqa-MM-2000": ("a test", 2, "test", "unknown", "diagnosis"),
        "medxpertqa-Text-0": ("a test", 2, "dev", "text", "open"),
    }),
    ("pubmedqa", official.pubmedqa, True, {
        "pubmedqa-101": ("yes", 3, "train", "text", "open"), "pubmedqa-102": ("maybe", 3, "test", "text", "open"),
    }),
    ("pubmedqa", official.pubmedqa_hub, True, {"pubmedqa-7": ("no", 3, "", "text", "open")}),
    ("medqa", official.medqa, True, {
        "medqa-US-2-options-test-000001": ("Ibuprofen", 2, "test", "text", "open"),
        "medqa-US-2-options-test-000002": ("Ibuprofen", 2, "test", "text", "open"),
    }),
    ("medqa", official.medqa_hub, False, {"medqa-test-00000": ("c", 4, "test", "text", "open")}),
    ("medmcqa", official.medmcqa, True, {
        "medmcqa-u-1": ("d", 4, "validation", "text", "anatomy"), "medmcqa-u-2": ("a", 4, "validation", "text", "open"),
    }),
    ("medmcqa", official.medmcqa_hub, True, {
        "medmcqa-u-1": ("a", 4, "validation", "text", "anatomy"),
        "medmcqa-u-2": ("d", 4, "validation", "text", "anatomy"),
    }),
    ("mmlu-medical", official.mmlu_hub, True, {
        "mmlu-medical-anatomy-test-000001": ("d", 4, "test", "text", "anatomy"),
        "mmlu-medical-medical_genetics-test-000003": ("d", 4, "test", "text", "open"),
    }),
    ("mmlu-medical", official.mmlu_csv, True, {
        "mmlu-medical-anatomy-test-000001": ("c", 4, "test", "text", "anatomy"),
        "mmlu-medical-anatomy-test-000002": ("c", 4, "test", "text", "anatomy"),
        "mmlu-medical-anatomy-validation-000001": ("c", 4, "validation", "text", "anatomy"),
    }),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "make", "telling", "expected"), SETS)
def test_an_official_set_becomes_examples(
    layout: str, make: official.Maker, telling: bool, expected: dict[str, Any], tmp_path: Path
) -> None:
    made = brought(make, tmp_path, layout=None if telling else layout)
    found = {
        row.id: (row.answer, len(row.options), row.attributes["split"], row.modality, row.task) for row in made.examples
    }
    assert found == expected
    benchmark = next(row for row in BENCHMARKS if row.name == layout)
    assert made.manifest.details["layout"] == layout
    assert set(made.manifest.licences) == {benchmark.license} and set(made.manifest.sources) == {layout}
    assert all(row.attributes["split"] in ("", *benchmark.splits) for row in made.examples)


def test_the_table_has_each_benchmark_once_with_words_of_our_vocabulary_and_a_set_in_these_tests() -> None:
    names = [row.name for row in BENCHMARKS]
    assert len(set(names)) == len(names)
    assert set(names) == {row[0] for row in SETS} | {"text-mcq"}, "a benchmark without a set in its official layout"
    for row in BENCHMARKS:
        assert row.license and row.home and row.modality and row.task and row.splits
        assert set(row.splits.values()) <= {*ROLES, ""}
        assert row.name in written()
    assert [row["name"] for row in told()] == names  # type: ignore[index,call-overload]


@pytest.mark.parametrize(("layout", "make", "telling"), [row[:3] for row in SETS])
def test_a_set_is_told_by_its_fields_or_by_its_name_alone(
    layout: str, make: official.Maker, telling: bool, tmp_path: Path
) -> None:
    make(tmp_path)
    found = recognised(tmp_path)
    assert (found.name if found else None) == (layout if telling else None)


def test_the_official_vocabularies_map_into_ours() -> None:
    from infimed.evaluation import benchmark_images as images

    for names in (images._SLAKE_MODALITIES, images._OMNI_MODALITIES, images._MMMU_MODALITIES):
        assert set(names.values()) <= set(MODALITIES)
    for names in (images._SLAKE_TASKS, images._OMNI_TASKS, images._VQA_RAD_TASKS, images._MEDXPERT_TASKS):
        assert set(names.values()) <= set(TASKS)


def test_pictures_stand_before_the_question_under_the_marks_it_names(tmp_path: Path) -> None:
    made = rows(brought(official.mmmu, tmp_path))
    one, two, three = (made[f"mmmu-validation_Clinical_Medicine_{n}"] for n in (1, 2, 3))
    assert one.texts == ("What is shown?",) and len(one.images) == 1
    assert two.texts == ("<image 1>", "<image 2>", "Compare <image 1> with <image 2>.")
    assert [type(part).__name__ for part in two.content] == ["TextRef", "ImageRef", "TextRef", "ImageRef", "TextRef"]
    assert two.aliases == ("0.5",)
    assert three.options == ("<image 1>", "<image 2>") and len(three.images) == 2


def test_other_subjects_and_withheld_answers_are_told_and_not_scored(tmp_path: Path) -> None:
    made = brought(official.mmmu, tmp_path)
    assert made.manifest.details["aside"] == {"files": [], "rows": {"subject Music is not of Health & Medicine": 1}}
    assert reasons(made) == [
        "test-00000-of-00001.parquet:1: the answer is withheld ('?'): the test split is scored by its makers alone"
    ]
    again = brought(official.medmcqa_hub, tmp_path / "second")
    assert ["the answer is withheld" in reason for reason in reasons(again)] == [True]


def test_fields_that_no_reader_takes_are_kept(tmp_path: Path) -> None:
    made = rows(brought(official.slake, tmp_path))["slake-11"]
    assert made.attributes == {
        "split": "test", "subset": "en", "official_answer_type": "CLOSED", "location": "Lung", "img_id": 1,
        "content_type": "Abnormality", "base_type": "vqa", "triple": ["vhead", "_", "_"],
    }  # fmt: skip
    assert made.group == "slake:xmlab1"


def test_a_group_is_the_article_the_image_or_the_abstract(tmp_path: Path) -> None:
    pmc = brought(official.pmc_vqa, tmp_path / "pmc").examples
    assert {row.group for row in pmc} == {"pmc:PMC123"}
    omni = brought(official.omnimedvqa, tmp_path / "omni").examples
    assert len({row.group for row in omni}) == 1 and omni[0].group.startswith("image:")
    assert [row.group for row in brought(official.pubmedqa, tmp_path / "pub").examples] == ["pubmed:101", "pubmed:102"]


def test_a_subset_is_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    made = brought(official.slake, tmp_path, subset="zh")
    assert [row.id for row in made.examples] == ["slake-12"]
    assert made.manifest.details["aside"] == {"files": [], "rows": {"subset en": 2}}
    assert made.manifest.details["subset"] == "zh"


def test_subsets_that_share_questions_are_not_mixed(tmp_path: Path) -> None:
    official.pmc_vqa(tmp_path / "in")
    official.pmc_vqa_1(tmp_path / "in")
    with pytest.raises(Exception, match=r"as version-1 and version-2, which share questions; choose one with --subset"):
        import_dataset(tmp_path / "in", tmp_path / "out")
    made = import_dataset(tmp_path / "in", tmp_path / "out", subset="version-1")
    assert [row.id for row in made.examples] == ["pmc-vqa-train-000001"]


def test_arrow_files_and_saved_folders_give_the_rows_of_the_hub(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    official.hub_image_rows(tmp_path / "hub")
    expected = rows(import_dataset(tmp_path / "hub", tmp_path / "a", layout="path-vqa"))
    tables = {
        split: datasets.Dataset.from_list(
            [
                {"image": official.stored(n), "question": f"Is it {n}?", "answer": answer}
                for n, answer in enumerate(("yes", "fat")[:count])
            ]
        ).cast_column("image", datasets.Image(decode=False))
        for split, count in (("train", 1), ("test", 2))
    }
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "test" / "cache-0123.arrow").write_bytes(b"not rows")
    found = rows(import_dataset(tmp_path / "saved", tmp_path / "b", layout="path-vqa"))
    assert found.keys() == expected.keys()
    assert all(found[name].content == row.content for name, row in expected.items())


def test_two_benchmarks_in_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    official.medqa(tmp_path / "in")
    official.medmcqa(tmp_path / "in")
    with pytest.raises(Exception, match="holds files of medmcqa and medqa; name one of them with --layout"):
        import_dataset(tmp_path / "in", tmp_path / "out")
    made = import_dataset(tmp_path / "in", tmp_path / "out", layout="medqa")
    assert made.manifest.details["aside"] == {"files": ["dev.json"], "rows": {}}
