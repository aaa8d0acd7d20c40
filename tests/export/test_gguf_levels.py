"""GGUF levels written in one pass, against llama.cpp's own quantiser on our F16 file, in the engine, and refused."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")

from infimed import InfimedError  # noqa: E402
from infimed.benchmarks.peers import differing  # noqa: E402
from infimed.export import gguf_pass  # noqa: E402
from infimed.export.activations import Activations, ActivationsError  # noqa: E402
from infimed.export.gguf_export import export_gguf  # noqa: E402
from infimed.export.gguf_importance import NoImportance, importance_of  # noqa: E402
from infimed.export.gguf_model import GgufModel, text_model, vision_model  # noqa: E402
from infimed.export.gguf_pass import GgufWriteError  # noqa: E402
from infimed.export.gguf_write import write_levels, write_towers  # noqa: E402
from infimed.runtime.distance import distance  # noqa: E402
from infimed.runtime.events import Event  # noqa: E402
from infimed.runtime.levels import LEVELS, QuantLevel, UnknownLevel, level  # noqa: E402
from infimed.runtime.llama_backend import LlamaBackend  # noqa: E402
from infimed.runtime.llama_mix import Fallback, QuantiseError, choose_types  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402
from .llama_oracle import quantise_by_llama, random_activations  # noqa: E402

# Without the level of 3 bits, whose quantiser takes seconds to build its tables: test_gguf_oracle.py has them all.
ROWS = [row for row in LEVELS if row.format == "gguf" and row.importance != "required"]
WEIGHED = [level(f"{row.base}+imatrix") for row in ROWS if row.importance == "optional"]
EVERY = [*ROWS, *WEIGHED]
QUANTISED = [row for row in EVERY if row.storage not in ("F32", "F16", "BF16")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(build_random_checkpoint(tmp_path_factory.mktemp("checkpoint"), dtype="bfloat16"))


@pytest.fixture(scope="module")
def text(checkpoint: Checkpoint) -> GgufModel:
    return text_model(checkpoint)


@pytest.fixture(scope="module")
def activations(text: GgufModel) -> Activations:
    return random_activations(text)


@pytest.fixture(scope="module")
def levels(text: GgufModel, activations: Activations, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("levels")
    outputs = {row.name: out / f"{row.name}.gguf" for row in EVERY}
    write_levels(text, outputs, EVERY, threads=2, activations=activations)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in outputs.values())
    return outputs


@pytest.mark.parametrize("row", QUANTISED, ids=lambda row: row.name)
def test_a_level_is_what_llama_cpp_makes_of_the_f16_file(
    row: QuantLevel, levels: dict[str, Path], text: GgufModel, activations: Activations, tmp_path: Path
) -> None:
    importance = importance_of(text, [row], activations)
    theirs = quantise_by_llama(levels["gguf-f16"], tmp_path / "theirs.gguf", row.storage, importance)
    # Its API writes no word about the matrix; its command line does, by the same two keys.
    told = {"quantize.imatrix.dataset", "quantize.imatrix.entries_count"} if row.imatrix else set()
    assert differing(levels[row.name], theirs) == ([], told)


def test_a_level_with_a_matrix_names_its_dataset(levels: dict[str, Path], text: GgufModel) -> None:
    fields = gguf.GGUFReader(levels["gguf-q4_k_m+imatrix"]).fields
    assert fields["quantize.imatrix.dataset"].contents() == "sha256:" + "d" * 64
    assert fields["quantize.imatrix.entries_count"].contents() == 2 * 7
    assert fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_K_M
    assert fields["general.quantization_version"].contents() == gguf.GGML_QUANT_VERSION
    assert differing(levels["gguf-q4_k_m"], levels["gguf-q4_k_m+imatrix"])[0]


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


def test_rows_of_another_width_fall_back_and_are_told(tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "odd", hidden=128, ffn=160, layers=1, heads=2, kv_heads=1)
    events: list[Event] = []
    outputs = {name: tmp_path / f"{name}.gguf" for name in ("gguf-f16", "gguf-q4_k_m")}
    asked = [level(name) for name in outputs]
    made = write_levels(text_model(Checkpoint.open(folder)), outputs, asked, threads=1, on_event=events.append)
    found = made["gguf-q4_k_m"]
    assert set(found.header.tensor_types.values()) == {"F32", "Q5_0", "Q8_0"}
    assert Fallback("blk.0.ffn_gate.weight", 128, "Q4_K", "Q5_0") in found.fallbacks
    assert not made["gguf-f16"].fallbacks
    (told,) = (event.note for event in events if event.stage == "gguf types")
    assert told.startswith(f"gguf-q4_k_m: {len(found.fallbacks)} tensors") and "Q4_K as Q5_0 (rows of 128)" in told
    theirs = quantise_by_llama(outputs["gguf-f16"], tmp_path / "theirs.gguf", "Q4_K_M")
    assert differing(outputs["gguf-q4_k_m"], theirs) == ([], set())


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_bytes_whatever_the_threads_the_blocks_and_the_other_levels(
    threads: int,
    text: GgufModel,
    activations: Activations,
    levels: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gguf_pass, "_BLOCK_VALUES", 1500)
    for name in ("gguf-f32", "gguf-q8_0", "gguf-q4_k_m+imatrix"):
        out = {name: tmp_path / "alone.gguf"}
        write_levels(text, out, [level(name)], threads=threads, activations=activations)
        assert out[name].read_bytes() == levels[name].read_bytes()


def test_every_level_answers_and_fewer_bits_lie_farther_away(levels: dict[str, Path]) -> None:
    rows = {}
    for row in EVERY:
        backend = LlamaBackend(levels[row.name], None, threads=1, context_tokens=256, precise=row.full_precision)
        rows[row.name] = backend.extend(np.arange(40) + 60, np.tile(np.arange(40), (3, 1)), (), 40)
        backend.close()
    found = {name: distance(rows["gguf-f32"], made, 0.01).kl_mean_nats for name, made in rows.items()}
    assert found["gguf-f32"] == 0.0
    order = ["gguf-f16", "gguf-q8_0", "gguf-q6_k", "gguf-q5_k_m", "gguf-q4_k_m", "gguf-q3_k_m", "gguf-q2_k"]
    assert [found[name] for name in order] == sorted(found[name] for name in order)
    assert found["gguf-f16"] < 1e-4 < found["gguf-q8_0"]


def test_a_bundle_shares_the_towers_that_its_levels_ask_for(
    checkpoint: Checkpoint, activations: Activations, tmp_path: Path
) -> None:
    names = [*(row.name for row in ROWS), "gguf-q4_k_m+vision-q8_0", "gguf-q8_0+vision-f32"]
    entries = export_gguf(checkpoint.folder, tmp_path, names, threads=2, activations=activations)
    assert list(entries) == names
    for name in names:
        entry, kind = entries[name], level(name).vision
        tower = f"shared/mmproj-{kind}.gguf"
        assert entry.files == (f"{name}/model.gguf", f"{name}/Modelfile") and tower in entry.shared
        assert f"FROM ../{tower}" in (tmp_path / entry.files[1]).read_text()
        assert entry.tensors["blk.0.attn_q.bias"] == "F32"
        # Rows of 200 values are no whole blocks of 32.
        assert entry.tensors["v.blk.0.ffn_down.weight"] == ("F32" if kind == "f32" else "F16")
        assert entry.tensors["v.blk.0.ffn_up.weight"] == kind.upper()
        weights = (tmp_path / entry.files[0]).stat().st_size + (tmp_path / tower).stat().st_size
        assert 0.85 * weights < entry.weight_bytes < weights
    towers = sorted(path.name for path in (tmp_path / "shared").iterdir())
    assert towers == ["mmproj-f16.gguf", "mmproj-f32.gguf", "mmproj-q8_0.gguf"]


def test_a_tower_in_q8_0_is_what_llama_cpp_makes_of_the_f16_tower(checkpoint: Checkpoint, tmp_path: Path) -> None:
    outputs = {kind: tmp_path / f"{kind}.gguf" for kind in ("F16", "Q8_0")}
    made = write_towers(vision_model(checkpoint), outputs, threads=2)
    theirs = quantise_by_llama(outputs["F16"], tmp_path / "theirs.gguf", "Q8_0")
    assert differing(outputs["Q8_0"], theirs) == ([], set())
    assert [item.given for item in made["Q8_0"].fallbacks] == ["F16"] * 4


def test_no_matrix_is_refused_before_any_work_with_what_to_type(
    checkpoint: Checkpoint, text: GgufModel, activations: Activations, tmp_path: Path
) -> None:
    with pytest.raises(UnknownLevel, match=r"ask for gguf-iq3_xxs\+imatrix, and add --calibration DATASET"):
        export_gguf(checkpoint.folder, tmp_path, ["gguf-f16", "gguf-iq3_xxs"])
    with pytest.raises(NoImportance, match=r"gguf-q4_k_m\+imatrix .* add --calibration DATASET"):
        export_gguf(checkpoint.folder, tmp_path, ["gguf-f16", "gguf-q4_k_m+imatrix"])
    name = "model.layers.1.mlp.up_proj.weight"
    rest = {key: value for key, value in activations.mean_square.items() if key != name}
    lacking = replace(
        activations,
        mean_square=rest,
        largest={key: activations.largest[key] for key in rest},
        counts=dict.fromkeys(rest, 1),
    )
    with pytest.raises(ActivationsError, match=name):
        export_gguf(checkpoint.folder, tmp_path, ["gguf-iq3_xxs+imatrix"], activations=lacking)
    assert not list(tmp_path.iterdir())


def test_a_head_of_its_own_is_weighed_only_where_it_was_measured(tmp_path: Path) -> None:
    folder = build_random_checkpoint(tmp_path / "untied", tied=False, layers=1, vision_depth=2, dtype="float16")
    text = text_model(Checkpoint.open(folder))
    measured = random_activations(text)
    rest = {key: value for key, value in measured.mean_square.items() if key != "lm_head.weight"}
    unmeasured = Activations(rest, rest, dict.fromkeys(rest, 1), "", "")
    row = level("gguf-q4_k_m+imatrix")
    found = {}
    for name, given in (("with", measured), ("without", unmeasured)):
        out = {row.name: tmp_path / f"{name}.gguf", "gguf-f16": tmp_path / "f16.gguf"}
        write_levels(text, out, [row, level("gguf-f16")], threads=1, activations=given)
        importance = importance_of(text, [row], given)
        assert importance is not None and ("output.weight" in importance) == (name == "with")
        theirs = quantise_by_llama(out["gguf-f16"], tmp_path / "theirs.gguf", row.storage, importance)
        assert differing(out[row.name], theirs)[0] == []
        found[name] = out[row.name]
    assert differing(found["with"], found["without"])[0] == ["output.weight"]


def test_types_that_llama_cpp_does_not_know_or_refuses_are_told(text: GgufModel, tmp_path: Path) -> None:
    unknown = replace(level("gguf-q8_0"), storage="Q9_9")
    with pytest.raises(QuantiseError, match="Q9_9"):
        write_levels(text, {unknown.name: tmp_path / "q.gguf"}, [unknown], threads=1)
    with pytest.raises(QuantiseError, match="no file of type F33"):
        choose_types(text.architecture, text.mix_keys, text.shapes, {"x": ("F33", None)})
    nothing = {"blk.0.attn_q.weight": np.full(256, np.nan, np.float32)}
    with pytest.raises(QuantiseError, match="non-finite"):
        choose_types(text.architecture, text.mix_keys, text.shapes, {"x": ("Q4_K_M", nothing)})
    # A type that cannot be made without a matrix, past the check of levels.
    needs_matrix = replace(level("gguf-q8_0"), storage="IQ2_XXS")
    with pytest.raises(GgufWriteError, match="without an importance matrix"):
        write_levels(text, {needs_matrix.name: tmp_path / "q.gguf"}, [needs_matrix], threads=1)
    assert not list(tmp_path.iterdir())


def full_at(call: int) -> Callable[..., int]:
    """Return a pwrite that says that the disk is full from that call on."""
    calls = iter(range(10**9))
    real = os.pwrite

    def pwrite(*arguments: object) -> int:
        if next(calls) >= call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)  # type: ignore[arg-type]

    return pwrite


@pytest.mark.parametrize("call", [0, 7])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    call: int, text: GgufModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {name: tmp_path / f"{name}.gguf" for name in ("gguf-q8_0", "gguf-q6_k")}
    monkeypatch.setattr(os, "pwrite", full_at(call))
    with pytest.raises(GgufWriteError, match=r"gguf-q\w+\.gguf cannot be written \(No space"):
        write_levels(text, outputs, [level(name) for name in outputs], threads=2)
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before_any_weight_is_read(
    text: GgufModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(handle: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(*_: object, **__: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    monkeypatch.setattr("infimed.export.gguf_write.fill", fill)
    with pytest.raises(GgufWriteError, match=r"q\.gguf cannot be written \(No space"):
        write_levels(text, {"gguf-q8_0": tmp_path / "q.gguf"}, [level("gguf-q8_0")], threads=1)
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_promises_no_room_is_written_all_the_same(
    text: GgufModel, levels: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    write_levels(text, {"gguf-q8_0": tmp_path / "q.gguf"}, [level("gguf-q8_0")], threads=1)
    assert (tmp_path / "q.gguf").read_bytes() == levels["gguf-q8_0"].read_bytes()


def test_what_a_killed_run_left_is_cleared(text: GgufModel, levels: dict[str, Path], tmp_path: Path) -> None:
    dead = tmp_path / ".q.gguf.4194305.part"  # beyond the largest process number that Linux gives
    living = tmp_path / f".q.gguf.{os.getppid()}.part"
    other = tmp_path / ".other.gguf.4194305.part"
    for left in (dead, living, other):
        left.write_bytes(b"half a file")
    write_levels(text, {"gguf-q8_0": tmp_path / "q.gguf"}, [level("gguf-q8_0")], threads=1)
    assert (tmp_path / "q.gguf").read_bytes() == levels["gguf-q8_0"].read_bytes()
    assert not dead.exists() and living.exists() and other.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from infimed.export.gguf_model import text_model
from infimed.export.gguf_write import write_levels
from infimed.runtime.levels import level
from infimed.training.checkpoint import Checkpoint
model, out = text_model(Checkpoint.open(Path(sys.argv[1]))), Path(sys.argv[2])
def on_event(event):
    os.kill(os.getpid(), signal.SIGKILL)
write_levels(model, {"gguf-q8_0": out}, [level("gguf-q8_0")], threads=2, on_event=on_event)
"""


