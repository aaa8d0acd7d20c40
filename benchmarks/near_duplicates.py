"""One question: how many near duplicates does curation find, and how many of those it finds are none?

Changes every drawn image in a known way and looks for the pair with the rules of curation. Recall is the share of
changed images found near their original; a pair of images of different groups (patients) is a false one. Prints a
Markdown table; the seed fixes every figure.

    python benchmarks/near_duplicates.py data/medvqa-dev            # a dataset folder
    python benchmarks/near_duplicates.py --phantoms 600             # images of our own
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from infimed.evaluation.dataset import Dataset
from infimed.training.curate_fingerprints import fingerprint
from infimed.training.curate_near import Near, Nearness, closeness, near_pairs
from infimed.training.curate_recipe import DuplicateRules, LeakRules

Picture = Image.Image
Draw = np.random.Generator


@dataclass(frozen=True)
class Labelled:
    """An image with the group that it belongs to."""

    rgb: NDArray[np.uint8]
    group: str


@dataclass(frozen=True)
class Result:
    """What a rule found. recall: by kind of change. false_pairs: found between different groups. pairs: all found."""

    recall: dict[str, float]
    false_pairs: int
    pairs: int

    @property
    def precision(self) -> float:
        """True pairs over all pairs found."""
        return 1 - self.false_pairs / self.pairs if self.pairs else 1.0


def _jpeg(image: Picture, quality: int) -> Picture:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def _crop(image: Picture, share: float, draw: Draw) -> Picture:
    lost = (round(image.width * share), round(image.height * share))
    x, y = (int(draw.integers(0, side + 1)) for side in lost)
    return image.crop((x, y, x + image.width - lost[0], y + image.height - lost[1]))


def _halved(image: Picture) -> Picture:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)


KINDS: dict[str, Callable[[Picture, Draw], Picture]] = {
    "PNG of the same pixels": lambda image, draw: image.copy(),
    "JPEG quality 60": lambda image, draw: _jpeg(image, 60),
    "JPEG quality 30": lambda image, draw: _jpeg(image, 30),
    "half the size": lambda image, draw: _halved(image),
    "brightness + 20 %": lambda image, draw: ImageEnhance.Brightness(image).enhance(1.2),
    "brightness - 20 %": lambda image, draw: ImageEnhance.Brightness(image).enhance(0.8),
    "contrast + 30 %": lambda image, draw: ImageEnhance.Contrast(image).enhance(1.3),
    "blur of 1 pixel": lambda image, draw: image.filter(ImageFilter.GaussianBlur(1)),
    "crop of 2 %": lambda image, draw: _crop(image, 0.02, draw),
    "crop of 2 %, JPEG 50, brightness + 10 %": lambda image, draw: _jpeg(
        ImageEnhance.Brightness(_crop(image, 0.02, draw)).enhance(1.1), 50
    ),
    "crop of 5 %": lambda image, draw: _crop(image, 0.05, draw),
    "crop of 8 %": lambda image, draw: _crop(image, 0.08, draw),
    "mirrored": lambda image, draw: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}
RULES = {
    "duplicate": DuplicateRules().images,
    "duplicate without detail": replace(DuplicateRules().images, detail=0.0),
    "leak": LeakRules().images,
    "leak without detail": replace(LeakRules().images, detail=0.0),
}


def measure(images: Sequence[Labelled], seed: int = 0, changed: int = 200) -> dict[str, Result]:
    """Return what each rule finds among `images` and the changed copies of `changed` of them."""
    draw = np.random.default_rng(seed)
    originals = [fingerprint(image.rgb) for image in images]
    chosen = sorted(draw.permutation(len(images))[:changed].tolist())
    copies: dict[str, list[Near]] = {}
    for kind, change in KINDS.items():
        for position in chosen:
            copy = fingerprint(np.asarray(change(Image.fromarray(images[position].rgb), draw)))
            copies.setdefault(kind, []).append(closeness(originals[position], copy))
    loosest = Nearness(max(rule.bits for rule in RULES.values()), min(rule.correlation for rule in RULES.values()), 0.0)
    strangers = [
        closeness(originals[pair.left], originals[pair.right])
        for pair in near_pairs(originals, loosest)
        if images[pair.left].group != images[pair.right].group
    ]
    results = {}
    for name, rule in RULES.items():
        found = {kind: sum(_holds(rule, near) for near in pairs) for kind, pairs in copies.items()}
        false_pairs = sum(_holds(rule, near) for near in strangers)
        recall = {kind: number / len(chosen) for kind, number in found.items()}
        results[name] = Result(recall, false_pairs, sum(found.values()) + false_pairs)
    return results


def _holds(rule: Nearness, near: Near) -> bool:
    return near.distance <= rule.bits and near.correlation >= rule.correlation and near.detail >= rule.detail


def of_dataset(folder: Path) -> list[Labelled]:
    """Return every image of a dataset once, with its group."""
    dataset = Dataset.open(folder)
    refs = {ref.path: (ref, example.group) for example in dataset.examples for ref in example.images}
    return [Labelled(dataset.image(ref), group) for ref, group in refs.values()]


def of_phantoms(images: int, seed: int) -> list[Labelled]:
    """Return phantoms; each is a patient of its own."""
    from infimed.evaluation.phantom_images import KINDS as PHANTOM_KINDS
    from infimed.evaluation.phantoms import phantoms

    kinds = list(PHANTOM_KINDS.values())
    return [Labelled(one.rgb, f"{one.kind.modality}/{one.index}") for one in phantoms(kinds, images, seed)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path, help="a dataset folder")
    parser.add_argument("--phantoms", type=int, default=0, metavar="N", help="use N phantoms instead")
    parser.add_argument("--changed", type=int, default=200, help="images that are changed (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not arguments.phantoms and arguments.dataset is None:
        parser.error("name a dataset folder or give --phantoms N")
    images = of_phantoms(arguments.phantoms, arguments.seed) if arguments.phantoms else of_dataset(arguments.dataset)
    results = measure(images, arguments.seed, arguments.changed)
    count = min(arguments.changed, len(images))
    print(f"{len(images):,} images, {count:,} of them changed in each way, seed {arguments.seed}\n")
    print(f"| | {' | '.join(RULES)} |\n|---|{'---:|' * len(RULES)}")
    for kind in KINDS:
        print(f"| {kind} | {' | '.join(f'{result.recall[kind]:.3f}' for result in results.values())} |")
    print(f"| false pairs between groups | {' | '.join(f'{result.false_pairs:,}' for result in results.values())} |")
    print(f"| precision | {' | '.join(f'{result.precision:.3f}' for result in results.values())} |")


if __name__ == "__main__":
    main()
