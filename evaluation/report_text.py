"""What a drift report says in words and numbers, shared by its Markdown and its page. Knows no layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .drift_figures import Share
from .drift_report import Comparison, DriftReport, Knowledge, LevelDrift, NotRun, Unfinished
from .verdict import VERDICTS, Verdict

MARKS: dict[Verdict, str] = {
    "PASS": "\u2713",
    "FAIL": "\u2715",
    "NOT ENOUGH ITEMS": "?",
    "REFERENCE NOT COMPETENT": "\u2205",
}
NOT_A_DEVICE = (
    "infimed is not a medical device. These verdicts speak of the questions of this dataset and of nothing else; "
    "they do not show that a model is safe or fit for use on patients."
)


_VERBS: dict[Verdict, tuple[str, str]] = {
    "PASS": ("PASSes", "PASS"),
    "FAIL": ("FAILs", "FAIL"),
    "NOT ENOUGH ITEMS": ("has NOT ENOUGH ITEMS", "have NOT ENOUGH ITEMS"),
    "REFERENCE NOT COMPETENT": ("has a REFERENCE NOT COMPETENT", "have a REFERENCE NOT COMPETENT"),
}


def number(value: float, digits: int = 1, *, signed: bool = False) -> str:
    """Return a number with a true minus sign; a zero has no sign."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("\u2212" if value < 0 else "+" if signed else "") + text


def points(value: float) -> str:
    """Return a difference of shares in points, signed."""
    return number(100 * value, signed=True)


def percent(value: float) -> str:
    """Return a share in percent."""
    return f"{100 * value:.1f} %"


def nats(value: float) -> str:
    """Return a divergence with two significant digits; what is not zero but below a billionth is about zero."""
    if value < 1e-9:
        return "\u2248 0" if value > 0 else "0"
    if value >= 0.001:
        return f"{value:.3f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e\u2212{abs(int(exponent))}"


def megabytes(size_bytes: int) -> str:
    """Return a size in MB (10^6 bytes) or GB."""
    if size_bytes >= 10**9:
        return f"{size_bytes / 10**9:.2f} GB"
    return f"{size_bytes / 10**6:.1f} MB" if size_bytes >= 10**5 else f"{size_bytes / 1000:.1f} kB"


def rounded(items: int) -> int:
    """Return a number of items rounded up to two digits: it is an estimate."""
    step: int = 10 ** max(0, len(str(items)) - 2)
    return -(-items // step) * step


def margin_text(margin: float) -> str:
    """Return a margin in points without needless decimals."""
    return f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"


def counted(cells: Sequence[Comparison]) -> str:
    """Return how many cells have which verdict, the verdicts that occur only."""
    count = Counter(cell.verdict for cell in cells)
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict]) or "none"


def headline(report: DriftReport) -> str:
    """Return the one sentence that a reader takes away."""
    rows = list(report.rows)
    margin = margin_text(report.margins.overall)
    count = Counter(row.overall.verdict for row in rows)
    told = [f"{count[verdict]} {_VERBS[verdict][count[verdict] != 1]}" for verdict in VERDICTS if count[verdict]]
    listed = " and ".join(", ".join(told).rsplit(", ", 1))
    of = f" of {len(rows)} comparisons" if len(rows) > 1 else " comparison"
    first = str(count[next(verdict for verdict in VERDICTS if count[verdict])])
    sentence = f"At a margin of {margin} over all items, {listed.replace(first, first + of, 1)}."
    failing = sum(cell.verdict == "FAIL" for row in rows for cell in row.cells)
    if failing:
        cells = f"{failing} cell{'s' if failing > 1 else ''} {_VERBS['FAIL'][failing != 1]}"
        sentence += f" {cells} at {margin_text(report.margins.cell)}."
    if report.plan.state == "not kept":
        sentence += f" The plan was NOT kept: {', '.join(report.plan.changed)} changed."
    if report.unfinished:
        count_open = len(report.unfinished)
        sentence += f" NOT RUN to the end: {count_open} run{'s' if count_open > 1 else ''}."
    return sentence


def unfinished_text(run: Unfinished) -> str:
    """Return why a run that lies in the folder has no verdict."""
    return f"NOT RUN: {run.reason}."


def settle_text(found: Comparison) -> str:
    """Return what would settle an open verdict, empty where it is settled."""
    if found.verdict != "NOT ENOUGH ITEMS":
        return ""
    if found.items_to_settle is None:
        return "the difference seen lies too near the margin for items alone to settle it"
    return f"about {rounded(found.items_to_settle):,} items like these would settle it (power 0.8)"


def bootstrap_text(found: Comparison) -> str:
    """Return the limits by drawing clusters, beside those that decide; empty where there are none."""
    limits_by = found.bootstrap
    if limits_by is None:
        return ""
    return (
        f"by a bootstrap of the {found.clusters:,} clusters ({limits_by.draws:,} draws, not decisive) "
        f"[{points(limits_by.lower)}, {points(limits_by.upper)}] points"
    )


def token_lines(row: LevelDrift) -> tuple[str, ...]:
    """Return how far a level lies from the reference's replies token by token: over all, by cell, under each probe.

    Nothing where the level was not given the reference's replies.
    """
    lines = []
    for name, answers in (
        ("the reference's replies", row.overall.answers),
        *((f"its replies under {probe.probe}", probe.answers) for probe in row.probes),
    ):
        if answers and (found := answers.tokens):
            low, high = found.kl, found.kl_at_most
            lines.append(
                f"Given {name}, {found.items:,} of {low.items:,} tokens: KL per token mean about "
                f"{nats(found.mean_nats)} ({nats(low.mean_nats)} to {nats(high.mean_nats)}), 99th percentile "
                f"{nats(low.p99_nats)} to {nats(high.p99_nats)}, maximum {nats(low.max_nats)} to "
                f"{nats(high.max_nats)} nats; the same likeliest token at "
                f"{_shared(found.top1)}, the same reply throughout in {_shared(found.replies)}."
            )
    cells = [
        f"{cell.modality} \u00d7 {cell.task} {nats(found.mean_nats)} ({percent(found.top1.value)})"
        for cell in row.cells
        if cell.answers and (found := cell.answers.tokens)
    ]
    if cells:
        lines.append(f"Mean KL per token and the share of same likeliest tokens by cell: {'; '.join(cells)}.")
    return tuple(lines)


