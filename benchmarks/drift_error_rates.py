"""One question: how often does the drift verdict err when a level's true loss lies exactly at the margin?

Draws outcomes of a reference and a level whose true difference is -margin, for many numbers, sizes and correlations of
clusters and shares of discordant pairs, and counts how often the code that judges (evaluation/bounds.py) says PASS
(too good) or FAIL (too bad). Each should stay near the nominal 5 %. Tango's bound per item, which ignores clusters, is
counted beside it. Then the same where the risk lies in few clusters only; how often a reference at chance lets an
unchanged level PASS; how often a loss of 15 points in a cell of 200 items FAILs; and how often a harmless level PASSes.
Prints Markdown tables; the seed fixes every figure.

    python benchmarks/drift_error_rates.py --draws 2000
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infimed.evaluation.bounds import PairedClusters, from_counts, hidden_loss, is_above, is_below, paired_clusters
from infimed.evaluation.intervals import tango_score
from infimed.evaluation.verdict import PASS, verdict_codes

ALPHA = 0.05
Z = 1.6448536269514722
CHUNK_COUNTS = 4_000_000  # clusters x draws held at once


@dataclass(frozen=True)
class Setting:
    """One world. discordant: share of items on which the two runs differ. correlation: of two items of a cluster."""

    margin: float
    clusters: int
    mean_size: float
    shape: str
    correlation: float
    discordant: float

    @property
    def delta(self) -> float:
        return -self.margin


@dataclass(frozen=True)
class Rates:
    """Shares of draws."""

    setting: Setting
    passed: float
    failed: float
    passed_per_item: float
    failed_per_item: float


def sizes_of(setting: Setting, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return items per cluster: all equal, or geometric with the same mean."""
    if setting.shape == "equal":
        return np.full(setting.clusters, round(setting.mean_size), dtype=np.int64)
    return rng.geometric(1 / setting.mean_size, setting.clusters).astype(np.int64)


def draw(setting: Setting, sizes: NDArray[np.int64], draws: int, rng: np.random.Generator) -> PairedClusters:
    """Draw outcomes: each item copies its cluster's fate with probability sqrt(correlation), else has its own."""
    harm = (setting.discordant - setting.delta) / 2
    heal = setting.discordant - harm
    shape = (draws, len(sizes))
    copies = rng.binomial(sizes, np.sqrt(setting.correlation), shape) if setting.correlation else np.zeros(shape, int)
    fate = rng.random(shape)
    own = sizes - copies
    harmful = rng.binomial(own, harm)
    healing = rng.binomial(own - harmful, heal / (1 - harm))
    harmful = harmful + copies * (fate < harm)
    healing = healing + copies * ((fate >= harm) & (fate < harm + heal))
    return from_counts(harmful, healing, sizes)


