"""Quantised levels against gguf-py's own quantiser, in the engine, and when they fail."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")

from infimed import InfimedError  # noqa: E402
from infimed.export import gguf_quantise  # noqa: E402
from infimed.export.gguf_export import export_gguf  # noqa: E402
from infimed.export.gguf_quantise import QuantiseError, quantise, write_levels  # noqa: E402
from infimed.export.gguf_write import write_text_model  # noqa: E402
from infimed.runtime.distance import distance  # noqa: E402
from infimed.runtime.levels import LEVELS, level  # noqa: E402
from infimed.runtime.llama_backend import LlamaBackend  # noqa: E402
from infimed.runtime.llama_library import llama_library  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402

ROWS = [row for row in LEVELS if row.format == "gguf"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(build_random_checkpoint(tmp_path_factory.mktemp("checkpoint"), dtype="bfloat16"))


@pytest.fixture(scope="module")
def levels(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("levels")
    outputs = {row.name: out / f"{row.name}.gguf" for row in ROWS}
    write_levels(checkpoint, outputs, ROWS, threads=2)
    return outputs


def test_q8_0_is_bit_for_bit_gguf_pys_of_the_f16_values(levels: dict[str, Path]) -> None:
    halves = {tensor.name: tensor for tensor in gguf.GGUFReader(levels["gguf-f16"]).tensors}
    compared = 0
    for tensor in gguf.GGUFReader(levels["gguf-q8_0"]).tensors:
        source = halves[tensor.name]
        if tensor.tensor_type.name == "Q8_0":
            expected = gguf.quants.quantize(source.data.astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
            assert np.array_equal(tensor.data, expected), tensor.name
            compared += 1
        else:
            assert tensor.tensor_type.name == "F32" and np.array_equal(tensor.data, source.data)
    assert compared == 15


def test_the_recorded_types_are_those_in_the_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (made,) = write_levels(checkpoint, {"gguf-q4_k_m": tmp_path / "q.gguf"}, [level("gguf-q4_k_m")], threads=1).values()
    theirs = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "q.gguf").tensors}
    assert made.tensor_types == theirs
    assert set(theirs.values()) == {"F32", "Q4_K", "Q6_K"}  # the mix is llama.cpp's, not ours
    assert [path.name for path in tmp_path.iterdir()] == ["q.gguf"]  # the F16 file is gone


def test_rows_of_another_width_fall_back_and_are_recorded(tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "odd", hidden=128, ffn=160, layers=1, heads=2, kv_heads=1)
    outputs = {"gguf-q4_k_m": tmp_path / "q.gguf"}
    types = write_levels(Checkpoint.open(folder), outputs, [level("gguf-q4_k_m")], threads=1)[
        "gguf-q4_k_m"
    ].tensor_types
    assert set(types.values()) == {"F32", "Q5_0", "Q8_0"}


def test_the_same_bytes_whatever_the_threads_and_the_other_levels(
    checkpoint: Checkpoint, levels: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("gguf-q8_0", "gguf-q4_k_m"):
        write_levels(checkpoint, {name: tmp_path / "alone.gguf"}, [level(name)], threads=1)
        assert (tmp_path / "alone.gguf").read_bytes() == levels[name].read_bytes()


def test_fewer_bits_lie_farther_from_the_reference(levels: dict[str, Path]) -> None:
    rows = {}
    for row in ROWS:
        backend = LlamaBackend(levels[row.name], None, threads=1, context_tokens=256, precise=row.full_precision)
        rows[row.name] = backend.extend(np.arange(40) + 60, np.tile(np.arange(40), (3, 1)), (), 40)
        backend.close()
    found = {name: distance(rows["gguf-f32"], made, 0.01).kl_mean_nats for name, made in rows.items()}
    assert found["gguf-f32"] == 0.0
    assert found["gguf-f16"] < 1e-4 < found["gguf-q8_0"] < found["gguf-q4_k_m"] < 1


def test_a_bundle_gets_one_f16_tower_for_all_levels_but_the_exact_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    entries = export_gguf(checkpoint.folder, tmp_path, [row.name for row in ROWS])
    assert list(entries) == [row.name for row in ROWS]
    for row in ROWS:
        entry = entries[row.name]
        tower = "shared/mmproj-f32.gguf" if row.full_precision else "shared/mmproj-f16.gguf"
        assert entry.files == (f"{row.name}/model.gguf",) and tower in entry.shared
        assert entry.tensors["blk.0.attn_q.bias"] == "F32"
        weights = (tmp_path / entry.files[0]).stat().st_size + (tmp_path / tower).stat().st_size
        assert 0.9 * weights < entry.weight_bytes < weights
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["mmproj-f16.gguf", "mmproj-f32.gguf"]


def test_an_export_quantises_with_the_threads_it_was_given(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infimed.export.export_bundle import _build

    class Seen(Exception):
        pass

    def quantise(*_: object, threads: int) -> None:
        raise Seen(threads)

    monkeypatch.setattr(gguf_quantise, "quantise", quantise)
    for threads in (1, 7):
        with pytest.raises(Seen, match=str(threads)):
            _build(checkpoint.folder, tmp_path, [level("gguf-q8_0")], (), threads, lambda event: None)


def test_a_failed_quantisation_says_why_and_leaves_nothing(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = replace(level("gguf-q8_0"), storage="Q9_9")
    with pytest.raises(QuantiseError, match="Q9_9"):
        write_levels(checkpoint, {unknown.name: tmp_path / "q.gguf"}, [unknown], threads=1)
    # A type that llama.cpp refuses without an importance matrix.
    needs_matrix = replace(level("gguf-q8_0"), storage="IQ2_XXS")
    with pytest.raises(QuantiseError, match="importance matrix"):
        write_levels(checkpoint, {needs_matrix.name: tmp_path / "q.gguf"}, [needs_matrix], threads=1)
    assert not list(tmp_path.iterdir())

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf_quantise, "write_text_model", full_disk)
    with pytest.raises((InfimedError, OSError), match="No space"):
        write_levels(checkpoint, {"gguf-q8_0": tmp_path / "q.gguf"}, [level("gguf-q8_0")], threads=1)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_cleared(checkpoint: Checkpoint, levels: dict[str, Path], tmp_path: Path) -> None:
    left = tmp_path / ".q.gguf.work"
    left.mkdir()
    (left / "f16.gguf").write_bytes(b"half a file")
    write_levels(checkpoint, {"gguf-q8_0": tmp_path / "q.gguf"}, [level("gguf-q8_0")], threads=1)
    assert (tmp_path / "q.gguf").read_bytes() == levels["gguf-q8_0"].read_bytes()
    assert not left.exists()


def test_a_damaged_source_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_text_model(checkpoint, tmp_path / "f16.gguf", "F16")
    shutil.copyfile(tmp_path / "f16.gguf", tmp_path / "cut.gguf")
    with open(tmp_path / "cut.gguf", "r+b") as file:
        file.truncate(1_000_000)
    kind = int(llama_library().llama.LLAMA_FTYPE_MOSTLY_Q8_0)
    with pytest.raises(InfimedError, match=r"cut\.gguf"):
        quantise(tmp_path / "cut.gguf", tmp_path / "q.gguf", kind, threads=1)
    assert not (tmp_path / "q.gguf").exists()
