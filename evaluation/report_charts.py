"""The charts of the drift page: bounds, reliability, accuracy against size and speed, accuracy by severity.

Each is small enough to be read on a phone, and says in words what it shows. Knows records, no page; report_plots draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .drift_figures import Share
from .drift_report import Comparison, LevelDrift, RunFacts
from .drift_views import Reliability
from .report_plots import colour, draw
from .report_text import megabytes, number, percent, points
from .robustness_report import ProbeFigures
from .verdict import Verdict

CLASSES: dict[Verdict, str] = {
    "PASS": "pass",
    "FAIL": "fail",
    "NOT ENOUGH ITEMS": "more",
    "REFERENCE NOT COMPETENT": "none",
}
MARKERS = "osD^vP"  # runs are told apart by shape and label, not by colour alone
_FOREST = (230, 34)
_PANEL = (250, 230)
_SCATTER = (380, 270)
_CURVE = (340, 220)
_LABEL_PIXELS = 15


class Scale:
    """One axis for all levels, in shares, from below the margin to above zero."""

    def __init__(self, rows: Sequence[Comparison], margin: float) -> None:
        self.margin = margin
        self.low = max(-1.0, min([*(row.lower for row in rows), -2 * margin]) - 0.1 * margin)
        self.high = min(1.0, max([*(row.upper for row in rows), margin]) + 0.1 * margin)

    def forest(self, found: Comparison, name: str) -> str:
        """Return the difference with its bounds, the margin and zero."""
        says = f"difference {points(found.delta)} points, bounds {points(found.lower)} to {points(found.upper)}"

        def paint(figure: Any) -> None:
            axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
            axes.set_axis_off()
            axes.set_xlim(self.low, self.high)
            axes.set_ylim(-1, 1)
            ink = colour(CLASSES[found.verdict])
            axes.axvspan(-self.margin, self.high, 0.12, 0.88, color=colour("pass"), alpha=0.09, linewidth=0)
            axes.axhline(0, color=colour("line"), linewidth=1, zorder=1)
            axes.plot([0, 0], [-0.7, 0.7], color=colour("soft"), linewidth=1, zorder=1)
            axes.plot([-self.margin] * 2, [-0.8, 0.8], color=colour("fail"), linewidth=1.5, dashes=(2, 2), zorder=2)
            axes.plot([found.lower, found.upper], [0, 0], color=ink, linewidth=3, solid_capstyle="round", zorder=3)
            axes.plot([found.delta], [0], "o", color=ink, markersize=10, zorder=4, clip_on=False)

        return draw(name, says, _FOREST, paint)


def reliability_chart(found: Reliability, name: str) -> str:
    """Return confidence against accuracy, with intervals and the line on which both are equal."""
    lowest, highest = found.bins[0], found.bins[-1]
    says = (
        f"{found.run}: calibration error {percent(found.ece)}; the least confident fifteenth is "
        f"{percent(lowest.confidence)} sure and {percent(lowest.accuracy)} right, the most confident "
        f"{percent(highest.confidence)} sure and {percent(highest.accuracy)} right"
    )

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        sure = [100 * one.confidence for one in found.bins]
        right = [100 * one.accuracy for one in found.bins]
        reach = [[100 * (one.accuracy - one.lower) for one in found.bins],
                 [100 * (one.upper - one.accuracy) for one in found.bins]]  # fmt: skip
        axes.plot([0, 100], [0, 100], color=colour("soft"), linewidth=1, dashes=(3, 3))
        axes.errorbar(sure, right, yerr=reach, fmt="none", ecolor=colour("accent"), elinewidth=1.25, alpha=0.5)
        axes.plot(sure, right, "o-", color=colour("accent"), linewidth=1.25, markersize=4.5)
        least = min(20, *(10 * (int(value) // 10) for value in sure))
        axes.set_xlim(least, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("right, %")

    return draw(name, says, _PANEL, paint)


def tradeoff_chart(reference: LevelDrift | tuple[RunFacts, Share], levels: Sequence[LevelDrift], of: str) -> str:
    """Return accuracy against the bytes of the weights (of="size") or the questions per second (of="speed")."""
    facts, share = reference if isinstance(reference, tuple) else (reference.facts, reference.overall.level)
    rows = [(facts, share, "ink")]
    rows += [(row.facts, row.overall.level, CLASSES[row.overall.verdict]) for row in levels]
    shown = [
        (float(value), share, facts.run, ink)
        for facts, share, ink in rows
        if (value := facts.weight_bytes if of == "size" else facts.items_per_second)
    ]
    if len(shown) < 2:
        return ""

    def told(value: float) -> str:
        return megabytes(int(value)) if of == "size" else f"{number(value)}/s"

    says = f"accuracy against {of}: " + "; ".join(
        f"{run} {told(value)}, {percent(share.value)}" for value, share, run, _ in shown
    )

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        labels = []
        for place, (value, share, run, ink) in enumerate(shown):
            y = 100 * share.value
            reach = [[max(0.0, y - 100 * share.lower)], [max(0.0, 100 * share.upper - y)]]
            across = value / 1e6 if of == "size" else value
            axes.errorbar([across], [y], yerr=reach, fmt="none", ecolor=colour(ink), elinewidth=1.25, alpha=0.6)
            axes.plot([across], [y], MARKERS[place % len(MARKERS)], color=colour(ink), markersize=7)
            labels.append((across, y, run, ink))
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.1)
        axes.set_xlabel("weights, MB" if of == "size" else "questions per second")
        axes.set_ylabel("right, %")
        _plain_log_ticks(axes)
        _label_beside(figure, axes, labels)

    return draw(of, says, _SCATTER, paint)


def curve_chart(corruption: str, runs: Sequence[tuple[str, Sequence[ProbeFigures]]]) -> str:
    """Return accuracy by severity of one corruption, a line per run; severity 0 is the clean run.

    runs: the reference first, each with its figures in the order of severity.
    """
    says = f"accuracy under {corruption} by severity: " + "; ".join(
        f"{run} clean {percent(rows[0].clean.value)}, "
        + ", ".join(f"{row.severity}: {percent(row.probed.value)}" for row in rows)
        for run, rows in runs
    )

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        labels = []
        for place, (run, rows) in enumerate(runs):
            ink = "ink" if place == 0 else f"run{(place - 1) % 5 + 1}"
            shares = [rows[0].clean, *(row.probed for row in rows)]
            at = [0, *(row.severity for row in rows)]
            values = [100 * one.value for one in shares]
            axes.fill_between(
                at, [100 * one.lower for one in shares], [100 * one.upper for one in shares],
                color=colour(ink), alpha=0.08, linewidth=0,
            )  # fmt: skip
            axes.plot(at, values, MARKERS[place % len(MARKERS)] + "-", color=colour(ink), linewidth=2 if place else 2.5)
            labels.append((at[-1], values[-1], run, ink))
        axes.set_xticks(sorted({0, *(row.severity for _, rows in runs for row in rows)}))
        axes.set_xlabel("severity (0: clean)")
        axes.set_ylabel("right, %")
        _label_beside(figure, axes, labels)

    return draw(f"curve-{corruption}", says, _CURVE, paint)


def _plain_log_ticks(axes: Any) -> None:
    """Write the ticks of a logarithmic axis as plain numbers, and few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def _label_beside(figure: Any, axes: Any, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each label at the right edge, on the height of its point or as near as the others leave room."""
    from matplotlib.transforms import blended_transform_factory

    low, high = axes.get_ylim()
    height = figure.get_figheight() * 72 - 50
    step = (high - low) * _LABEL_PIXELS / height
    placed: list[float] = []
    ordered = sorted(labels, key=lambda label: (label[1], label[2]))
    for _, y, _, _ in ordered:
        placed.append(max(y, placed[-1] + step) if placed else max(y, low))
    over = max(0.0, placed[-1] - high) if placed else 0.0
    for index in range(len(placed) - 1, -1, -1):
        limit = placed[index + 1] - step if index + 1 < len(placed) else placed[index] - over
        placed[index] = min(placed[index], limit)
    edge = blended_transform_factory(axes.transAxes, axes.transData)
    for (x, y, text, ink), at in zip(ordered, placed, strict=True):
        axes.annotate(
            text, (x, y), (1.05, at), textcoords=edge, va="center", color=colour("ink"), fontsize=10.5,
            arrowprops={"arrowstyle": "-", "color": colour(ink), "linewidth": 0.75, "alpha": 0.7, "shrinkA": 1},
        )  # fmt: skip
    axes.set_ylim(low, high)
