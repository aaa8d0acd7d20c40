"""How often do the extraction rules say what a careful reader says, and do they ever guess?

A labelled file has one reply per line: id, question, answer_type, options, reply, says (the index of an option, yes,
no, a short answer, or null where the reply says nothing). Three ways to disagree are told apart: missed (INVALID where
the reader found an answer), guessed (an answer where the reader found none, or another option), and longer (an open
answer that is not cut down to the reader's words; it is compared by token F1 all the same).

tests/evaluation/replies.jsonl was labelled before the rules were run on it, and the rules were then improved in its
sight: on it this prints "development". Name another file for figures on replies that the rules were not written for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infimed.evaluation.extraction import extract
from infimed.evaluation.intervals import wilson
from infimed.evaluation.scoring import normalise, token_overlap

DEVELOPMENT = Path(__file__).resolve().parents[1] / "tests" / "evaluation" / "replies.jsonl"
OUTCOMES = ("agreed", "missed", "guessed", "longer")


@dataclass(frozen=True)
class Judged:
    """One labelled reply and what the rules made of it. outcome: one of OUTCOMES. f1: of an open answer, else None."""

    id: str
    answer_type: str
    outcome: str
    wanted: str | None
    found: str | None
    f1: float | None


def judged(path: Path) -> Iterator[Judged]:
    """Yield each reply of a labelled file with its outcome."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        kind, says = row["answer_type"], row["says"]
        wanted = row["options"][says] if kind == "choice" and says is not None else says
        found = extract(row["reply"], answer_type=kind, options=row["options"], question=row["question"]).answer
        same = found == wanted
        if kind == "open" and found is not None and wanted is not None:
            same = normalise(found) == normalise(wanted)
        if same:
            outcome = "agreed"
        elif found is None:
            outcome = "missed"
        else:
            outcome = "longer" if kind == "open" and wanted is not None else "guessed"
        f1 = None
        if kind == "open" and found is not None and wanted is not None:
            f1 = token_overlap(found, wanted).f1
        yield Judged(row["id"], kind, outcome, wanted, found, f1)


def main() -> int:
    """Print the agreement per answer type and every disagreement; return 1 if anything was guessed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("replies", type=Path, nargs="?", default=DEVELOPMENT, help="the labelled file")
    parser.add_argument("--quiet", action="store_true", help="leave out the single disagreements")
    given = parser.parse_args()
    rows = list(judged(given.replies))
    kind = "development" if given.replies.resolve() == DEVELOPMENT else "labelled replies"
    print(f"{kind}: {given.replies.name}, sha256 {hashlib.sha256(given.replies.read_bytes()).hexdigest()}")
    print(f"{'':8}{'replies':>9}" + "".join(f"{name:>9}" for name in OUTCOMES) + "  agreement [95 %, Wilson]")
    for name in (*sorted({row.answer_type for row in rows}), "all"):
        part = [row for row in rows if name in (row.answer_type, "all")]
        counts = Counter(row.outcome for row in part)
        interval = wilson(counts["agreed"], len(part))
        print(
            f"{name:8}{len(part):9}" + "".join(f"{counts[outcome]:9}" for outcome in OUTCOMES)
            + f"  {counts['agreed'] / len(part):.1%} [{interval.lower:.1%}, {interval.upper:.1%}]"
        )  # fmt: skip
    overlaps = [row.f1 for row in rows if row.f1 is not None]
    if overlaps:
        mean = sum(overlaps) / len(overlaps)
        print(f"open answers: mean token F1 of what is compared with what the reader wrote: {mean:.3f}")
    for row in rows:
        if row.outcome != "agreed" and not given.quiet:
            print(f"{row.outcome:8}{row.id}: the reader says {row.wanted!r}, the rules {row.found!r}")
    return int(any(row.outcome == "guessed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
