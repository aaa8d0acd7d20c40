"""Says which levels fit a device, how fast they decode there, which one is best, and what would help where none fits.

Knows no engine library: an engine is told the number of layers for the GPU that is chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..runtime.levels import LEVELS
from .memory import Memory, Use, memory_need
from .profiles import GB, PROFILES, DeviceProfile
from .rate import ENGINES, Rate, backend_for, decode_rate
from .weights import LevelWeights, PlanError, Planned


@dataclass(frozen=True)
class Fit:
    """One level on one device.

    spare_bytes: what is left of the available memory, negative where it does not fit. gpu_layers: how many layers the
    engine puts on the GPU there. exact: the weights are real files, not predictions.
    """

    level: str
    engine: str
    backend: str
    memory: Memory
    available_bytes: int
    rate: Rate
    gpu_layers: int
    weight_bits: float
    full_precision: bool
    exact: bool

    @property
    def spare_bytes(self) -> int:
        """Available less needed."""
        return self.available_bytes - self.memory.total_bytes

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return self.spare_bytes >= 0


def fit(planned: Planned, weights: LevelWeights, device: DeviceProfile, use: Use) -> Fit:
    """Plan one level."""
    row, shape = weights.level, planned.shape
    backend = backend_for(device, row)
    memory = memory_need(shape, weights, use, backend)
    # While decoding, every token reads the weights and, on average over a full context, half of the cache.
    read_bytes = weights.read_per_token_bytes + memory.kv_cache_bytes / 2
    return Fit(
        level=row.name,
        engine=ENGINES[row.format],
        backend=backend,
        memory=memory,
        available_bytes=device.available_bytes,
        rate=decode_rate(device, row, read_bytes),
        gpu_layers=shape.layers + 1 if backend == "cuda" else 0,
        weight_bits=row.weight_bits,
        full_precision=row.full_precision,
        exact=weights.exact,
    )


def bounded(planned: Planned, use: Use) -> Use:
    """Return the use within what the model takes: its longest sequence, its largest image.

    Raises PlanError for a use that cannot be.
    """
    if use.context_tokens < 1 or use.image_pixels < 0:
        raise PlanError(f"{use.context_tokens} context tokens, {use.image_pixels} image pixels: give at least 1 and 0")
    return Use(min(use.context_tokens, planned.max_tokens), min(use.image_pixels, planned.max_pixels))


def plan(planned: Planned, device: DeviceProfile, use: Use) -> tuple[Fit, ...]:
    """Plan every level, in the order of the table of levels, for as much of the use as the model takes."""
    use = bounded(planned, use)
    order = [row.base for row in LEVELS]
    levels = sorted(planned.levels, key=lambda weights: (order.index(weights.level.base), weights.level.name))
    return tuple(fit(planned, weights, device, use) for weights in levels)


def best(fits: Sequence[Fit], min_tokens_per_s: float = 0.0) -> Fit | None:
    """Return the level with the most bits per weight that fits and decodes as fast as asked; None where there is none.

    Levels of full precision exist to judge a format's graph and are chosen only where nothing else is offered; a level
    without a predicted rate comes after those with one. Raises PlanError for a rate that no device can have.
    """
    if not (math.isfinite(min_tokens_per_s) and min_tokens_per_s >= 0):
        raise PlanError(f"a rate of {min_tokens_per_s} tokens per second is none; give 0 or more")
    good = [fit for fit in fits if fit.fits and (fit.rate.tokens_per_s or 0.0) >= min_tokens_per_s]
    return max(
        good,
        key=lambda fit: (not fit.full_precision, fit.rate.tokens_per_s is not None, fit.weight_bits),
        default=None,
    )


def advice(planned: Planned, fits: Sequence[Fit], device: DeviceProfile, use: Use) -> str:
    """Return, for a person, by how much nothing fits and what would: fewer tokens, another level, another device."""
    use = bounded(planned, use)
    nearest = max(fits, key=lambda fit: fit.spare_bytes)
    weights = next(row for row in planned.levels if row.level.name == nearest.level)
    ways = []
    if tokens := _largest_context(planned, weights, device, use):
        ways.append(f"--context {tokens} fits")
    least_bits = min(row.weight_bits for row in LEVELS)
    if planned.source == "bundle" and min(row.level.weight_bits for row in planned.levels) > least_bits:
        ways.append("the bundle lacks smaller levels: plan the checkpoint, then export one that fits")
    larger = [row for row in PROFILES if row.kind == device.kind and fit(planned, weights, row, use).fits]
    if larger:
        smallest = min(larger, key=lambda row: row.memory_bytes)
        ways.append(f"{nearest.level} fits {smallest.name}")
    need, free = nearest.memory.total_bytes / GB, nearest.available_bytes / GB
    said = f"no level fits {device.name}: {nearest.level} needs {need:.2f} GB, {free:.2f} GB are free"
    return f"{said}, {need - free:.2f} GB short; {'; '.join(ways) or 'the model is too large for this kind of device'}"


def _largest_context(planned: Planned, weights: LevelWeights, device: DeviceProfile, use: Use) -> int:
    """Return the largest context, in steps of 256 tokens, at which the level fits; 0 where none of 512 or more does."""
    low, high = 1, use.context_tokens // 256
    while low < high:
        middle = (low + high + 1) // 2
        if fit(planned, weights, device, replace(use, context_tokens=256 * middle)).fits:
            low = middle
        else:
            high = middle - 1
    return 256 * low if low > 1 else 0
