"""The JSON Schemas of drift.json and robustness.json, made from the records themselves and kept beside them.

`python -m infimed.evaluation.report_schema` writes both again; a test holds them against the records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..runtime.files import write_bytes
from .drift_report import DriftReport
from .json_schema import json_schema
from .robustness_report import Robustness

FOLDER = Path(__file__).resolve().parent
SCHEMAS: dict[str, tuple[type, str]] = {
    "drift.schema.json": (DriftReport, "drift.json: the findings of infimed drift"),
    "robustness.schema.json": (Robustness, "robustness.json: what probes found, written by infimed drift"),
}
# what these names mean wherever they stand and their record's docstring says nothing else
GLOSSARY = {
    "run": "the name of a run: that of its files",
    "dataset": "the name of the dataset",
    "dataset_sha256": "sha256 of the dataset's examples.jsonl",
    "items": "questions",
    "clusters": "patients, else images or near-duplicate groups, that the questions belong to",
    "modality": "modality of the cell; empty over all items",
    "task": "task of the cell; empty over all items",
    "margin": "the loss, 0..1, that is still acceptable here",
    "verdict": "PASS, FAIL, NOT ENOUGH ITEMS or REFERENCE NOT COMPETENT",
    "reason": "one sentence that says why",
    "probe": "the probe's name",
    "severity": "of a corruption, 1 to 5; 0 for probes without one",
    "key": "how the right answer follows from that of the clean question",
    "schema": "name and version of this format",
}


def schema(name: str) -> dict[str, Any]:
    """Return a schema by the name of its file, as the installed package holds it."""
    found: dict[str, Any] = json.loads((FOLDER / name).read_text("utf-8"))
    return found


def schema_bytes(name: str) -> bytes:
    """Return a schema as the records of today have it."""
    return (json.dumps(json_schema(*SCHEMAS[name], GLOSSARY), indent=1, ensure_ascii=False) + "\n").encode()


def main() -> None:
    """Write every schema beside this file."""
    for name in SCHEMAS:
        write_bytes(FOLDER / name, schema_bytes(name))


if __name__ == "__main__":
    main()
