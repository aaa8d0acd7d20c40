"""What tests of asking share: a real model, tiny and random; they are skipped where torch is absent."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from ..models import build_random_checkpoint

    return build_random_checkpoint(
        tmp_path_factory.mktemp("checkpoint"), hidden=64, ffn=96, vision_hidden=32, vision_ffn=48, vision_depth=2,
        fullatt_block_indexes=(1,),
    )  # fmt: skip
