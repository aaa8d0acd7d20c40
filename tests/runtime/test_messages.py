"""What a message holds stays what it was when it was made."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from infimed.runtime.messages import ImagePart


def test_an_image_stays_what_it_was_when_its_array_changes() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    whole, view = ImagePart(pixels), pixels[:2]
    view.setflags(write=False)
    half = ImagePart(view)
    keys = whole.key, half.key
    pixels[:] = 255
    assert (whole.rgb.max(), half.rgb.max()) == (0, 0)
    assert (ImagePart(whole.rgb).key, ImagePart(half.rgb).key) == keys
    with pytest.raises(ValueError, match="read-only"):
        whole.rgb[:] = 1


def test_an_image_that_nobody_can_change_is_not_copied() -> None:
    part = ImagePart(np.zeros((4, 4, 3), np.uint8))
    assert ImagePart(part.rgb).rgb is part.rgb


def test_an_image_survives_pickling_unwritable() -> None:
    part = ImagePart(np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8))
    again = pickle.loads(pickle.dumps(part))
    assert again == part and not again.rgb.flags.writeable


def test_what_is_no_rgb_image_is_refused() -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            ImagePart(wrong)
