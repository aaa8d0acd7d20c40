"""One question: how much of a phantom can be told without looking closely?

Logistic regression on 16 x 16 thumbnails plus the known modality answers finding, side, count and size of phantoms; the
base model (training/base/CARD.md) must be at least 15 points better on each, or the phantoms are too easy. The
regularisation is chosen for the regression's good, on the test half itself. Prints a Markdown table; the seed fixes
every figure.

    python benchmarks/phantom_thumbnails.py --images 7500
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from infimed.evaluation.phantom_images import KINDS, Phantom
from infimed.evaluation.phantoms import phantoms

CELLS = 16
STRENGTHS = (1e-3, 3e-3, 1e-2)
TRAINED = tuple(name for name in KINDS if name != "ultrasound")


def thumbnail(one: Phantom) -> NDArray[np.float64]:
    """Return the picture's CELLS x CELLS means, all channels in a row."""
    side = one.rgb.shape[0] // CELLS
    return np.asarray(one.rgb.reshape(CELLS, side, CELLS, side, 3).mean(axis=(1, 3)).reshape(-1) / 255)


def table(images: int, seed: int, modalities: Sequence[str] = TRAINED) -> dict[str, tuple[float, float, int]]:
    """Return task -> (accuracy of the regression, share of the majority answer, test images)."""
    kinds = [KINDS[name] for name in modalities]
    made = list(phantoms(kinds, images, seed))
    pixels = np.array([thumbnail(one) for one in made])
    pixels = (pixels - pixels.mean(axis=0)) / (pixels.std(axis=0) + 1e-6)
    known = np.eye(len(kinds))[[kinds.index(one.kind) for one in made]]
    features = np.concatenate((pixels, known), axis=1)
    count = np.array([len(one.lesions) for one in made])
    asked = {
        "finding": (count >= 0, count > 0),
        "laterality": (count > 0, np.array([one.side == "left" for one in made])),
        "count": (count >= 0, count),
        "size": (count > 0, np.array([one.size == "large" for one in made])),
    }
    return {task: _fit(features[which], answers[which], images, seed) for task, (which, answers) in asked.items()}


def _fit(features: NDArray[np.float64], answers: NDArray[np.int64], images: int, seed: int) -> tuple[float, float, int]:
    """Fit on four fifths of a balanced draw of the answers, test on the rest."""
    rng = np.random.default_rng(seed)
    _, numbers = np.unique(answers, return_counts=True)
    kept = np.concatenate(
        [rng.permutation(np.flatnonzero(answers == one))[: numbers.min()] for one in np.unique(answers)]
    )
    kept = rng.permutation(kept)
    cut = len(kept) * 4 // 5
    train, test = kept[:cut], kept[cut:]
    best = max(
        LogisticRegression(C=strength, max_iter=300)
        .fit(features[train], answers[train])
        .score(features[test], answers[test])
        for strength in STRENGTHS
    )
    return float(best), 1 / len(numbers), len(test)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=7500)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    print(f"{options.images} phantoms of {', '.join(TRAINED)}, seed {options.seed}; answers balanced\n")
    print("| task | logistic regression | chance | test images |\n|---|---|---|---|")
    for task, (accuracy, chance, tested) in table(options.images, options.seed).items():
        print(f"| {task} | {accuracy:.3f} | {chance:.3f} | {tested} |")


if __name__ == "__main__":
    main()
