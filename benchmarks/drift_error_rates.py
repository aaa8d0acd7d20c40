"""One question: does the drift verdict err in at most 6 % of draws at the margin, and decide where a plan says so?

Errors: outcomes of a reference and a level whose true difference is exactly minus the margin, for 20 to 2,000 clusters
of 1 to 8 items, equal and unequal, correlation 0 to 0.8, discordant pairs from the margin to 30 %; how often the code
that judges (evaluation/bounds.py) says PASS (too good) or FAIL (too bad), with the upper 95 % limit of each rate, and
Tango's bound per item, which ignores clusters, beside it. Power: the number of clusters that a plan prints
(evaluation/outlook.py) for a level without a true loss, and how often such a level has its bound above the margin at
that number, drawn anew. Every setting has its own seed, so shards and resumed runs give the figures of one run.

    python benchmarks/drift_error_rates.py --draws 20000 --out rates --shard 1/2 &
    python benchmarks/drift_error_rates.py --draws 20000 --out rates --shard 2/2
    python benchmarks/drift_error_rates.py --draws 20000 --out rates --table
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infimed.evaluation.bounds import is_above, is_below
from infimed.evaluation.intervals import clopper_pearson_upper, tango_score
from infimed.evaluation.outlook import Lead, clusters_needed
from infimed.evaluation.worlds import Flips, draw_pairs, grown

ALPHA, LIMIT, POWER = 0.05, 0.06, 0.8
Z = 1.6448536269514722
CLUSTERS = (20, 50, 100, 200, 500, 1000, 2000)
CORRELATIONS = (0.0, 0.3, 0.5, 0.8)
SHAPES = (("equal", 1), ("equal", 2), ("equal", 3), ("equal", 5), ("equal", 8),
          ("geometric", 2), ("geometric", 3), ("geometric", 5), ("geometric", 8), ("1 to 8", 4.5))  # fmt: skip
POWER_SHAPES = (("equal", 1), ("equal", 2), ("equal", 3), ("equal", 8), ("geometric", 3), ("1 to 8", 4.5))
# (margin, share of flips, items that an earlier simulation needed for power 0.8; 0 where it had none)
FLIPS = ((0.02, 0.002, 151), (0.02, 0.005, 237), (0.02, 0.01, 390), (0.02, 0.02, 480), (0.02, 0.05, 870),
         (0.02, 0.1, 1610), (0.05, 0.02, 124), (0.05, 0.05, 190), (0.05, 0.1, 275), (0.05, 0.3, 760))  # fmt: skip
SURE = Lead(0.95, 0.6)  # a reference whose lead is never in doubt: the power is the bound's


@dataclass(frozen=True)
class Setting:
    """One world. clusters: 0 where the number is a plan's ("power"). size: mean items of a cluster."""

    kind: str
    margin: float
    clusters: int
    size: float
    shape: str
    correlation: float
    discordant: float

    def seed(self) -> int:
        """Return the setting's own seed, whatever stands beside it in the grid."""
        return int.from_bytes(hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).digest()[:8], "big")


def settings() -> list[Setting]:
    """Return every world, errors first."""
    grid = [
        Setting("error", margin, clusters, size, shape, correlation, discordant)
        for margin, clusters, (shape, size), correlation in itertools.product(
            (0.02, 0.05), CLUSTERS, SHAPES, CORRELATIONS
        )
        if size > 1 or not correlation
        for discordant in dict.fromkeys((margin, round(1.5 * margin, 4), 0.10, 0.30))
    ]
    return grid + [
        Setting("power", margin, 0, size, shape, correlation, flips)
        for (margin, flips, _), (shape, size), correlation in itertools.product(FLIPS, POWER_SHAPES, (0.0, 0.3, 0.8))
        if size > 1 or not correlation
    ]