def measure(setting: Setting, draws: int, seed: int) -> Rates:
    """Return how often each verdict falls in one setting."""
    rng = np.random.default_rng(seed)
    sizes = sizes_of(setting, rng)
    counts = np.zeros(4)
    done = 0
    while done < draws:
        step = min(draws - done, max(1, CHUNK_COUNTS // len(sizes)))
        pairs = draw(setting, sizes, step, rng)
        per_item = tango_score(pairs.harmful, pairs.healing, pairs.items, setting.delta)
        counts += [
            is_above(pairs, setting.delta, ALPHA).sum(),
            is_below(pairs, setting.delta, ALPHA).sum(),
            (per_item > Z).sum(),
            (per_item < -Z).sum(),
        ]
        done += step
    passed, failed, passed_item, failed_item = (float(value) for value in counts / draws)
    return Rates(setting, passed, failed, passed_item, failed_item)


def settings(full: bool) -> list[Setting]:
    """Return the worlds: the moderate grid, or every combination of the notes' ranges."""
    clusters = (20, 50, 100, 200, 500, 1000, 2000) if full else (20, 50, 200, 1000)
    correlations = (0.0, 0.2, 0.5, 0.8) if full else (0.0, 0.3, 0.8)
    grid = []
    for margin, number, size, shape, correlation in itertools.product(
        (0.02, 0.05), clusters, (1, 2, 3, 8) if full else (1, 3, 8), ("equal", "geometric"), correlations
    ):
        if size == 1 and (shape == "geometric" or correlation):
            continue
        for discordant in dict.fromkeys((margin, 1.5 * margin, 0.10, 0.30)):
            grid.append(Setting(margin, number, size, shape, correlation, discordant))
    return grid


@dataclass(frozen=True)
class Cell:
    """Questions in clusters of equal size. correlation: of the luck of two questions of one cluster."""

    items: int
    per_cluster: int
    correlation: float

    def luck(self, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return uniform numbers, (draws, items), that clusters share in part."""
        own = rng.random((draws, self.items))
        shared = rng.random((draws, self.clusters[-1] + 1))[:, self.clusters]
        return np.where(rng.random((draws, self.items)) < np.sqrt(self.correlation), shared, own)

    @property
    def clusters(self) -> NDArray[np.int64]:
        return np.arange(self.items) // self.per_cluster


def batches(draws: int, size: int = 500) -> list[int]:
    """Return how many draws to hold at once, time after time."""
    return [min(size, draws - start) for start in range(0, draws, size)]


def chance_passes(cell: Cell, chance: float, draws: int, seed: int) -> tuple[float, float]:
    """Return the share of draws in which a reference at chance passes an unchanged level.

    First with the gate that a PASS asks for, then with the 5 % bound on the lead alone. Both priors are at chance too,
    and the better of them counts.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros(2)
    for step in batches(draws):
        reference, majority, grey = (cell.luck(step, rng) < chance for _ in range(3))
        prior = np.where(grey.mean(1, keepdims=True) > majority.mean(1, keepdims=True), grey, majority)
        same, lead = (paired_clusters(first, reference, cell.clusters) for first in (reference, prior))
        loose = is_above(lead, 0.0, ALPHA) & is_above(same, -0.05, ALPHA)
        counts += [(verdict_codes(same, lead, 0.05) == PASS).sum(), loose.sum()]
    passed, passed_loosely = (float(value) for value in counts / draws)
    return passed, passed_loosely


def loss_fails(cell: Cell, loss: float, healing: float, margin: float, draws: int, seed: int) -> float:
    """Return the share of draws in which a planted loss FAILs the cell. healing: share of items that turn right."""
    rng = np.random.default_rng(seed)
    failed = 0
    for step in batches(draws):
        reference, flip = cell.luck(step, rng) < 0.85, cell.luck(step, rng)
        lost = reference & (flip < (healing + loss) / 0.85)
        level = (reference & ~lost) | (~reference & (flip < healing / 0.15))
        failed += int(is_below(paired_clusters(reference, level, cell.clusters), -margin, ALPHA).sum())
    return failed / draws


@dataclass(frozen=True)
class Uneven:
    """A world whose risk lies in some clusters only, each of which is lost whole or not at all.

    at_risk: (clusters, items each). others: the same for the clusters without that risk. risk: of losing such a
    cluster. Beside it, as many items turn right as wrong: `noise` each way.
    """

    at_risk: tuple[int, int]
    others: tuple[int, int]
    risk: float

    def draw(self, noise: float, draws: int, rng: np.random.Generator) -> PairedClusters:
        sizes = np.repeat([self.at_risk[1], self.others[1]], [self.at_risk[0], self.others[0]])
        lost = np.zeros((draws, len(sizes)), dtype=np.int64)
        lost[:, : self.at_risk[0]] = (rng.random((draws, self.at_risk[0])) < self.risk) * self.at_risk[1]
        harmful = lost + rng.binomial(sizes - lost, noise)
        return from_counts(harmful, rng.binomial(sizes - harmful, noise / (1 - noise)), sizes)

    @property
    def loss(self) -> float:
        """The true loss, which is the margin at which the world is judged."""
        items = self.at_risk[0] * self.at_risk[1]
        return items * self.risk / (items + self.others[0] * self.others[1])


UNEVEN = (
    Uneven((1, 40), (960, 1), 0.5), Uneven((2, 45), (1400, 1), 0.33), Uneven((4, 30), (1500, 1), 0.27),
    Uneven((4, 14), (1500, 1), 0.556), Uneven((5, 12), (300, 3), 0.32), Uneven((12, 12), (250, 3), 0.15),
    Uneven((20, 30), (2000, 1), 0.1), Uneven((20, 30), (9400, 1), 0.333), Uneven((40, 5), (0, 1), 0.05),
    Uneven((100, 3), (0, 1), 0.05), Uneven((200, 3), (0, 1), 0.02), Uneven((500, 2), (0, 1), 0.02),
)  # fmt: skip


def uneven_table(draws: int, seed: int) -> str:
    """Return how often a loss at exactly the margin passes where few clusters carry it, as Markdown."""
    lines = [
        "\n| clusters at risk | risk | others | loss = margin | hidden | PASS at the margin: no noise | 1 % | 5 % |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for world in UNEVEN:
        rng, rates, hidden = np.random.default_rng(seed), [], 0.0
        for noise in (0.0, 0.01, 0.05):
            passed = 0
            for step in batches(draws):
                pairs = world.draw(noise, step, rng)
                passed += int(is_above(pairs, -world.loss, ALPHA).sum())
                hidden = float(hidden_loss(pairs.held, ALPHA))
            rates.append(f"{passed / draws:.1%}")
        risk, others = "{} of {}".format(*world.at_risk), "{} of {}".format(*world.others) if world.others[0] else ""
        lines.append(f"| {risk} | {world.risk:g} | {others} | {world.loss:.2%} | {hidden:.2%} | {' | '.join(rates)} |")
    return "\n".join(lines)


def power_table(draws: int, seed: int) -> str:
    """Return how often a level without a true loss has a lower bound above the margin, as Markdown."""
    lines = [
        "\n| clusters | items each | sizes | margin | discordant | hidden | bound above the margin, no true loss |",
        "|---:|---:|---|---:|---:|---:|---:|",
    ]
    for (number, size, shape), (margin, discordant) in itertools.product(
        ((200, 3, "equal"), (200, 3, "geometric"), (600, 3, "equal"), (600, 3, "geometric"), (600, 8, "geometric")),
        ((0.02, 0.005), (0.02, 0.05), (0.05, 0.05)),
    ):
        rng = np.random.default_rng(seed)
        setting = Setting(margin, number, size, shape, 0.3, discordant)
        harmless = Setting(0.0, number, size, shape, 0.3, discordant)
        pairs = draw(harmless, sizes_of(setting, rng), draws, rng)
        hidden, above = float(hidden_loss(pairs.held, ALPHA)), is_above(pairs, -margin, ALPHA).mean()
        lines.append(f"| {number} | {size} | {shape} | {margin:.0%} | {discordant:.1%} | {hidden:.2%} | {above:.1%} |")
    return "\n".join(lines)


def table(rates: list[Rates]) -> str:
    """Return the worst rates by number of clusters and mean size, as Markdown."""
    lines = [
        "| clusters | items each | settings | PASS at the margin: median | worst | FAIL at the margin: median | worst "
        "| PASS per item, worst | FAIL per item, worst |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key in sorted({(rate.setting.clusters, rate.setting.mean_size) for rate in rates}):
        rows = [rate for rate in rates if (rate.setting.clusters, rate.setting.mean_size) == key]
        passed, failed = [rate.passed for rate in rows], [rate.failed for rate in rows]
        figures = (
            np.median(passed), max(passed), np.median(failed), max(failed),
            max(rate.passed_per_item for rate in rows), max(rate.failed_per_item for rate in rows),
        )  # fmt: skip
        cells = " | ".join(f"{100 * figure:.1f} %" for figure in figures)
        lines.append(f"| {key[0]} | {key[1]:g} | {len(rows)} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=2000, help="draws of each setting [2000]")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first setting; the next has the next [1]")
    parser.add_argument("--full", action="store_true", help="every combination, instead of the moderate grid")
    asked = parser.parse_args()
    grid, rates, started = settings(asked.full), [], time.perf_counter()
    for index, setting in enumerate(grid):
        rates.append(measure(setting, asked.draws, asked.seed + index))
        if sys.stderr.isatty() or index % 25 == 24:
            print(f"{index + 1} of {len(grid)} settings, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(table(rates))
    for name in ("passed", "failed"):
        above = [rate for rate in rates if getattr(rate, name) > 0.06]
        level = f"{sum(getattr(rate, name) <= 0.06 for rate in rates)} of {len(rates)}"
        print(f"\n{name} at the margin in at most 6 % of {asked.draws} draws: {level} settings; above it: {len(above)}")
        for rate in sorted(above, key=lambda item: -getattr(item, name)):
            print(f"- {100 * getattr(rate, name):.1f} %: {rate.setting}")
    print(uneven_table(asked.draws, asked.seed))
    print(power_table(asked.draws, asked.seed))
    cells = [Cell(items, *kind) for items in (200, 1000) for kind in ((1, 0.0), (2, 0.3), (4, 0.1), (5, 0.5))]
    print("\n| items | per cluster | correlation | chance | PASS of a reference at chance | by the 5 % bound alone |")
    print("|---:|---:|---:|---:|---:|---:|")
    for cell, chance in itertools.product(cells, (0.5, 0.25)):
        passed, loose = chance_passes(cell, chance, asked.draws, asked.seed)
        print(f"| {cell.items} | {cell.per_cluster} | {cell.correlation:g} | {chance:g} | {passed:.2%} | {loose:.2%} |")
    print("\n| items | per cluster | correlation | healing | FAIL at a loss of 15 points, margin 5 |")
    print("|---:|---:|---:|---:|---:|")
    for cell, healing in itertools.product(cells[:4], (0.0, 0.02, 0.05)):
        failed = loss_fails(cell, 0.15, healing, 0.05, asked.draws, asked.seed)
        print(f"| {cell.items} | {cell.per_cluster} | {cell.correlation:g} | {healing:.0%} | {failed:.1%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
