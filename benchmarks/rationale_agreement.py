"""How often the rules that read reasoning agree with a careful reader, on a file of labelled rationales.

python benchmarks/rationale_agreement.py tests/evaluation/rationales.jsonl [--show]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from infimed.evaluation.intervals import wilson
from infimed.evaluation.rationale import rationale

FIELDS = ("modality", "organ", "side", "follows")
UNSAID = ("not named", "undecidable")  # what is no claim


def read(row: dict[str, Any]) -> dict[str, str | None]:
    """Return what the rules say of a labelled row, by field."""
    asked = {"answer_type": row["answer_type"], "options": row["options"], "question": row["question"]}
    found = rationale(row["reply"], row["record"], **asked)
    return {field: getattr(found, field) if found else "no reasoning" for field in FIELDS}


def agreement(path: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """Return, by field, how many labels agreed, were missed (no claim made) or were wrong; and the differences."""
    counts: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
    differences = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        said = read(row)
        for field in FIELDS:
            if row[field] is None:
                continue
            kind = "agreed" if said[field] == row[field] else "missed" if said[field] in UNSAID else "wrong"
            counts[field][kind] += 1
            if kind != "agreed":
                differences.append(f"{row['id']} {field}: {said[field]}, not {row[field]}: {row['reply']!r}")
    return counts, differences


def main() -> None:
    """Print the table, and with --show every difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    counts, differences = agreement(arguments.file)
    for field, found in (*counts.items(), ("all", sum(counts.values(), Counter[str]()))):
        total = sum(found.values())
        bounds = wilson(found["agreed"], total)
        print(
            f"{field:9} {found['agreed']:4} of {total:4} agreed, {found['agreed'] / total:6.1%} "
            f"[{bounds.lower:.1%}, {bounds.upper:.1%}]; missed {found['missed']}, wrong {found['wrong']}"
        )
    if arguments.show:
        print("\n".join(differences))


if __name__ == "__main__":
    main()
