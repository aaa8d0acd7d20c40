"""The table of benchmarks as a person reads it, and as JSON. Knows the table, no file."""

from __future__ import annotations

from .benchmarks import BENCHMARKS, Benchmark
from .example import JSON
from .import_layouts import LAYOUTS


def told() -> list[JSON]:
    """Return the benchmarks as JSON objects, in the table's order."""
    return [
        {
            "name": row.name,
            "title": row.title,
            "license": row.license,
            "home": row.home,
            "fields": [list(form.keys) for form in row.forms],
            "files": [list(form.files) for form in row.forms],
            "recognised": any(form.telling for form in row.forms),
            "splits": {split: role or "no role" for split, role in row.splits.items()},
            "subsets": row.subsets,
            "modality": row.modality,
            "task": row.task,
        }
        for row in BENCHMARKS
    ]


def written() -> str:
    """Return the benchmarks as text, one paragraph each, then the plain layouts."""
    plain = [f"{layout.name:14}{layout.about}" for layout in LAYOUTS if layout.benchmark is None]
    return "\n\n".join((*(_paragraph(row) for row in BENCHMARKS), "Plain layouts:\n" + "\n".join(plain)))


def _paragraph(row: Benchmark) -> str:
    named = [form for form in row.forms if not form.telling]
    lines = {
        "files": row.home,
        "licence": row.license,
        "fields": "; or ".join(", ".join(form.keys) for form in row.forms)
        + (f" (the last needs --layout {row.name})" if named else ""),
        "splits": ", ".join(f"{split} ({role or 'no role'})" for split, role in row.splits.items()),
        "subsets": row.subsets,
        "modality": row.modality,
        "task": row.task,
    }
    return "\n".join((f"{row.name:14}{row.title}", *(f"  {name:10}{text}" for name, text in lines.items() if text)))