def test_a_kill_in_the_middle_leaves_no_file_of_that_name_and_the_next_run_is_whole(
    checkpoint: Checkpoint, text: GgufModel, levels: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "q.gguf"
    done = subprocess.run([sys.executable, "-c", KILLED, str(checkpoint.folder), str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".q.gguf.") and left.name.endswith(".part")
    write_levels(text, {"gguf-q8_0": out}, [level("gguf-q8_0")], threads=1)
    assert list(tmp_path.iterdir()) == [out] and out.read_bytes() == levels["gguf-q8_0"].read_bytes()


def test_progress_counts_every_byte_of_each_level(text: GgufModel, tmp_path: Path) -> None:
    events: list[Event] = []
    outputs = {name: tmp_path / f"{name}.gguf" for name in ("gguf-f16", "gguf-q8_0")}
    made = write_levels(text, outputs, [level(name) for name in outputs], threads=2, on_event=events.append)
    for name, one in made.items():
        told = [event for event in events if event.stage == name]
        assert told[-1].done == told[-1].total == one.header.weight_bytes
        assert [event.done for event in told] == sorted(event.done for event in told)
        assert len(told) == len(text.tensors) and told[-1].note == f"tensor {len(told)} of {len(told)}"


def test_a_level_that_no_one_asked_for_is_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InfimedError, match="is unknown"):
        export_gguf(checkpoint.folder, tmp_path, ["gguf-q9"])
