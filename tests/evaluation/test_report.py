"""The report for people: the same findings in words, on one page that needs nothing else."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
from infimed.evaluation.drift import drift
from infimed.evaluation.drift_report import DriftReport
from infimed.evaluation.report import markdown, write_report
from infimed.evaluation.report_html import html
from infimed.evaluation.report_text import headline, margin_text, megabytes, nats, number, rounded

from .planted import items, pattern, write_run

ROWS = items({("ct", "finding"): 200, ("fundus", "laterality"): 200, ("mri", "count"): 60, ("xray", "view"): 9})
COUNT = len(ROWS)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DriftReport:
    folder = tmp_path_factory.mktemp("runs")
    right = pattern(0.9, COUNT, 1)
    lost = right.copy()
    lost[200:400][np.flatnonzero(right[200:400])[:40]] = False
    write_run(folder, "gguf-f16", ROWS, right, weight_bytes=4_000_000)
    write_run(folder, "gguf-q8_0", ROWS, right, weight_bytes=2_100_000)
    write_run(folder, "gguf-q4_k_m", ROWS, lost, weight_bytes=1_200_000)
    write_run(folder, "prior", ROWS, pattern(0.4, COUNT, 2), seconds=0)
    write_run(folder, "gguf-f16.grey", ROWS, pattern(0.35, COUNT, 3))
    return drift(folder, "gguf-f16")


class Page(HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if "style" not in self.open else ""


def test_the_page_needs_nothing_from_elsewhere_and_its_tags_close(report: DriftReport) -> None:
    text = html(report)
    page = Page(text)
    assert not page.open
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe", "object", "base")]
    assert not re.search(r"src\s*=|href\s*=(?!\"#)|url\((?!#)|@import|https?://", text)
    ids = [str(found["id"]) for _, found in page.tags if found.get("id")]
    assert len(set(ids)) == len(ids)
    assert {found["href"] for _, found in page.tags if "href" in found} <= {f"#{one}" for one in ids}
    policy = next(found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_verdict_is_a_word_and_a_sign_and_not_a_colour_alone(report: DriftReport) -> None:
    page = Page(html(report))
    assert "\u2713PASS" in page.words and "\u2715FAIL" in page.words and "?NOT ENOUGH ITEMS" in page.words
    assert re.search(r"\u2715 \u2212\d+\.\d FAIL", page.words) and re.search(r"\u2713 0\.0 PASS", page.words)
    cells = [found for tag, found in page.tags if tag == "td" and found.get("title")]
    assert len(cells) == 2 * 3
    assert all(re.search(r": (PASS|FAIL|NOT ENOUGH ITEMS); ", str(found["title"])) for found in cells)


def test_both_forms_tell_what_was_found(report: DriftReport) -> None:
    page, text = Page(html(report)).words, markdown(report)
    for told in (page, text):
        assert headline(report) in told
        assert "NOT RUN: no run adapter and no run checkpoint" in told
        assert "not a medical device" in told
        assert "Named worse than 5 points" in told and "fundus \u00d7 laterality" in told
        assert "Shown" not in told and "Not shown that no cell is worse than 5 points" in told
        assert "xray \u00d7 view (9)" in told
        assert report.dataset_sha256 in told and report.levels[0].facts.predictions_sha256 in told
        assert "No plan was written before the predictions" in told
        assert "What gguf-f16 knows beyond the text" in told and "modality fundus" in told
        for word in ("PASS", "FAIL", "NOT ENOUGH ITEMS", "REFERENCE NOT COMPETENT"):
            assert word in told
    assert "40 harmful" in page and "| 40 / 0 |" in text
    assert "40 answers turned wrong and 0 right" in page and "40 answers turned wrong and 0 right" in text
    assert "2.1 MB" in page and "2.1 MB" in text


def test_tables_of_the_markdown_have_equal_columns(report: DriftReport) -> None:
    block: list[str] = []
    for line in [*markdown(report).splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
        elif block:
            assert len({row.count("|") for row in block}) == 1, block[0]
            block = []


def test_names_from_a_dataset_are_shown_as_text(tmp_path: Path) -> None:
    evil = [dataclasses.replace(row, modality="<script>alert(1)</script>", task='a"b|c') for row in ROWS[:40]]
    right = pattern(0.9, 40, 1)
    for run in ("gguf-f16", "gguf-q8_0"):
        write_run(tmp_path, run, evil, right)
    found = drift(tmp_path, "gguf-f16")
    page = Page(html(found))
    assert "script" not in [tag for tag, _ in page.tags]
    assert '<script>alert(1)</script> \u00d7 a"b|c' in page.words
    assert "<script" not in markdown(found)
    assert 'a"b|c' not in markdown(found).replace("(40)", "").split("## How")[0]


def test_the_three_files_are_written_whole_and_again_to_the_same_bytes(report: DriftReport, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path / "out")
    assert [path.name for path in paths] == ["drift.json", "drift.md", "drift.html"]
    before = [path.read_bytes() for path in paths]
    write_report(DriftReport.read(paths[0]), tmp_path / "out")
    assert [path.read_bytes() for path in paths] == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)


def test_the_verdict_comes_first_and_what_the_data_cannot_say_with_what_would_settle_it(report: DriftReport) -> None:
    page = Page(html(report)).words
    at = [page.index(told) for told in ("At a margin of", "Against gguf-f16, on", "Difference to the reference in",
                                        "answers turned wrong", "About how many items", "A smaller or faster",
                                        "Hashes of the runs")]  # fmt: skip
    assert at == sorted(at)
    lost = report.levels[0].cells[2]
    assert (lost.verdict, lost.items) == ("NOT ENOUGH ITEMS", 60) and lost.items_to_settle
    settle = f"{rounded(lost.items_to_settle):,} (\u00d7 {number(lost.items_to_settle / 60)})"
    for told in (page, markdown(report)):
        assert settle in told
        assert "Cells of fewer than 20 items are counted over all and not judged alone." in told


def test_a_flip_is_told_with_both_answers_both_confidences_and_its_pictures(report: DriftReport) -> None:
    flip = report.flips[0]
    assert flip.harmed == ("gguf-q4_k_m",) and (flip.modality, flip.task) == ("fundus", "laterality")
    picture = "data:image/png;base64,iVBORw0KGgo="
    page = Page(html(report, pictures={flip.example_id: (picture,)}))
    shown = [found for tag, found in page.tags if tag == "img"]
    assert [found["src"] for found in shown] == [picture]
    assert shown[0]["alt"] == f"image 1 of 1 of question {flip.example_id}"
    said = "gguf-f16 right: left70.0 %\u2715gguf-q4_k_m wrong: right70.0 %\u2713gguf-q8_0 right: left70.0 %"
    assert said in page.words and "Right answer: left" in page.words
    assert "\u2713 left (70.0 %) | \u2715 right (70.0 %)" in markdown(report)
    assert "--data" in page.words and "--data" not in Page(html(dataclasses.replace(report, pictured=True))).words


def test_each_run_has_its_reliability_and_each_level_its_place_in_size_and_speed(report: DriftReport) -> None:
    labels = [str(found.get("aria-label")) for tag, found in Page(html(report)).tags if tag == "svg"]
    assert sum("calibration error" in label for label in labels) == 3
    assert sum(label.startswith("difference ") for label in labels) == 2
    (size,) = [label for label in labels if label.startswith("accuracy against size")]
    assert "gguf-f16 4.0 MB, 90.0 %" in size and "gguf-q4_k_m 1.2 MB, 81." in size
    (speed,) = [label for label in labels if label.startswith("accuracy against speed")]
    assert "gguf-q8_0 100.0/s" in speed


def test_numbers_are_written_for_people() -> None:
    assert (number(-0.04), number(-1.25, 1), number(2.0, signed=True)) == ("0.0", "\u22121.2", "+2.0")
    assert [nats(x) for x in (0.0, 9.8e-13, 0.0123, 2.13e-7)] == ["0", "\u2248 0", "0.012", "2.1e\u22127"]
    assert (margin_text(0.02), margin_text(0.01), margin_text(0.025)) == ("2 points", "1 point", "2.5 points")
    assert (megabytes(2_100_000), megabytes(3_160_000_000), megabytes(4_200)) == ("2.1 MB", "3.16 GB", "4.2 kB")
    assert (rounded(459), rounded(32_587), rounded(7), rounded(1_000)) == (460, 33_000, 7, 1_000)
