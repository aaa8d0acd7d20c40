"""Provenance: what a product was made from comes back as it was written, with the same bytes each time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from infimed.training.provenance import Provenance, ProvenanceError, sha256_files, versions


def test_what_is_written_is_read_back_and_equal_facts_have_equal_bytes(tmp_path: Path) -> None:
    inputs = {"dataset": "ab", "base": "cd"}
    made = Provenance("sft", inputs, "ef", 7, versions("numpy"), {"CC0-1.0": 3}, {"loss": 0.25})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.write(tmp_path / name)
    assert Provenance.read(tmp_path / "one") == made
    assert (tmp_path / "one/infimed.json").read_bytes() == (tmp_path / "two/infimed.json").read_bytes()


def test_a_missing_broken_or_newer_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProvenanceError, match="no readable provenance"):
        Provenance.read(tmp_path)
    for text in ("{", "[]", '{"schema": 2}', '{"schema": 1, "step": "sft", "inputs": {}, "colour": "blue"}'):
        (tmp_path / "infimed.json").write_text(text)
        with pytest.raises(ProvenanceError, match=r"infimed\.json"):
            Provenance.read(tmp_path)


def test_the_digest_of_several_files_is_that_of_a_sha256sum_listing(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(name.encode() * 3)
    lines = "".join(f"{hashlib.sha256(name.encode() * 3).hexdigest()}  {name}\n" for name in ("a", "b"))
    assert sha256_files([tmp_path / "b", tmp_path / "a"]) == hashlib.sha256(lines.encode()).hexdigest()
