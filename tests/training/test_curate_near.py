"""Near images: recall and precision at the bounds that docs/curation.md states, and the measures themselves."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dct

from infimed.training.curate_crops import boxes, thumbnails
from infimed.training.curate_fingerprints import fingerprint
from infimed.training.curate_near import Nearness, closeness, near_pairs

from .curation_rows import pictures


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The benchmark whose table the docs print, on a small draw."""
    path = Path(__file__).parents[2] / "benchmarks" / "near_duplicates.py"
    spec = importlib.util.spec_from_file_location("near_duplicates", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_near_duplicates_are_found_at_the_stated_recall_and_no_stranger_is_taken_for_one(
    benchmark: ModuleType,
) -> None:
    images = benchmark.of_phantoms(72, seed=3)
    results = benchmark.measure(images, seed=3, changed=15)
    for name in ("duplicate", "leak"):
        recall = results[name].recall
        assert recall["PNG of the same pixels"] == 1
        assert all(found >= 0.9 for kind, found in recall.items() if "crop" not in kind and kind != "mirrored"), recall
        assert recall["crop of 2 %"] >= 0.9 and recall["crop of 2 %, JPEG 50, brightness + 10 %"] >= 0.85, recall
        assert recall["mirrored"] == 0, "a mirrored image is another image: laterality is asked"
        assert results[name].false_pairs == 0 and results[name].precision == 1
    assert results["leak"].recall["crop of 5 %"] >= results["duplicate"].recall["crop of 5 %"] >= 0.3
    assert results["leak without detail"].false_pairs > 0, "hash and correlation alone take strangers for twins"


def test_the_first_hash_is_the_phash_of_its_definition() -> None:
    for rgb in pictures(3):
        image = Image.fromarray(rgb).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
        low = dct(dct(np.asarray(image, float), axis=0), axis=1)[:8, :8]
        bits = (low > np.median(low)).ravel()
        expected = int("".join("1" if bit else "0" for bit in bits), 2)
        assert int(fingerprint(rgb).hashes[0]) == expected


def test_a_crop_is_compared_as_pillow_would_crop_it() -> None:
    grey = fingerprint(pictures(1)[0]).grey
    reduced = thumbnails(grey)
    assert len(boxes()) == len(reduced) == 19
    for (x, y, length), mine in zip(boxes(), reduced, strict=True):
        box = (x * 64, y * 64, (x + length) * 64, (y + length) * 64)
        image = Image.fromarray(grey.astype(np.float32))
        theirs = np.asarray(image.resize((32, 32), Image.Resampling.BOX, box=box), float).ravel()
        assert np.corrcoef(mine, theirs)[0, 1] > 0.98


def test_every_near_pair_is_found_once_and_as_closeness_measures_it() -> None:
    rgbs = pictures(5)
    rgbs += [np.clip(rgb.astype(int) + 12, 0, 255).astype(np.uint8) for rgb in rgbs[:2]]
    prints = [fingerprint(rgb) for rgb in rgbs]
    rule = Nearness(10, 0.96, 0.78)
    found = {(pair.left, pair.right): pair for pair in near_pairs(prints, rule)}
    assert set(found) == {(0, 5), (1, 6)}
    for (left, right), pair in found.items():
        near = closeness(prints[left], prints[right])
        assert (pair.distance, pair.correlation, pair.detail) == (near.distance, near.correlation, near.detail)
    between = {(pair.left, pair.right) for pair in near_pairs(prints[:5], rule, prints[5:])}
    assert between == {(0, 0), (1, 1)}
    assert list(near_pairs([], rule)) == [] and list(near_pairs(prints, rule, [])) == []


def test_flat_images_are_never_near_to_anything_but_themselves() -> None:
    flat = [fingerprint(np.full((80, 80, 3), value, np.uint8)) for value in (90, 91)]
    assert list(near_pairs(flat, Nearness(64, 0.9, 0.0))) == []
    assert closeness(flat[0], flat[0]).detail == 1
