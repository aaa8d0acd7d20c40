"""The report for people: the same findings in words, on one page that needs nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
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
        if tag not in ("meta", "line", "rect", "br"):
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
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?://", text)
    policy = next(found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_verdict_is_a_word_and_a_sign_and_not_a_colour_alone(report: DriftReport) -> None:
    page = Page(html(report))
    assert "\u2713PASS" in page.words and "\u2715FAIL" in page.words and "?NOT ENOUGH ITEMS" in page.words
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
    import dataclasses

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


def test_numbers_are_written_for_people() -> None:
    assert (number(-0.04), number(-1.25, 1), number(2.0, signed=True)) == ("0.0", "\u22121.2", "+2.0")
    assert [nats(x) for x in (0.0, 9.8e-13, 0.0123, 2.13e-7)] == ["0", "\u2248 0", "0.012", "2.1e\u22127"]
    assert (margin_text(0.02), margin_text(0.01), margin_text(0.025)) == ("2 points", "1 point", "2.5 points")
    assert (megabytes(2_100_000), megabytes(3_160_000_000), megabytes(4_200)) == ("2.1 MB", "3.16 GB", "4.2 kB")
    assert (rounded(459), rounded(32_587), rounded(7), rounded(1_000)) == (460, 33_000, 7, 1_000)


@pytest.mark.full
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_in_a_browser(report: DriftReport, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium")
    page = write_report(report, tmp_path)[2]
    # an outer page measures the inner one in a frame of the wanted width: the report itself runs no script
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<iframe id=f src="{page.name}" style="width:{width}px;height:900px;border:0"></iframe><script>'
        "f.onload=()=>{const d=f.contentDocument.documentElement;document.title=d.scrollWidth+' '+d.clientWidth}"
        "</script>"
    )
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--allow-file-access-from-files", "--virtual-time-budget=4000", "--dump-dom")  # fmt: skip
    found = subprocess.run([browser, *flags, f"file://{outer}"], capture_output=True, text=True, timeout=120).stdout
    measured = re.search(r"<title>(\d+) (\d+)</title>", found)
    assert measured and int(measured[1]) <= int(measured[2]), found[:400]
