"""Brushes on a 112 x 112 canvas: soft ellipses, lines, smooth fields and noise, all in float64.

Knows nothing of modalities, lesions or questions. Randomness comes from the generator that a brush is handed.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SIZE_PX = 112
HALF_PX = SIZE_PX / 2
Field = NDArray[np.float64]

ROWS: Field = np.arange(SIZE_PX, dtype=np.float64)[:, None] + 0.5
COLUMNS: Field = np.arange(SIZE_PX, dtype=np.float64)[None, :] + 0.5


def step(distance_px: Field, edge_px: float) -> Field:
    """Return 1 where distance_px is well below zero, 0 well above, with a linear ramp of width 2 edge_px between."""
    return np.clip(0.5 - distance_px / (2.0 * edge_px), 0.0, 1.0)


def ellipse(x: float, y: float, a: float, b: float, edge_px: float = 1.0, angle: float = 0.0) -> Field:
    """Return the soft mask, 0..1, of an ellipse: centre (x, y), half axes a and b in pixels, angle in radians."""
    dx, dy = COLUMNS - x, ROWS - y
    if angle:
        cosine, sine = np.cos(angle), np.sin(angle)
        dx, dy = dx * cosine + dy * sine, dy * cosine - dx * sine
    radius = np.sqrt((dx / a) ** 2 + (dy / b) ** 2)
    return step((radius - 1.0) * min(a, b), edge_px)


def ring(x: float, y: float, a: float, b: float, width_px: float) -> Field:
    """Return the soft mask of an elliptic ring of the given width, its middle line on the ellipse."""
    radius = np.sqrt(((COLUMNS - x) / a) ** 2 + ((ROWS - y) / b) ** 2)
    return step(np.abs(radius - 1.0) * min(a, b) - width_px / 2, 0.7)


def segment(x: float, y: float, length_px: float, width_px: float, angle: float) -> Field:
    """Return the soft mask of a straight line with round ends, centred at (x, y)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    dx, dy = COLUMNS - x, ROWS - y
    along = np.clip(dx * cosine + dy * sine, -length_px / 2, length_px / 2)
    distance = np.sqrt((dx - along * cosine) ** 2 + (dy - along * sine) ** 2)
    return step(distance - width_px / 2, 0.7)


def stamp(canvas: Field, x: float, y: float, radius_px: float, value: float) -> None:
    """Raise the canvas to at least `value` inside a small disc; touches only the pixels near it."""
    reach = int(radius_px) + 2
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    bottom, right = min(SIZE_PX, int(y) + reach + 1), min(SIZE_PX, int(x) + reach + 1)
    if top >= bottom or left >= right:
        return
    dx, dy = COLUMNS[:, left:right] - x, ROWS[top:bottom] - y
    disc = step(np.sqrt(dx * dx + dy * dy) - radius_px, 0.7) * value
    np.maximum(canvas[top:bottom, left:right], disc, out=canvas[top:bottom, left:right])


@lru_cache(maxsize=8)
def _spread(cells: int) -> Field:
    """Return the (SIZE_PX, cells + 3) matrix of uniform cubic B-spline weights."""
    position = (np.arange(SIZE_PX, dtype=np.float64) + 0.5) / SIZE_PX * cells
    cell = np.floor(position).astype(np.int64)
    t = position - cell
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    matrix = np.zeros((SIZE_PX, cells + 3))
    for offset, weight in enumerate(weights):
        matrix[np.arange(SIZE_PX), cell + offset] = weight / 6
    return matrix


def smooth_field(rng: np.random.Generator, cells: int, amplitude: float) -> Field:
    """Return smooth noise: a cubic B-spline through cells x cells random values of about the given amplitude."""
    matrix = _spread(cells)
    return np.asarray(matrix @ rng.standard_normal((cells + 3, cells + 3)) @ matrix.T) * (amplitude * 1.7)


def slope(rng: np.random.Generator, amplitude: float) -> Field:
    """Return uneven lighting: a linear ramp in a random direction, at most `amplitude` at the border."""
    across, down = rng.uniform(-amplitude, amplitude, 2)
    return np.asarray(across * (COLUMNS / HALF_PX - 1.0) + down * (ROWS / HALF_PX - 1.0))


def grain(rng: np.random.Generator, sigma: float) -> Field:
    """Return white noise."""
    return rng.standard_normal((SIZE_PX, SIZE_PX)) * sigma


def soften(field: Field) -> Field:
    """Return the field after a 3 x 3 binomial blur; the border is repeated."""
    padded = np.pad(field, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16


def to_rgb(red: Field, green: Field, blue: Field) -> NDArray[np.uint8]:
    """Return the uint8 (112, 112, 3) picture of three fields of range 0..1."""
    stacked = np.stack((red, green, blue), axis=-1)
    return (np.clip(stacked, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
