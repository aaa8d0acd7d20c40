"""How far from torch is every level of one model?

Each level is exported, opened in its engine and held against torch in float32: KL(torch || level) in nats over the rows
that predict the tokens of torch's own greedy reply. Two sets of prompts: the golden ones that every export measures on,
whose drawn images and mixed texts a trained model is unsure of, and held-out questions on phantoms, which it knows.
Intervals are 95 %, by a bootstrap over prompts and over images. They say how far other prompts would have moved the
figures of these files, and nothing of another model. Calibrated levels (+imatrix, int8-static) are made from phantoms
of other seeds than those asked about. Prints a Markdown table; the seed fixes every figure.

    python benchmarks/level_kl.py [--model CHECKPOINT] [--format onnx] [--levels onnx-int4 onnx-int4-hqq]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infimed.benchmarks.calibration_kl import (
    BASE,
    KINDS,
    PHANTOM_SEED,
    Bootstrap,
    Item,
    Measured,
    items_of,
    levels_of,
    measure,
)
from infimed.evaluation.phantoms import write_phantoms
from infimed.export.calibration_run import calibrate
from infimed.export.parity import take_references
from infimed.export.probes import make_probes
from infimed.runtime.levels import LEVELS, Format, level
from infimed.runtime.open_engine import computed_as
from infimed.runtime.prompt import Prompter
from infimed.training.reference import open_reference

FORMATS: tuple[Format, ...] = ("gguf", "onnx", "tensorrt")
HEAD = (
    "| level | files | golden prompts, mean KL | top-1 | questions, mean KL | top-1 |\n|---|---:|---:|---:|---:|---:|"
)


@dataclass(frozen=True, eq=False)
class Set:
    """Prompts with torch's answers, and the draws of their intervals."""

    items: Sequence[Item]
    bootstrap: Bootstrap

    @classmethod
    def of(cls, items: Sequence[Item], draws: int, seed: int) -> Set:
        """Return the prompts with `draws` draws of their groups."""
        rows = np.array([float(len(item.rows)) for item in items])
        return cls(items, Bootstrap([item.group for item in items], rows, draws, seed))

    @property
    def rows(self) -> int:
        """How many rows of logits are compared."""
        return sum(len(item.rows) for item in self.items)

    def cells(self, found: Measured) -> str:
        """Return the mean with its interval, and the share of rows with the same top-1."""
        mean, lower, upper = self.bootstrap.mean(found.kl)
        return f"{mean:.1e} ({lower:.1e} to {upper:.1e}) | {found.same.sum() / self.rows:.2%}"


def table(checkpoint: Path, names: Sequence[str], probes: int, images: int, draws: int, seed: int, work: Path) -> str:
    """Export and measure the levels, and return the Markdown table."""
    reference = open_reference(checkpoint, threads=1)
    golden = [
        Item(one.probe.id, one.probe.messages, one.continuation, one.rows)
        for one in take_references(reference, make_probes(probes, Prompter.open(checkpoint).pixel_rules))
    ]
    asked = write_phantoms(work / "asked", images, PHANTOM_SEED, KINDS, per_image=3, roles={"test": 1.0})
    questions = items_of(asked, reference, len(asked.examples), seed)
    reference.close()
    sets = [Set.of(items, draws, seed) for items in (golden, questions)]
    activations = None
    if any(level(name).calibrated for name in names):
        roles = {"calibration": 1.0}
        seen = write_phantoms(work / "seen", 60, PHANTOM_SEED + 1, KINDS, per_image=3, roles=roles)  # type: ignore[arg-type]
        activations = calibrate(checkpoint, seen, cache=work / "cache")
    lines = [", ".join(f"{len(one.items)} prompts, {one.rows} rows" for one in sets) + "\n", HEAD]
    for entry, engine in levels_of(checkpoint, work, names, activations):
        print(entry.name, file=sys.stderr, flush=True)
        cells = " | ".join(one.cells(measure(engine, one.items)) for one in sets)
        told = f"{entry.name} ({how})" if (how := computed_as(entry.name)) else entry.name
        lines.append(f"| {told} | {entry.weight_bytes / 1e6:.1f} MB | {cells} |")
    return "\n".join(lines)


def names_of(format: Format) -> list[str]:
    """Return every level of a format, each with an importance matrix too where it may have one."""
    rows = [row for row in LEVELS if row.format == format]
    weighed = {row.base: f"{row.base}+imatrix" for row in rows if row.importance == "optional"}
    return [name for row in rows for name in (row.name, weighed.get(row.base, "")) if name]


def main() -> None:
    """Print the table of each format asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BASE, help="a checkpoint (default: the embedded base model)")
    parser.add_argument("--format", choices=FORMATS, nargs="*", default=FORMATS)
    parser.add_argument("--levels", nargs="*", help="these alone (default: all of the formats)")
    parser.add_argument("--probes", type=int, default=48, help="golden prompts (default 48)")
    parser.add_argument("--images", type=int, default=30, help="phantoms asked about (default 30)")
    parser.add_argument("--draws", type=int, default=10_000, help="of the bootstrap (default 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for format in given.format:
        names = [name for name in given.levels or names_of(format) if level(name).format == format]
        if not names:
            continue
        with tempfile.TemporaryDirectory(prefix="infimed-levels-") as folder:
            work = Path(folder)
            print(
                "\n" + table(given.model, names, given.probes, given.images, given.draws, given.seed, work), flush=True
            )
            shutil.rmtree(work / "bundle", ignore_errors=True)


if __name__ == "__main__":
    main()
