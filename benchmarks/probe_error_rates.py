"""How often do the intervals of docs/robustness.md err? Worlds with a known truth, and the very code that judges.

Four tables: the bound of level x probe at exactly the margin (PASS and FAIL should each fall in at most 5 % of draws),
how often it decides where nothing is lost, and how often the intervals of relative robustness and of position bias hold
the truth (95 % or more).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from infimed.evaluation.robustness_figures import excess, position_bias, relative
from infimed.evaluation.verdict import ALPHA

CHUNK = 2_000_000  # items held at once


def labels(clusters: int, mean_size: int, geometric: bool) -> NDArray[np.int64]:
    """Return a cluster for each item: all of one size, or of sizes that fall by half from cluster to cluster."""
    if not geometric:
        return np.repeat(np.arange(clusters), mean_size)
    sizes = np.random.default_rng(clusters * 10 + mean_size).geometric(1 / mean_size, clusters)
    return np.repeat(np.arange(clusters), sizes)


def correlated(
    rng: np.random.Generator, shape: tuple[int, int], cluster: NDArray[np.int64], correlation: float
) -> NDArray[np.float64]:
    """Return uniform numbers per item; with probability sqrt(correlation) an item takes its cluster's number."""
    own = rng.random(shape)
    shared = rng.random((shape[0], int(cluster.max()) + 1))[:, cluster]
    return np.where(rng.random(shape) < np.sqrt(correlation), shared, own)


def differences(
    rng: np.random.Generator, draws: int, cluster: NDArray[np.int64], correlation: float, loss: float, moved: float,
    doubles: float, thirds: bool,
) -> NDArray[np.float64]:  # fmt: skip
    """Return differences of differences whose mean is -loss.

    moved: share of items that are not 0. doubles: share of these that count for 2. thirds: a moved item is a third or
    two thirds of one instead (a probe of three rows).
    """
    sizes = np.array([1 / 3, 2 / 3]) if thirds else np.array([1.0, 2.0])
    shares = np.array([0.5, 0.5]) if thirds else np.array([1 - doubles, doubles])
    typical = float((sizes * shares).sum())
    down = (moved + loss / typical) / 2
    u = correlated(rng, (draws, len(cluster)), cluster, correlation)
    size = np.where(correlated(rng, u.shape, cluster, correlation) < shares[0], sizes[0], sizes[1])
    return np.where(u < down, -size, np.where(u < moved, size, 0.0))


