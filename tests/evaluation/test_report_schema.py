"""The schemas of the findings: what they accept, what they refuse, and that they are those of the records."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
from infimed.evaluation.drift import drift
from infimed.evaluation.json_schema import UndocumentedField, json_schema
from infimed.evaluation.report_schema import FOLDER, SCHEMAS, schema, schema_bytes
from infimed.evaluation.robustness import robustness

from .planted import items, pattern, write_run
from .planted_probes import row, varied, write_clean, write_probe


def described(found: Any) -> Any:
    """Yield every object of a schema that has properties."""
    if isinstance(found, dict):
        if "properties" in found:
            yield found
        for value in found.values():
            yield from described(value)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_that_of_the_records_and_documents_every_field(name: str) -> None:
    again = "write it again: python -m infimed.evaluation.report_schema"
    assert (FOLDER / name).read_bytes() == schema_bytes(name), again
    objects = list(described(schema(name)))
    assert len(objects) > 5
    for one in objects:
        assert one["description"] and one["additionalProperties"] is False
        assert all(len(part["description"]) > 5 for part in one["properties"].values())


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs")
    rows = items({("ct", "finding"): 60, ("mri", "count"): 40, ("xray", "view"): 5})
    right = pattern(0.9, len(rows), 1)
    lost = right.copy()
    lost[:12] = False
    for run, flags in (("gguf-f16", right), ("gguf-q4_0", lost), ("gguf-f16.grey", ~right), ("prior", ~right)):
        write_run(folder, run, rows, flags)
    (folder / "onnx-int4.started.json").write_text("{}")
    probed = folder / "probed"
    asked = [row(f"patient{number:03d}/{number}") for number in range(40)]
    for level in ("gguf-f16", "gguf-q4_0", "gguf-f16.grey", "prior"):
        write_clean(probed, level, asked, lambda number: "left")
    for level in ("gguf-f16", "gguf-q4_0"):
        write_probe(probed, level, "noise", [varied(one, "changed", "none") for one in asked], 4)
    found = robustness(probed, "gguf-f16", 0.05)
    assert found is not None
    texts = {"drift.schema.json": drift(folder, "gguf-f16").to_bytes(), "robustness.schema.json": found.to_bytes()}
    return {name: json.loads(text) for name, text in texts.items()}


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_written_is_valid_by_an_independent_validator(name: str, findings: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema(name))
    jsonschema.Draft202012Validator(schema(name)).validate(findings[name])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("levels", 0, "overall", "verdict"), "FINE"),
        (("levels", 0, "overall", "harmful"), "many"),
        (("margins", "overall"), None),
        (("flips", 0, "reference", "confidence"), "sure"),
        (("stored",), {"why": "not"}),
        (("unasked",), 1),
    ],
)
def test_another_value_or_a_further_field_is_refused(
    findings: dict[str, Any], path: tuple[Any, ...], value: Any
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    report = copy.deepcopy(findings["drift.schema.json"])
    place = report
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not jsonschema.Draft202012Validator(schema("drift.schema.json")).is_valid(report)


def test_a_field_without_words_is_an_error_that_names_it() -> None:
    @dataclass(frozen=True)
    class Half:
        """Something. told: a figure."""

        told: int
        untold: int

    Half.__module__ = __name__
    with pytest.raises(UndocumentedField, match=r"Half\.untold is not documented"):
        json_schema(Half, "half")
    found = json_schema(Half, "half", {"untold": "by the glossary"})
    assert found["properties"]["told"] == {"description": "a figure.", "type": "integer"}
    assert found["properties"]["untold"]["description"] == "by the glossary"


def test_the_schemas_are_part_of_the_package() -> None:
    text = (Path(FOLDER).parent / "pyproject.toml").read_text("utf-8")
    assert '"infimed.evaluation" = ["*.schema.json"]' in text
