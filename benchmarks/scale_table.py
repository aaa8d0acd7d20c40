"""How are the figures of scale told? A row per tool and step, ratios to the peer of the same run, as a Markdown table.

`table` also says whether each goal of GOALS is met; run as a file, it prints the table of a JSON that export_scale.py
wrote.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infimed.benchmarks.anon_memory import Metered

OURS = "infimed"
LIBRARIES = ("torch", "transformers", "gguf", "llama_cpp_python", "onnx", "onnxruntime", "numpy")
# Step -> the largest share of the peer's time, and of anonymous memory in 10^9 bytes, that we set ourselves.
GOALS: dict[str, tuple[float | None, float | None]] = {
    "merge": (None, 1.0),
    "a": (1.0, 0.7),
    "b": (1.0, 1.0),
    "c": (0.6, None),
    "d": (None, 2.5),
}
TITLES = {
    "merge": "merge of a rank-8 adapter",
    "a": "GGUF f16",
    "b": "GGUF q4_k_m",
    "c": "GGUF, six levels",
    "d": "ONNX",
}
COLUMNS = (
    "step", "tool", "wall s", "processor s", "anonymous GB", "bytes/parameter", "written GB", "wall to peer", "goal",
    "note",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One tool's way through a step: its processes in order, one after the other. parameters: of the decoder, or 0."""

    step: str
    tool: str
    runs: tuple[Metered, ...]
    written_bytes: int
    levels: tuple[str, ...] = ()
    parameters: int = 0
    note: str = ""

    @property
    def wall_s(self) -> float:
        """All its processes together."""
        return sum(run.wall_s for run in self.runs)

    @property
    def processor_s(self) -> float:
        """All its processes together."""
        return sum(run.processor_s for run in self.runs)

    @property
    def anon_bytes(self) -> int:
        """The largest of its processes."""
        return max((run.anon_bytes for run in self.runs), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return what `Row` holds and derives, without what the processes printed."""
        return {
            "step": self.step,
            "tool": self.tool,
            "levels": list(self.levels),
            "wall_s": self.wall_s,
            "processor_s": self.processor_s,
            "anon_bytes": self.anon_bytes,
            "written_bytes": self.written_bytes,
            "parameters": self.parameters,
            "note": self.note,
            "runs": [[run.wall_s, run.processor_s, run.anon_bytes, run.resident_bytes] for run in self.runs],
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> Row:
        """Return the row that `to_json` told."""
        runs = tuple(
            Metered(0, wall, busy, anon, resident, False, "", "") for wall, busy, anon, resident in value["runs"]
        )
        return Row(
            value["step"], value["tool"], runs, value["written_bytes"], tuple(value["levels"]), value["parameters"],
            value["note"],
        )  # fmt: skip


def conditions(threads: int) -> dict[str, Any]:
    """Return what a figure depends on beside the code: machine, versions, threads, load at the start."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "processor": model,
        "threads": threads,
        "processors": len(os.sched_getaffinity(0)),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown; ratios are ours to the first peer's of the same step."""
    lines = [
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    for row in rows:
        ours = row.tool == OURS or row.tool == "infimed int4"
        peers = [other for other in rows if other.step == row.step and not other.tool.startswith(OURS)]
        ratio = row.wall_s / peers[0].wall_s if row.tool == OURS and peers and peers[0].wall_s else None
        each = f"{row.anon_bytes / row.parameters:.2f}" if row.parameters and row.runs else ""
        cells = (
            TITLES.get(row.step, row.step),
            row.tool,
            f"{row.wall_s:.1f}",
            f"{row.processor_s:.1f}",
            f"{row.anon_bytes / 1e9:.2f}",
            each,
            f"{row.written_bytes / 1e9:.2f}",
            "" if ratio is None else f"{ratio:.2f}",
            _goal(row, ratio) if ours else "",
            row.note,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _goal(row: Row, ratio: float | None) -> str:
    most, most_gb = GOALS.get(row.step, (None, None))
    said = []
    if most is not None and ratio is not None:
        said.append(f"time <= {most:g}: {'met' if ratio <= most else 'missed'}")
    if most_gb is not None:
        said.append(f"memory <= {most_gb:g} GB: {'met' if row.anon_bytes <= most_gb * 1e9 else 'missed'}")
    return "; ".join(said)


def main() -> None:
    """Print the table of a run, or of made-up rows where no file is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, nargs="?", help="what export_scale.py --json wrote")
    given = parser.parse_args()
    if given.json:
        value = json.loads(given.json.read_text("utf-8"))
        rows = [Row.from_json(row) for row in value.pop("rows")]
        print(json.dumps(value) + "\n")
    else:
        run = Metered(0, 1.0, 1.0, 10**8, 10**8, False, "", "")
        rows = [Row("a", OURS, (run,), 10**9), Row("a", "llama.cpp", (run, run), 10**9, note="made up")]
        if [Row.from_json(row.to_json()) for row in rows] != rows:
            raise SystemExit("a row told as JSON comes back as another")
    print(table(rows))


if __name__ == "__main__":
    main()
