from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infimed.export.activations import Activations, ActivationsError

ONES = np.ones(4, np.float32)


def activations(**changed: Any) -> Activations:
    values: dict[str, Any] = {
        "mean_square": {"a.weight": ONES},
        "largest": {"a.weight": ONES},
        "counts": {"a.weight": 3},
        "sha256": "0" * 64,
        "dataset_sha256": "1" * 64,
    }
    return Activations(**values | changed)


def test_importance_is_given_for_a_weight_of_that_name_and_width_only() -> None:
    made = activations()
    assert made.importance("a.weight", 4) is made.mean_square["a.weight"]
    with pytest.raises(ActivationsError, match=r"4 channels, the weight has 5"):
        made.importance("a.weight", 5)
    with pytest.raises(ActivationsError, match=r"no activations of b\.weight"):
        made.importance("b.weight", 4)


@pytest.mark.parametrize(
    "changed",
    [
        {"largest": {}},
        {"counts": {"a.weight": 3, "b.weight": 3}},
        {"counts": {"a.weight": 0}},
        {"largest": {"a.weight": np.ones(5, np.float32)}},
        {"mean_square": {"a.weight": np.ones((2, 2), np.float32)}, "largest": {"a.weight": np.ones((2, 2))}},
        {"mean_square": {"a.weight": np.array([1, 2, np.nan, 4], np.float32)}},
        {"largest": {"a.weight": np.array([1, np.inf, 3, 4], np.float32)}},
        {"mean_square": {"a.weight": np.array([1, -2, 3, 4], np.float32)}},
    ],
)
def test_activations_that_do_not_hold_together_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ActivationsError, match="calibrate again"):
        activations(**changed)
