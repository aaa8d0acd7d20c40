"""Several levels of one bundle by the command line: shared images, the bytes of levels asked alone, and shards."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

for _library in ("torch", "onnx", "onnxruntime", "llama_cpp", "scipy"):
    pytest.importorskip(_library)
from infimed.evaluation.phantoms import write_phantoms  # noqa: E402
from infimed.export.export_bundle import export_bundle  # noqa: E402
from infimed.runtime.decoding import Decoder  # noqa: E402
from infimed.runtime.image_store import STORE_FOLDER  # noqa: E402

from ..folders import contents  # noqa: E402
from ..models import build_random_checkpoint  # noqa: E402
from .conftest import Infimed  # noqa: E402

# In each the third level has a tower of its own.
GGUF = ("gguf-f16", "gguf-q4_k_m", "gguf-q8_0+vision-q8_0")
ONNX = ("onnx-fp32", "onnx-int4", "onnx-int4+vision-int8")
PICTURES = 4


@pytest.fixture(
    scope="module", params=[GGUF, pytest.param((*GGUF, *ONNX), marks=pytest.mark.full)], ids=["gguf", "all"]
)
def levels(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the levels of the bundle; tracing graphs takes its time."""
    return tuple(request.param)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, levels: tuple[str, ...]) -> Path:
    """Return a folder with a bundle of these levels, and phantoms."""
    folder = tmp_path_factory.mktemp("levels")
    checkpoint = build_random_checkpoint(
        folder / "checkpoint", hidden=256, ffn=256, layers=1, vision_hidden=32, vision_ffn=48, vision_depth=2,
        fullatt_block_indexes=(1,),
    )  # fmt: skip
    export_bundle(checkpoint, folder / "bundle", levels, gate=False, probe_count=2, threads=1)
    write_phantoms(folder / "data", PICTURES, 3, ("ct", "fundus"), per_image=3, roles={"test": 1.0})
    return folder


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Count what is encoded: (level, image)."""
    counted: Counter[tuple[str, str]] = Counter()
    begun = Decoder.__init__

    def watched(self, *arguments, **more):  # type: ignore[no-untyped-def]
        begun(self, *arguments, **more)
        encode = self.backend.encode_image

        def count(image):  # type: ignore[no-untyped-def]
            counted[self.level, image.key] += 1
            return encode(image)

        self.backend.encode_image = count

    monkeypatch.setattr(Decoder, "__init__", watched)
    return counted


def rows(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith((".jsonl", ".json"))}


def lasting(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in rows(folder).items() if "speed" not in name and not name.startswith("shards/")}


@pytest.fixture(scope="module")
def alone(place: Path, levels: tuple[str, ...]) -> Path:
    """Return the runs of each level asked by itself."""
    from infimed.cli.app import run

    out = place / "alone"
    for level in levels:
        assert run(words(place, out, "--level", level)) == 0
    return out


def words(place: Path, out: Path, *more: str) -> list[str]:
    command = ["evaluate", str(place / "bundle"), "--data", str(place / "data"), "--out", str(out), "--threads", "1"]
    return [*command, "--max-tokens", "3", "--grey", "--probe", "shuffle", *more]


def test_levels_that_share_a_tower_encode_an_image_once_and_write_what_they_write_alone(
    place: Path, alone: Path, levels: tuple[str, ...], tmp_path: Path, infimed: Infimed,
    encoded: Counter[tuple[str, str]],
) -> None:  # fmt: skip
    assert infimed(*words(place, tmp_path / "runs"))[0] == 0
    assert set(encoded.values()) == {1}
    shown = PICTURES + 1  # and the grey one, of one size
    first = {found[place] for found in (GGUF, ONNX) for place in (0, 2)}
    assert Counter(level for level, _ in encoded) == {level: shown for level in levels if level in first}
    assert lasting(tmp_path / "runs") == lasting(alone)
    assert not (tmp_path / "runs" / STORE_FOLDER).exists()


def test_shards_of_all_levels_merge_to_the_bytes_of_one_run(
    place: Path, alone: Path, tmp_path: Path, infimed: Infimed, encoded: Counter[tuple[str, str]]
) -> None:
    out = tmp_path / "runs"
    for shard in ("2/2", "1/2"):
        code, told, _ = infimed(*words(place, out, "--shard", shard))
        assert code == 0 and "gguf-q4_k_m.shuffle" in told
    own = Counter({key: count for key, count in encoded.items() if key[0] == "gguf-f16"})
    assert sorted(own.values()) == [1, 1, 1, 1, 2]  # the grey picture, which all show, once in each shard
    assert lasting(out) == {}
    for wrong in (("--shard", "1/2", "--merge"), ("--merge", "--max-tokens", "4")):
        code, _, error = infimed(*words(place, out, *wrong))
        assert code == 2 and error.count("\n") == 1, error
        assert lasting(out) == {}
    shutil.move(out / "shards" / "1-of-2", tmp_path / "away")
    code, _, error = infimed(*words(place, out, "--merge"))
    assert (code, lasting(out)) == (2, {}) and "lacks the shard 1/2; evaluate with --shard 1/2" in error
    shutil.move(tmp_path / "away", out / "shards" / "1-of-2")
    code, told, _ = infimed(*words(place, out, "--merge"))
    assert code == 0 and "gguf-q4_k_m.shuffle" in told
    assert lasting(out) == lasting(alone)
