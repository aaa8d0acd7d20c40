"""The page in a browser: on a desk and a phone, in light and dark, by keyboard and on paper; no rule of axe broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
from infimed.evaluation.drift import drift
from infimed.evaluation.report import write_report
from infimed.evaluation.robustness import robustness

from .planted import items, pattern, write_run
from .planted_probes import row, varied, write_clean, write_probe

pytestmark = pytest.mark.full
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report in which everything occurs: each verdict, flips with pictures, probes, an unfinished run."""
    folder = tmp_path_factory.mktemp("report")
    rows = items({("ct", "finding"): 200, ("fundus", "laterality"): 200, ("mri", "count"): 60, ("xray", "view"): 9})
    rows += items({("mri", "finding"): 60})
    count = len(rows)
    right = pattern(0.9, count, 1)
    lost = right.copy()
    lost[200:400][np.flatnonzero(right[200:400])[:40]] = False
    blind = pattern(0.35, count, 3)
    blind[400:460] = right[400:460]
    for run, flags, size in (("gguf-f16", right, 4), ("gguf-q8_0", right, 2), ("onnx-int4-block32-rtn", lost, 1)):
        write_run(folder / "runs", run, rows, flags, weight_bytes=size * 1_000_000)
    write_run(folder / "runs", "gguf-f16.grey", rows, blind)
    write_run(folder / "runs", "prior", rows, pattern(0.4, count, 2), seconds=0)
    (folder / "runs" / "gguf-q2_k.started.json").write_text("{}")
    asked = [row(f"patient{number:03d}/{number}") for number in range(80)]
    for level in ("gguf-f16", "onnx-int4-block32-rtn"):
        clean = write_clean(folder / "probed", level, asked, lambda number: "left")
        for severity in (1, 3, 5):
            answers = [varied(one, "changed", "none" if n % 7 < severity else "left") for n, one in enumerate(clean)]
            write_probe(folder / "probed", level, "noise", answers, severity)
    report = replace(drift(folder / "runs", "gguf-f16"), pictured=True)
    verdicts = {cell.verdict for level in report.levels for cell in (level.overall, *level.cells)}
    assert verdicts == {"PASS", "FAIL", "NOT ENOUGH ITEMS", "REFERENCE NOT COMPETENT"}
    pictures = {flip.example_id: (PICTURE,) for flip in report.flips}
    return write_report(report, folder / "out", robustness(folder / "probed", "gguf-f16", 0.05), pictures)[-1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Chromium; skipped where it or what drives it is missing."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium")
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def shown(browser: Any, page: Path, width: int = 1280, scheme: str = "light", **more: Any) -> Any:
    tab = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more).new_page()
    tab.goto(page.as_uri())
    return tab


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_and_asks_for_nothing_else(browser: Any, page: Path, width: int) -> None:
    tab = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    asked: list[str] = []
    faults: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: faults.append(message.text))
    tab.goto(page.as_uri())
    root = "document.documentElement"
    assert tab.evaluate(f"{root}.scrollWidth") <= tab.evaluate(f"{root}.clientWidth")
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.evaluate(f"{root}.scrollWidth") <= tab.evaluate(f"{root}.clientWidth")
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()] and not faults
    smallest = "Math.min(...[...document.querySelectorAll('svg.plot')].map(one => one.getBoundingClientRect().width))"
    assert tab.evaluate(smallest) >= 120


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_violation(browser: Any, page: Path, width: int, scheme: str) -> None:
    bundled = pytest.importorskip("axe_playwright_python")
    tab = shown(browser, page, width, scheme, bypass_csp=True)
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    tab.evaluate((Path(next(iter(bundled.__path__))) / "axe.min.js").read_text("utf-8"))
    found = tab.evaluate("axe.run(document)")
    told = [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]]
    assert told == []
    assert "color-contrast" in {one["id"] for one in found["passes"]} and len(found["passes"]) > 20


def test_light_and_dark_colour_the_charts_too(browser: Any, page: Path) -> None:
    ink = "getComputedStyle(document.querySelector('.charts svg text')).fill"
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = (
        [tab.evaluate(what) for what in (ink, ground)]
        for tab in (shown(browser, page, scheme=scheme) for scheme in ("light", "dark"))
    )
    assert light[0] != dark[0] and light[1] != dark[1]


def test_a_keyboard_reaches_sections_folds_and_wide_tables_and_sees_where_it_is(browser: Any, page: Path) -> None:
    tab = shown(browser, page, 390)
    reached = []
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("(e => [e.tagName, getComputedStyle(e).outlineStyle])(document.activeElement)"))
    assert {"A", "SUMMARY", "DIV"} <= {tag for tag, _ in reached}
    assert all(outline != "none" for tag, outline in reached if tag != "BODY")
    tab.evaluate("document.querySelector('summary').focus()")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.querySelector('details').open")


def test_on_paper_what_is_folded_is_open(browser: Any, page: Path) -> None:
    tab = shown(browser, page)
    seen = "document.querySelector('details table').checkVisibility({contentVisibilityAuto: true})"
    assert not tab.evaluate(seen)
    tab.emulate_media(media="print")
    tab.wait_for_function(seen)  # with the next frame
