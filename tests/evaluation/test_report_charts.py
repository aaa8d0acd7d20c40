"""The charts: colours of the page, the same bytes whoever draws, and a picture told in words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
from infimed.evaluation.drift_figures import Share
from infimed.evaluation.drift_report import RunFacts
from infimed.evaluation.drift_views import Reliability, ReliabilityBin
from infimed.evaluation.report_charts import curve_chart, reliability_chart, tradeoff_chart
from infimed.evaluation.report_plots import colour, draw
from infimed.evaluation.report_style import STYLE
from infimed.evaluation.robustness_report import ProbeFigures

BINS = tuple(ReliabilityBin(20.0, 0.3 + 0.04 * k, 0.25 + 0.05 * k, 0.2 + 0.05 * k, 0.3 + 0.05 * k) for k in range(15))
FOUND = Reliability("gguf-q4_0", 300, 0.05, BINS)
SAME = """
from infimed.evaluation.drift_views import Reliability, ReliabilityBin
from infimed.evaluation.report_charts import reliability_chart
bins = tuple(ReliabilityBin(20.0, 0.3 + 0.04 * k, 0.25 + 0.05 * k, 0.2 + 0.05 * k, 0.3 + 0.05 * k) for k in range(15))
print(reliability_chart(Reliability("gguf-q4_0", 300, 0.05, bins), "one"))
"""


def probed(run: str, severity: int, right: int) -> ProbeFigures:
    share = Share(right, 100, right / 100 - 0.1, min(1.0, right / 100 + 0.1))
    return ProbeFigures(
        run, "blur", severity, "same", 100, 100, 100, Share(90, 100, 0.8, 0.95), share, None, None, None, None, "", ()
    )  # fmt: skip


def test_a_chart_has_the_colours_of_the_page_and_nothing_from_elsewhere() -> None:
    chart = reliability_chart(FOUND, "one")
    root = ET.fromstring(chart)
    styles = ";".join(node.get("style", "") for node in root.iter())
    used = set(re.findall(r"(?:fill|stroke):([^;]+)", styles))
    assert used <= {"none", *(f"var(--{name})" for name in re.findall(r"var\(--(\w+)\)", styles))}
    assert {"var(--accent)", "var(--soft)"} <= used
    defined = set(re.findall(r"--(\w+):", STYLE.split("@media")[0]))
    assert set(re.findall(r"var\(--(\w+)\)", chart)) <= defined
    assert "font-family" not in chart and "DejaVu" not in chart and "http" not in chart and "<style" not in chart


def test_ids_are_the_charts_own_and_every_reference_finds_one() -> None:
    for name in ("one", "two"):
        root = ET.fromstring(reliability_chart(FOUND, name))
        ids = [node.get("id") for node in root.iter() if node.get("id")]
        assert ids and len(set(ids)) == len(ids) and all(str(one).startswith(f"{name}-") for one in ids)
        assert {node.get("href") for node in root.iter("use")} <= {f"#{one}" for one in ids}


def test_the_bytes_do_not_hang_on_the_users_settings_or_the_process(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\naxes.facecolor: red\n")
    environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "PYTHONHASHSEED": "7"}
    told = subprocess.run([sys.executable, "-c", SAME], env=environment, capture_output=True, text=True, timeout=120)
    assert told.stdout.strip() == reliability_chart(FOUND, "one"), told.stderr


def test_a_name_is_drawn_as_text_and_not_as_markup_or_mathematics() -> None:
    def paint(figure) -> None:  # type: ignore[no-untyped-def]
        figure.add_subplot().text(0.5, 0.5, "<b>$q_4$ & co</b>", color=colour("ink"))

    chart = draw("odd", 'says "<this>"', (200, 100), paint)
    root = ET.fromstring(chart)
    assert "<b>$q_4$ & co</b>" in [node.text for node in root.iter("text")]
    assert root.get("aria-label") == 'says "<this>"' and root.get("role") == "img"


def test_charts_say_their_figures_in_words() -> None:
    told = ET.fromstring(reliability_chart(FOUND, "one")).get("aria-label")
    assert told and "calibration error 5.0 %" in told and "86.0 % sure and 95.0 % right" in told
    curve = curve_chart("blur", [("f16", [probed("f16", 1, 88), probed("f16", 5, 70)]), ("q2", [probed("q2", 1, 60)])])
    root = ET.fromstring(curve)
    assert root.get("aria-label") == (
        "accuracy under blur by severity: f16 clean 90.0 %, 1: 88.0 %, 5: 70.0 %; q2 clean 90.0 %, 1: 60.0 %"
    )
    words = [node.text for node in root.iter("text")]
    assert {"f16", "q2", "severity (0: clean)"} <= set(words)


def test_accuracy_against_speed_needs_two_runs_whose_speed_is_known() -> None:
    facts = RunFacts("f16", "bundle", "f16", "e" * 64, 4_000_000, "e" * 64, None)
    assert tradeoff_chart((facts, Share(9, 10, 0.6, 0.99)), (), "speed") == ""
