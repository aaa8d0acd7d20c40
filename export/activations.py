"""Activations: what a model's own inputs to its weights look like, channel by channel, over a calibration set.

The importance matrix of a quantiser is `mean_square`; scales that move outliers from activations to weights start from
`largest`. Knows neither how they are measured (calibration_pass.py) nor where they are kept (calibration_store.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError


class ActivationsError(InfimedError):
    """Activations that no quantiser can use: of other weights, of another width, or no numbers."""


@dataclass(frozen=True, eq=False)
class Activations:
    """Statistics of the inputs x of each weight that multiplies them, by the weight's name in the hub's layout.

    mean_square: (in,), float32, weighted mean of x^2 per input channel. largest: (in,), float32, largest |x| per
    channel. counts: tokens (patches, in the vision tower) seen. sha256: identity of checkpoint, rows and settings.
    dataset_sha256: of the rows used. Raises ActivationsError where the three differ in names or hold no numbers.
    """

    mean_square: Mapping[str, NDArray[np.float32]]
    largest: Mapping[str, NDArray[np.float32]]
    counts: Mapping[str, int]
    sha256: str
    dataset_sha256: str

    def __post_init__(self) -> None:
        names = set(self.mean_square)
        if odd := names ^ set(self.largest) or names ^ set(self.counts):
            raise ActivationsError(f"activations of {min(odd)} are incomplete; calibrate again")
        for name, values in self.mean_square.items():
            largest = self.largest[name]
            if values.ndim != 1 or values.shape != largest.shape or self.counts[name] < 1:
                raise ActivationsError(
                    f"activations of {name} are {values.shape} and {largest.shape} of {self.counts[name]} tokens; "
                    "calibrate again"
                )
            for kind, found in (("mean_square", values), ("largest", largest)):
                if not (np.isfinite(found).all() and (found >= 0).all()):
                    raise ActivationsError(f"{kind} of {name} holds what is no number of a square; calibrate again")

    def importance(self, name: str, width: int) -> NDArray[np.float32]:
        """Return mean_square of a weight with `width` input channels: (width,). Raises ActivationsError."""
        values = self.mean_square.get(name)
        if values is None:
            raise ActivationsError(f"no activations of {name}: they were taken of another model; calibrate this one")
        if values.shape != (width,):
            raise ActivationsError(
                f"activations of {name} have {len(values)} channels, the weight has {width}; calibrate this checkpoint"
            )
        return values