def _shared(found: Share) -> str:
    return f"{percent(found.value)} [{percent(found.lower)}, {percent(found.upper)}]"


def worst_cell_claim(row: LevelDrift, report: DriftReport) -> str:
    """Return the intersection-union claim, for what it is."""
    margin = margin_text(report.margins.cell)
    passed = sum(cell.verdict == "PASS" for cell in row.cells)
    if not row.cells:
        return f"No cell has {report.margins.cell_items} items, so nothing can be said of cells."
    if row.no_cell_worse:
        return (
            f"Shown: none of the {len(row.cells)} cells is worse than {margin} (every cell PASSes at 5 %; an "
            "intersection-union test, which needs no correction)."
        )
    return f"Not shown that no cell is worse than {margin}: {passed} of {len(row.cells)} cells PASS."


def named_claim(row: LevelDrift, report: DriftReport) -> str:
    """Return which cells are named worse, for what it is."""
    judged = sum(cell.verdict != "REFERENCE NOT COMPETENT" for cell in row.cells)
    names = ", ".join(f"{cell.modality} \u00d7 {cell.task}" for cell in row.named_worse)
    alone = sum(cell.verdict == "FAIL" and not cell.named_worse for cell in row.cells)
    also = f" {alone} more FAIL{'s' if alone == 1 else ''} alone at 5 %, not after the correction." if alone else ""
    if not judged:
        return "No cell could be judged."
    if names:
        return (
            f"Named worse than {margin_text(report.margins.cell)}, with a chance of at most 5 % that any of the names "
            f"is wrong (Holm over {judged} cells): {names}.{also}"
        )
    return f"No cell is named worse than {margin_text(report.margins.cell)} (Holm over {judged} cells).{also}"


def part_name(part: Knowledge) -> str:
    """Return what a row of the knowledge table speaks of."""
    if part.axis == "items":
        return f"{part.name} items"
    return "all questions" if part.axis == "all" else f"{part.axis} {part.name}"


def stored_text(stored: LevelDrift | NotRun) -> str:
    """Return why the first row is there, or why it could not be filled."""
    if isinstance(stored, NotRun):
        return f"NOT RUN: {stored.reason}."
    return "The merged checkpoint as stored on disk, against base plus adapter: rounding an adapter away is drift too."


def meanings(report: DriftReport) -> tuple[tuple[Verdict, str], ...]:
    """Return what each verdict means, with this report's margins."""
    overall, cell = margin_text(report.margins.overall), margin_text(report.margins.cell)
    return (
        (
            "PASS",
            f"A loss of {overall} or more ({cell} in a cell) is ruled out: the one-sided 95 % bound of the difference "
            "lies above it. And the reference beats the text-only prior beyond doubt (one-sided 0.001 %).",
        ),
        ("FAIL", "A loss of more than the margin is shown: the upper bound lies below it."),
        (
            "NOT ENOUGH ITEMS",
            "The margin lies between the bounds. This is no PASS. The number beside it says how many items like these "
            "would settle it four times out of five.",
        ),
        (
            "REFERENCE NOT COMPETENT",
            "The reference does not beat what can be answered without looking: the better of the majority answer per "
            "question and options, and the same model given a grey image. Such a reference can judge nothing. "
            "This is no PASS.",
        ),
    )


def plan_text(report: DriftReport) -> str:
    """Return whether a plan was written before the predictions, and kept."""
    found = report.plan
    if found.state == "none":
        return (
            f"The margins, {margin_text(report.margins.overall)} over all and {margin_text(report.margins.cell)} per "
            "cell, were given on the command line. No plan was written before the predictions, so this report cannot "
            "show that they were chosen beforehand."
        )
    if found.state == "kept":
        return (
            f"Plan kept: margins, cells, questions, scoring and reference are those of the plan {found.sha256[:16]}, "
            "and every run names it in the file that it begins with, before its first answer. That nobody had looked "
            "at other runs before, this cannot show."
        )
    return f"Plan NOT kept ({found.sha256[:16]}): {'; '.join(found.reasons)}."


def limits(report: DriftReport) -> tuple[str, ...]:
    """Return what the data cannot say, and how the figures are to be read."""
    found = [
        "Bounds are cluster-robust: questions about one patient or image share its luck, so the tool counts "
        f"{report.clusters:,} clusters, not {report.items:,} independent items.",
        "Accuracy of choices and yes/no is that of the likeliest option, "
        f"{report.settings.get('likelihood', 'per token')}; open answers count when they match "
        "exactly after normalising. Intervals of accuracy are Wilson's at 95 %, widened by the design effect.",
        "KL is measured over the options' probabilities. A small KL does not show that answers are kept, and an equal "
        "accuracy can hide many flips: read them together.",
        plan_text(report),
    ]
    if report.small_cells:
        names = ", ".join(f"{cell.modality} \u00d7 {cell.task} ({cell.items})" for cell in report.small_cells)
        found.append(f"Too small to print, below {report.margins.cell_items} items: {names}.")
    return tuple(found)
