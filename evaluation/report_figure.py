"""The small pictures of the drift page: a verdict's chip, a difference with its bounds, and what the marks mean.

Knows one axis for all levels; inline SVG, coloured by the style sheet.
"""

from __future__ import annotations

from html import escape

from .drift_report import Comparison
from .report_text import MARKS, points
from .verdict import Verdict

CLASSES: dict[Verdict, str] = {
    "PASS": "pass",
    "FAIL": "fail",
    "NOT ENOUGH ITEMS": "more",
    "REFERENCE NOT COMPETENT": "none",
}
_WIDTH, _HEIGHT = 220.0, 34.0


def chip(verdict: Verdict) -> str:
    """Return a verdict as a word with its sign."""
    return f'<span class="chip {CLASSES[verdict]}"><i aria-hidden="true"><b>{MARKS[verdict]}</b></i>{verdict}</span>'


class Scale:
    """One axis for all levels, in points, from below the margin to above zero."""

    def __init__(self, rows: list[Comparison], margin: float) -> None:
        lows = [row.lower for row in rows]
        highs = [row.upper for row in rows]
        self.margin = margin
        self.low = max(-1.0, min([*lows, -2 * margin]) - 0.1 * margin)
        self.high = min(1.0, max([*highs, margin]) + 0.1 * margin)

    def x(self, value: float) -> float:
        """Return the place of a difference on the axis."""
        return round((min(max(value, self.low), self.high) - self.low) / (self.high - self.low) * _WIDTH, 1)

    def forest(self, found: Comparison) -> str:
        """Return the difference with its bounds, the margin and zero, as a small picture."""
        label = f"difference {points(found.delta)} points, bounds {points(found.lower)} to {points(found.upper)}"
        middle = _HEIGHT / 2
        margin, zero = self.x(-self.margin), self.x(0.0)
        low, dot, high = self.x(found.lower), self.x(found.delta), self.x(found.upper)
        return (
            f'<svg class="forest {CLASSES[found.verdict]}-ink" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
            f'preserveAspectRatio="none" aria-label="{escape(label)}">'
            f'<rect class="allowed" x="{margin}" y="3" width="{round(_WIDTH - margin, 1)}" height="{_HEIGHT - 6:g}"/>'
            f'<line class="axis" x1="0" x2="{_WIDTH:g}" y1="{middle:g}" y2="{middle:g}"/>'
            f'<line class="zero" x1="{zero}" x2="{zero}" y1="5" y2="{_HEIGHT - 5:g}"/>'
            f'<line class="margin" x1="{margin}" x2="{margin}" y1="3" y2="{_HEIGHT - 3:g}"/>'
            f'<line class="span" x1="{low}" x2="{high}" y1="{middle:g}" y2="{middle:g}"/>'
            f'<line class="dot" x1="{dot}" x2="{dot}" y1="{middle:g}" y2="{middle:g}"/></svg>'
        )


def legend(margin: float) -> str:
    """Return what the marks of the pictures mean."""
    items = (
        ('<line class="span" x1="2" x2="24" y1="6" y2="6"/><line class="dot" x1="13" x2="13" y1="6" y2="6"/>',
         "difference with one-sided 95 % bounds, cluster-robust"),
        ('<line class="margin" x1="13" x2="13" y1="0" y2="12"/>', f"margin, {points(-margin)} points"),
        ('<line class="zero" x1="13" x2="13" y1="0" y2="12"/>', "no difference"),
        ('<rect class="allowed" x="0" y="0" width="26" height="12"/>', "acceptable"),
    )  # fmt: skip
    told = "".join(
        f'<span><svg class="forest key" viewBox="0 0 26 12" aria-hidden="true">{mark}</svg>{text}</span>'
        for mark, text in items
    )
    return f'<div class="legend">{told}</div>'