def excess_rates(draws: int) -> Iterator[tuple[tuple[object, ...], float, float]]:
    """Yield (world, share of PASS, share of FAIL) at exactly the margin."""
    worlds = product(
        (20, 50, 200, 600), (1, 3, 8), (False, True), (0.0, 0.3, 0.8), (0.02, 0.05), (0.05, 0.15, 0.4), (0, 1, 2)
    )
    for number, (clusters, size, geometric, rho, margin, moved, kind) in enumerate(worlds):
        if size == 1 and (geometric or rho):
            continue
        doubles, thirds = (0.3 if kind == 1 else 0.0), kind == 2
        typical = 0.5 if thirds else 1 + doubles
        if margin / typical > moved:
            continue
        cluster, rng = labels(clusters, size, geometric), np.random.default_rng(number)
        passes, fails, done = 0, 0, 0
        while done < draws:
            part = min(draws - done, max(1, CHUNK // len(cluster)))
            found = excess(differences(rng, part, cluster, rho, margin, moved, doubles, thirds), cluster)
            passes += int((found.lower(ALPHA) > -margin).sum())
            fails += int((found.upper(ALPHA) < -margin).sum())
            done += part
        kinds = ("whole", "doubles", "thirds")
        yield (clusters, size, geometric, rho, margin, moved, kinds[kind]), passes / draws, fails / draws


def power_rates(draws: int) -> Iterator[tuple[tuple[object, ...], float]]:
    """Yield (world, share of draws in which a loss of the margin or more is ruled out), without any true excess."""
    for clusters, size, margin, moved in product((100, 200, 600), (1, 3), (0.02, 0.05), (0.02, 0.05, 0.15)):
        cluster, rng = labels(clusters, size, False), np.random.default_rng(clusters + size)
        d = differences(rng, draws, cluster, 0.3 if size > 1 else 0.0, 0.0, moved, 0.1, False)
        yield (clusters, size, margin, moved), float((excess(d, cluster).lower(ALPHA) > -margin).mean())


def relative_rate(draws: int, clusters: int, size: int, rho: float, clean: float, kept: float) -> float:
    """Return how often the interval of the kept share holds the true one. kept: chance that a right item stays right.

    Wrong items turn right with a chance of 5 %. The truth is the ratio of the expected sums.
    """
    cluster, rng = labels(clusters, size, False), np.random.default_rng(clusters * 100 + size)
    right = correlated(rng, (draws, len(cluster)), cluster, rho) < clean
    stays = correlated(rng, right.shape, cluster, rho)
    after = np.where(right, stays < kept, stays < 0.05)
    truth = kept + (1 - clean) * 0.05 / clean
    held = 0
    for before, then in zip(right, after, strict=True):
        found = relative(then, before, cluster).interval
        held += found.lower <= truth <= found.upper
    return held / draws


def bias_rate(draws: int, clusters: int, size: int, drawn_to_first: float) -> tuple[float, float]:
    """Return how often the interval holds the true total variation, and the mean of the figure.

    Questions of four options in all four orders; an item is answered by content, but with the chance `drawn_to_first`
    the first place is taken in every order, for a whole cluster alike.
    """
    cluster, rng = labels(clusters, size, False), np.random.default_rng(clusters + size)
    truth, held, total = 0.75 * drawn_to_first, 0, 0.0
    keys = np.tile(np.arange(4), len(cluster))
    rows = np.repeat(cluster, 4)
    for _ in range(draws):
        first = (rng.random(clusters) < drawn_to_first)[rows]
        content = np.repeat(rng.integers(0, 4, len(cluster)), 4)
        given = np.where(first, 0, (keys + content) % 4)
        found = position_bias(given, keys, rows)
        held += found.interval.lower <= truth <= found.interval.upper
        total += found.value
    return held / draws, total / draws


def main() -> None:
    """Print the four tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000, help="draws a setting of the bound; the others have a tenth")
    draws = parser.parse_args().draws
    rates = list(excess_rates(draws))
    print("| clusters | items each | settings | PASS at the margin: median | worst | FAIL: median | worst |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for clusters, size in dict.fromkeys(world[:2] for world, _, _ in rates):
        here = [(passed, failed) for world, passed, failed in rates if world[:2] == (clusters, size)]
        passed, failed = np.array(here).T
        print(f"| {clusters} | {size} | {len(here)} | {np.median(passed):.1%} | {passed.max():.1%} "
              f"| {np.median(failed):.1%} | {failed.max():.1%} |")  # fmt: skip
    for name, shares in (("PASS", [passed for _, passed, _ in rates]), ("FAIL", [failed for _, _, failed in rates])):
        worst = int(np.argmax(shares))
        above = sum(share > 0.06 for share in shares)
        print(
            f"\n{name}: worst {shares[worst]:.1%} in {rates[worst][0]}; above 6 % in {above} of {len(rates)} settings"
        )
    few = max(20, draws // 10)
    print(
        "\n| clusters | items each | margin | items that move | a loss of the margin is ruled out, none being there |"
    )
    print("|---:|---:|---:|---:|---:|")
    for world, share in power_rates(min(draws, 1000)):
        print(f"| {' | '.join(map(str, world))} | {share:.1%} |")
    print("\n| clusters | items each | correlation | clean | kept | interval holds the kept share |")
    print("|---:|---:|---:|---:|---:|---:|")
    for clusters, size, rho, clean, kept in product((20, 100, 400), (1, 4), (0.0, 0.3), (0.6, 0.9), (1.0, 0.9, 0.5)):
        if size > 1 or not rho:
            rate = relative_rate(few, clusters, size, rho, clean, kept)
            print(f"| {clusters} | {size} | {rho} | {clean} | {kept} | {rate:.1%} |")
    print("\n| clusters | items each | drawn to the first place | true bias | mean figure | interval holds it |")
    print("|---:|---:|---:|---:|---:|---:|")
    for clusters, size, drawn in product((20, 100, 400), (1, 4), (0.0, 0.05, 0.3)):
        rate, mean = bias_rate(few // 2, clusters, size, drawn)
        print(f"| {clusters} | {size} | {drawn} | {0.75 * drawn:.3f} | {mean:.3f} | {rate:.1%} |")


if __name__ == "__main__":
    main()
