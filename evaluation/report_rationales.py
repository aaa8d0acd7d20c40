"""The reasoning's part of the drift report: one table for Markdown and the page. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from .drift_figures import Change, RationaleDrift, RationalePart
from .drift_report import DriftReport
from .report_sections import Table
from .report_text import number, percent, points

_NAMES = {
    "modality": "names the modality",
    "organ": "names the organ",
    "side": "names the side",
    "follows": "the answer follows",
}


_HEAD = (
    "level", "what", "replies (clusters)", "right or consistent", "wrong or contradicts", "not named or undecidable"
)  # fmt: skip


def rationale_tables(report: DriftReport) -> Iterator[Table]:
    """Yield the table, where any reply carries reasoning."""
    rows = tuple(
        (row.facts.run, *line) for row in report.rows if row.rationales is not None for line in _lines(row.rationales)
    )
    if rows:
        yield Table(
            "Reasoning, by rule",
            "Read by fixed rules in what stands before the answer: whether it names the item's modality, organ and "
            "side rightly, wrongly or not at all, and whether the answer follows from what it states (consistent, "
            "contradicts, undecidable by words alone). Reference, level, and the change with its 95 % interval by "
            "cluster, over replies that reason in either run; one that does not names nothing. Not judged: no verdict "
            "hangs on it.",
            _HEAD,
            rows,
        )

    for model in sorted({row.judged.model for row in report.rows if row.judged is not None}):
        yield _judged(model, report)


def _judged(model: str, report: DriftReport) -> Table:
    rows = []
    for row in report.rows:
        found = row.judged
        if found is not None and found.model == model:
            agreed, span = found.agreement, f"[{percent(found.agreement.lower)}, {percent(found.agreement.upper)}]"
            rows += [(row.facts.run, *_line(part)) for part in found.parts]
            rows.append((row.facts.run, "labels that the rules give too", f"{agreed.items:,}",
                         f"{percent(agreed.value)} {span}", f"unread: {found.unread:,}", ""))  # fmt: skip
    return Table(
        f"Reasoning, by the judge {model}",
        "The same, as another model says it; apart from the rules and not judged either. Over the replies that it read "
        "in both runs. What it says is its opinion: it was held to no reader.",
        _HEAD,
        tuple(rows),
    )


def _lines(found: RationaleDrift) -> Iterator[tuple[str, ...]]:
    yield "carries reasoning", f"{found.items:,}", _change(found.carried), "", ""
    for part in found.parts:
        yield _line(part)
    long = found.words
    span = " to ".join(number(value, 1, signed=True) for value in (long.lower, long.upper))
    length = f"{long.reference:.1f}, {long.level:.1f}: {number(long.change, 1, signed=True)} [{span}]"
    yield "length, words", f"{found.with_reasoning:,}", length, "", ""


def _line(part: RationalePart) -> tuple[str, ...]:
    told = [_change(one.change) for one in part.shares]
    return _NAMES[part.name], f"{part.items:,} ({part.clusters:,})", *told


def _change(found: Change) -> str:
    span = f"{points(found.lower)}, {points(found.upper)}"
    return f"{percent(found.reference)}, {percent(found.level)}: {points(found.change)} [{span}]"