def sizes_of(shape: str, mean: float, clusters: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return items per cluster: all equal, geometric with this mean, or each of 1 to 8 alike."""
    if shape == "equal":
        return np.full(clusters, round(mean), dtype=np.int64)
    if shape == "geometric":
        return rng.geometric(1 / mean, clusters).astype(np.int64)
    return rng.integers(1, 9, clusters).astype(np.int64)


def measure(setting: Setting, draws: int) -> dict[str, Any]:
    """Return what one setting showed: counts of draws, and for "power" the plan's numbers."""
    rng = np.random.default_rng(setting.seed())
    if setting.kind == "power":
        return _measure_power(setting, draws, rng)
    sizes = sizes_of(setting.shape, setting.size, setting.clusters, rng)
    flips = Flips.of(setting.discordant, -setting.margin, setting.correlation)
    pairs = draw_pairs(sizes, flips, draws, rng)
    per_item = tango_score(pairs.harmful, pairs.healing, pairs.items, -setting.margin)
    return {
        "passed": int(is_above(pairs, -setting.margin, ALPHA).sum()),
        "failed": int(is_below(pairs, -setting.margin, ALPHA).sum()),
        "passed_per_item": int((per_item > Z).sum()),
        "failed_per_item": int((per_item < -Z).sum()),
    }


def _measure_power(setting: Setting, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    shape = sizes_of(setting.shape, setting.size, 400, rng)
    flips = Flips.of(setting.discordant, 0.0, setting.correlation)
    clusters = clusters_needed(shape, flips, setting.margin, SURE)
    if clusters is None:
        return {"clusters": 0, "items": 0, "passed": 0}
    sizes = grown(shape, clusters)
    pairs = draw_pairs(sizes, flips, draws, rng)
    above = int(is_above(pairs, -setting.margin, ALPHA).sum())
    return {"clusters": clusters, "items": int(sizes.sum()), "passed": above}


def read_rows(folder: Path, draws: int) -> dict[Setting, dict[str, Any]]:
    """Return what any shard has measured with this many draws; a torn last line counts as not measured."""
    found = {}
    for path in sorted(folder.glob("rates.*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if row["draws"] == draws:
                found[Setting(**row["setting"])] = row["found"]
    return found


def run(grid: Iterable[Setting], draws: int, folder: Path, name: str) -> None:
    """Measure what the folder lacks and append each row when it is there."""
    done, started = read_rows(folder, draws), time.perf_counter()
    left = [setting for setting in grid if setting not in done]
    path = folder / f"rates.{name}.jsonl"
    with path.open("ab") as out:
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            out.write(b"\n")  # a killed process left half a line
        for number, setting in enumerate(left, 1):
            row = {"setting": asdict(setting), "draws": draws, "found": measure(setting, draws)}
            out.write((json.dumps(row) + "\n").encode())
            out.flush()
            os.fsync(out.fileno())
            if number % 50 == 0 or number == len(left):
                print(f"{number} of {len(left)} settings, {time.perf_counter() - started:.0f} s", file=sys.stderr)


def limit(count: int, draws: int) -> float:
    """Return the upper 95 % limit of a rate that was drawn."""
    return float(clopper_pearson_upper(count, draws, ALPHA))


def error_lines(rows: dict[Setting, dict[str, Any]], draws: int) -> Iterator[str]:
    """Yield the errors by number and size of clusters, and every setting whose limit lies above 6 %."""
    yield "| clusters | items each | settings | PASS at the margin: median | worst | its 95 % limit | FAIL: median | worst | its 95 % limit | PASS per item, worst | FAIL per item, worst |"  # noqa: E501
    yield "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    errors = {setting: found for setting, found in rows.items() if setting.kind == "error"}
    for clusters, (shape, size) in itertools.product(CLUSTERS, SHAPES):
        here = [f for s, f in errors.items() if (s.clusters, s.shape, s.size) == (clusters, shape, size)]
        if not here:
            continue
        cells = []
        for name in ("passed", "failed"):
            counts = [found[name] for found in here]
            cells += [np.median(counts) / draws, max(counts) / draws, limit(max(counts), draws)]
        cells += [max(found[name] for found in here) / draws for name in ("passed_per_item", "failed_per_item")]
        told = " | ".join(f"{100 * cell:.1f} %" for cell in cells)
        yield f"| {clusters:,} | {size_name(shape, size)} | {len(here)} | {told} |"
    for name in ("passed", "failed"):
        above = [(found[name], s) for s, found in errors.items() if limit(found[name], draws) > LIMIT]
        worst = max((found[name] for found in errors.values()), default=0)
        yield ""
        yield (
            f"{name} at the margin: worst {worst / draws:.2%}, upper 95 % limit {limit(worst, draws):.2%} of {draws:,} "
            f"draws; limit at most 6 % in {len(errors) - len(above)} of {len(errors)} settings"
        )
        yield from (f"- {count / draws:.2%}: {s}" for count, s in sorted(above, key=lambda pair: -pair[0]))


def power_lines(rows: dict[Setting, dict[str, Any]], draws: int) -> Iterator[str]:
    """Yield the plan's numbers and the power at them; then how many have at least 0.8."""
    yield "| margin | flips | items each | correlation | clusters | items | simulated elsewhere | ratio | power |"
    yield "|---:|---:|---|---:|---:|---:|---:|---:|---:|"
    enough = total = 0
    for setting, found in rows.items():
        if setting.kind != "power":
            continue
        elsewhere = next(n for margin, flips, n in FLIPS if (margin, flips) == (setting.margin, setting.discordant))
        alone = setting.size == 1
        total, enough = total + 1, enough + (limit(found["passed"], draws) >= POWER)
        ratio = f"{found['items'] / elsewhere:.3f}"
        yield (
            f"| {setting.margin:.0%} | {setting.discordant:.1%} | {size_name(setting.shape, setting.size)} | "
            f"{setting.correlation:g} | {found['clusters']:,} | {found['items']:,} | {elsewhere if alone else ''} | "
            f"{ratio if alone else ''} | {found['passed'] / draws:.1%} |"
        )
    yield ""
    yield f"power at least 80 % within the uncertainty of {draws:,} draws: {enough} of {total} settings"


def size_name(shape: str, size: float) -> str:
    """Return how a table names the sizes of clusters."""
    return {"equal": f"{size:g}", "geometric": f"geometric, mean {size:g}"}.get(shape, shape)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=20_000, help="draws of each setting [20000]")
    parser.add_argument("--out", type=Path, help="folder of the rows; the same call goes on with it [none is kept]")
    parser.add_argument("--shard", default="1/1", help="I/N: every N-th setting from the I-th on [1/1]")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, measure nothing")
    parser.add_argument("--small", action="store_true", help="a few settings with few draws: that it runs at all")
    asked = parser.parse_args()
    index, number = (int(part) for part in asked.shard.split("/"))
    if not 1 <= index <= number:
        parser.error(f"--shard {asked.shard}: I lies in 1..N")
    grid, draws = settings(), 200 if asked.small else asked.draws
    if asked.small:
        grid = [setting for setting in grid if setting.clusters in (0, 100) and setting.size < 3][::12]
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not asked.table:
            run(grid[index - 1 :: number], draws, folder, f"{index}of{number}")
        found = read_rows(folder, draws)
    rows = {setting: found[setting] for setting in grid if setting in found}
    print("\n".join([*error_lines(rows, draws), "", *power_lines(rows, draws)]))
    if len(rows) < len(grid):
        print(f"\n{len(grid) - len(rows)} of {len(grid)} settings are not there yet")
    missed = [s for s, f in rows.items() if s.kind == "error" and limit(max(f["passed"], f["failed"]), draws) > LIMIT]
    weak = [s for s, f in rows.items() if s.kind == "power" and limit(f["passed"], draws) < POWER]
    return 0 if asked.small or not (missed or weak) else 1


if __name__ == "__main__":
    sys.exit(main())
