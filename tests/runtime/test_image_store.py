"""What levels share of images: the same bits back, within bounds, and never a torn file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infimed.runtime.image_store import STORE_FOLDER, ImageStore, SharedImages


def embeddings(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((4, 8)).astype(np.float32)
    values[0, :3] = np.float32("inf"), np.float32(-0.0), np.float32(1e-45)
    return values


def test_an_image_comes_back_to_the_last_bit_also_in_another_process(tmp_path: Path) -> None:
    ImageStore(tmp_path / "tower").put("a", embeddings(1))
    found = ImageStore(tmp_path / "tower", keeps=False).get("a")
    assert found is not None and found.dtype == np.float32 and found.tobytes() == embeddings(1).tobytes()
    assert ImageStore(tmp_path / "tower").get("b") is None


def test_a_full_store_keeps_what_came_first_and_counts_what_an_earlier_process_left(tmp_path: Path) -> None:
    one = embeddings(0).nbytes
    store = ImageStore(tmp_path, 3 * one)
    for seed in range(5):
        store.put(str(seed), embeddings(seed))
    assert [store.get(str(seed)) is not None for seed in range(5)] == [True, True, True, False, False]
    held = sum(path.stat().st_size for path in tmp_path.iterdir())
    ImageStore(tmp_path, held + one - 1).put("5", embeddings(5))
    assert store.get("5") is None
    ImageStore(tmp_path, held + one).put("5", embeddings(5))
    assert store.get("5") is not None


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other"])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, damage: str) -> None:
    store = ImageStore(tmp_path)
    store.put("a", embeddings(1))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[:-30], "bit": data, "empty": b"", "other": b"no archive"}[damage])
    assert store.get("a") is None
    store.put("a", embeddings(1))
    found = store.get("a")
    assert found is not None and found.tobytes() == embeddings(1).tobytes()


def test_a_folder_that_went_away_ends_the_keeping_and_nothing_else(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "tower")
    (tmp_path / "tower").rmdir()
    store.put("a", embeddings(1))
    assert store.get("a") is None and not (tmp_path / "tower").exists()


def test_only_levels_with_the_tower_of_another_share_and_the_last_of_them_only_reads(tmp_path: Path) -> None:
    with SharedImages(tmp_path, ("one", "", "other", "one", "")) as shared:
        assert [shared.open(level) is not None for level in range(5)] == [True, False, False, True, False]
        first, last = shared.open(0), shared.open(3)
        assert first is not None and last is not None
        last.put("b", embeddings(2))
        first.put("a", embeddings(1))
        assert last.get("b") is None and last.get("a") is not None
    assert not (tmp_path / STORE_FOLDER).exists()


def test_after_an_error_the_folder_stays_for_the_command_that_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), SharedImages(tmp_path, ("one", "one")) as shared:
        store = shared.open(0)
        assert store is not None
        store.put("a", embeddings(1))
        raise KeyboardInterrupt
    with SharedImages(tmp_path, ("one", "one")) as shared:
        store = shared.open(0)
        assert store is not None and store.get("a") is not None
    assert not (tmp_path / STORE_FOLDER).exists()
