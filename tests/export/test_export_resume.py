"""An export that was killed goes on and ends with the same bytes; levels join a bundle and change nothing in it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from infimed import InfimedError
from infimed.export import export_bundle as module
from infimed.export.adopt import ExtendError
from infimed.export.export_bundle import Exported, export_bundle
from infimed.export.gauge import Gauge
from infimed.export.outlook import disk_bytes
from infimed.export.parity import Parity
from infimed.runtime import bundle as bundle_module
from infimed.runtime.bundle import Bundle, verify
from infimed.runtime.events import Event
from infimed.runtime.levels import level
from infimed.runtime.manifest import LevelEntry, VerifyError
from infimed.runtime.publish import PublishError
from infimed.runtime.shape import CheckpointError
from infimed.runtime.shape_check import check_shapes
from infimed.training.checkpoint import Checkpoint

from ..folders import contents, traces
from ..models import build_random_checkpoint

LEVELS = ("gguf-q8_0", "gguf-q4_k_m", "onnx-int4")
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_checkpoint(
        tmp_path_factory.mktemp("random") / "checkpoint", max_pixels=28 * 28 * 16, layers=1, vision_depth=2,
        fullatt_block_indexes=(1,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(checkpoint, tmp_path_factory.mktemp("unbroken") / "bundle", LEVELS).bundle.folder


def export(checkpoint: Path, out: Path, levels: tuple[str, ...], **more: object) -> Exported:
    return export_bundle(checkpoint, out, levels, probe_count=6, threads=1, **more)  # type: ignore[arg-type]


class Killed(BaseException):
    """What no handler of errors expects."""


def killer(after: int) -> Callable[[Event], None]:
    told = 0

    def on_event(event: Event) -> None:
        nonlocal told
        told += 1
        if told > after:
            raise Killed

    return on_event


def test_broken_off_anywhere_the_same_command_ends_with_the_same_bytes(
    checkpoint: Path, unbroken: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    export(checkpoint, tmp_path / "counted", LEVELS, on_event=events.append)
    out = tmp_path / "bundle"
    for after in random.Random(3).sample(range(len(events)), 3):
        with pytest.raises(Killed):
            export(checkpoint, out, LEVELS, on_event=killer(after))
        assert not out.exists()
        assert not list(tmp_path.rglob("*.part")), "a half file was left by something else than a kill"
        export(checkpoint, out, LEVELS)
        assert contents(out) == contents(unbroken) and sorted(tmp_path.iterdir()) == [out, tmp_path / "counted"]
        shutil.rmtree(out)


def test_what_is_finished_is_not_done_again(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("done a second time")

    real = Gauge.measure

    def stop_at_a_level(gauge: Gauge, entry: LevelEntry) -> Parity:
        if entry.name == "gguf-q8_0":
            raise Killed
        return real(gauge, entry)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Gauge, "measure", stop_at_a_level)
        export(checkpoint, tmp_path / "bundle", ("gguf-q8_0",))
    for name in ("take_references", "export_gguf", "open_reference"):
        monkeypatch.setattr(module, name, never)
    export(checkpoint, tmp_path / "bundle", ("gguf-q8_0",))
    verify(tmp_path / "bundle")


def test_what_another_command_left_is_not_taken_for_ours(checkpoint: Path, unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        export(checkpoint, tmp_path / "bundle", ("gguf-f16",), license="other", on_event=killer(60))
    export(checkpoint, tmp_path / "bundle", LEVELS)
    assert contents(tmp_path / "bundle") == contents(unbroken)


def test_levels_join_a_bundle_and_what_it_holds_stays_as_it_was(
    checkpoint: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    first = export(checkpoint, out, ("gguf-q8_0",), license="cc0-1.0")
    before = {path: data for path, data in contents(out).items() if not path.startswith("manifest")}
    model = (out / "gguf-q8_0/model.gguf").stat().st_ino
    digest = first.bundle.manifest.level_digest("gguf-q8_0")
    made = export(checkpoint, out, LEVELS)
    assert made.written == ("gguf-q4_k_m", "onnx-int4") and made.bundle.manifest.license == "cc0-1.0"
    assert verify(out).level_digest("gguf-q8_0") == digest
    assert before.items() <= contents(out).items()
    assert (out / "gguf-q8_0/model.gguf").stat().st_ino == model, "a level that was there was copied"
    assert sorted(found.level for found in Bundle.open(out).attestations()) == sorted(LEVELS)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    same = {path: data for path, data in contents(out).items() if not path.startswith("manifest")}
    assert same == {path: data for path, data in contents(unbroken).items() if not path.startswith("manifest")}
    verify(out)


def test_a_bundle_that_holds_every_level_already_is_left_untouched(
    checkpoint: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(unbroken, out)
    before, held = traces(out), traces(tmp_path)["."]
    made = export(checkpoint, out, ("onnx-int4", "gguf-q8_0"))
    assert made.written == made.gate == made.levels == () and set(made.bundle.names) == set(LEVELS)
    assert traces(out) == before and traces(tmp_path)["."] == held
    with pytest.raises(ExtendError, match="licence 'unknown', not 'mit'"):
        export(checkpoint, out, ("gguf-q8_0",), license="mit")
    (out / "gguf-q8_0/model.gguf").write_bytes(b"another")
    with pytest.raises(VerifyError, match=r"gguf-q8_0/model\.gguf was changed"):
        export(checkpoint, out, ("gguf-q8_0",))
    assert contents(out)["gguf-q8_0/model.gguf"] == b"another"


def left_behind(checkpoint: Path, out: Path, levels: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """Export without the gate and die before the manifest; return the bytes that lie in the draft."""

    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "write_manifest", dies)
        export(checkpoint, out, levels, gate=False)
    return draft_bytes(out)


def draft_bytes(out: Path) -> int:
    draft = out.with_name(f".{out.name}.partial")
    return sum(file.stat().st_size for file in draft.rglob("*") if file.is_file())


def give_disk(out: Path, capacity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk hold so many bytes, of which the draft takes its own."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(capacity, 0, capacity - draft_bytes(out)))


def test_the_room_on_the_disk_counts_what_stays_of_a_draft_and_nothing_else(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = tmp_path / "bundle", ("gguf-q8_0",)
    need = disk_bytes(check_shapes(checkpoint), [level("gguf-q8_0")])
    kept = left_behind(checkpoint, out, ("gguf-f32",), monkeypatch)
    assert kept > 1.5 * need

    # Finished levels that nobody asks for now stay until the others are written.
    give_disk(out, kept + need // 2, monkeypatch)
    with pytest.raises(PublishError, match="free some space"):
        export(checkpoint, out, asked, gate=False)
    assert draft_bytes(out) == kept, "what was finished is thrown away for want of room"

    # What another command left is removed first, and its bytes are room.
    give_disk(out, need * 11 // 10, monkeypatch)
    export(checkpoint, out, asked, gate=False, license="mit")
    verify(out)
    shutil.rmtree(out)

    # What is finished of the levels that are asked for needs no room again.
    kept = left_behind(checkpoint, out, asked, monkeypatch)
    give_disk(out, kept, monkeypatch)
    export(checkpoint, out, asked, gate=False)
    verify(out)


def test_a_bundle_of_another_checkpoint_takes_no_level(checkpoint: Path, unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / "bundle")
    other = build_random_checkpoint(tmp_path / "other", seed=9, layers=1, vision_depth=2, fullatt_block_indexes=(1,))
    with pytest.raises(ExtendError, match="checkpoint_sha256"):
        export(other, tmp_path / "bundle", ("gguf-f16",))
    with pytest.raises(ExtendError, match="licence 'unknown', not 'mit'"):
        export(checkpoint, tmp_path / "bundle", ("gguf-f16",), license="mit")
    assert contents(tmp_path / "bundle") == contents(unbroken)


def test_a_kill_while_a_bundle_is_taken_over_leaves_it_to_the_same_command(
    checkpoint: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    export(checkpoint, out, ("gguf-q8_0", "gguf-q4_k_m"))

    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "write_manifest", dies)
        export(checkpoint, out, LEVELS)
    with pytest.raises(InfimedError, match="is a link"):
        verify(out)
    export(checkpoint, out, LEVELS)
    verify(out)
    assert contents(out) == contents(unbroken)


def test_while_the_old_files_have_a_second_name_no_file_is_read(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle does not verify in that time: hashing gigabytes of new levels must lie before it."""
    out, linked = tmp_path / "bundle", 0
    export(checkpoint, out, ("gguf-q8_0",), gate=False)
    link, sha256 = os.link, bundle_module.sha256_file

    def links(*places: Any) -> None:
        nonlocal linked
        linked += 1
        link(*places)

    def hashes(path: Path) -> str:
        assert not linked, f"{path} is read while files of the bundle have a second name"
        return sha256(path)

    monkeypatch.setattr(os, "link", links)
    monkeypatch.setattr(bundle_module, "sha256_file", hashes)
    export(checkpoint, out, ("gguf-q8_0", "gguf-q4_k_m"), gate=False)
    monkeypatch.undo()
    assert linked and sorted(entry.name for entry in verify(out).levels) == ["gguf-q4_k_m", "gguf-q8_0"]


def test_without_the_gate_nothing_is_run_and_the_manifest_says_so(
    checkpoint: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the reference must not be opened")

    monkeypatch.setattr(module, "open_reference", never)
    made = export(checkpoint, tmp_path / "bundle", LEVELS, gate=False)
    manifest = verify(tmp_path / "bundle")
    assert manifest.provenance["ungated"] == sorted(LEVELS) and made.gate == made.levels == ()
    assert all(manifest.level_digest(name) == verify(unbroken).level_digest(name) for name in LEVELS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_weight_that_is_no_number_is_named_before_anything_is_made(tmp_path: Path, dtype: str) -> None:
    shape = {"layers": 1, "vision_depth": 2, "fullatt_block_indexes": (1,)}
    folder = build_random_checkpoint(tmp_path / "checkpoint", dtype=dtype, **shape)  # type: ignore[arg-type]
    opened = Checkpoint.open(folder)
    name = next(stored for stored in opened.tensors if stored.endswith("layers.0.mlp.down_proj.weight"))
    place = opened._place(name)
    bits = {"float32": b"\0\0\xc0\x7f", "bfloat16": b"\xc0\x7f", "float16": b"\0\x7c"}[dtype]
    with place.file.open("r+b") as stream:
        stream.seek(place.end - len(bits))
        stream.write(bits)
    with pytest.raises(CheckpointError, match=f"tensor {name} holds NaN or infinity"):
        export(folder, tmp_path / "bundle", ("gguf-q8_0",))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def rewritten(folder: Path, config: dict[str, object], change: Callable[[dict[str, np.ndarray]], object]) -> Path:
    """Rewrite a checkpoint's single file and its config.json."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stated, **config}))
    return folder


@pytest.mark.parametrize("level", ["gguf-q8_0", "onnx-int4", "tensorrt-fp16"])
@pytest.mark.parametrize("fault", ["shard", "shape", "head differs", "head missing", "tensor missing"])
def test_a_checkpoint_that_does_not_hold_together_is_refused_before_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, level: str
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the reference must not be opened")

    monkeypatch.setattr(module, "open_reference", never)
    shape: dict[str, Any] = {"layers": 1, "vision_depth": 2, "fullatt_block_indexes": (1,)}
    shape |= {"tied": fault != "head missing", "max_shard_size": "1MB" if fault == "shard" else "9GB"}
    folder = build_random_checkpoint(tmp_path / "checkpoint", **shape)
    head = "lm_head.weight"
    match fault:
        case "shard":
            sorted(folder.glob("model-*.safetensors"))[1].unlink()
        case "shape":
            rewritten(folder, {}, lambda w: w.update({NORM: w[NORM][:-1]}))
        case "head differs":
            rewritten(folder, {}, lambda w: w.update({head: w["model.embed_tokens.weight"] + 1}))
        case "head missing":
            rewritten(folder, {}, lambda w: w.pop(head))
        case "tensor missing":
            rewritten(folder, {}, lambda w: w.pop(NORM))
    with pytest.raises(InfimedError, match=r"missing|is \(255,\)|differs from|lm_head"):
        export(folder, tmp_path / "bundle", (level,))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_the_order_in_which_a_system_lists_files_changes_no_byte(
    checkpoint: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, walked = os.listdir, os.walk
    monkeypatch.setattr(os, "listdir", lambda *where: sorted(listed(*where), reverse=True))

    def reversed_walk(*where: Any, **how: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for place, folders, files in walked(*where, **how):
            yield place, sorted(folders, reverse=True), sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", reversed_walk)
    export(checkpoint, tmp_path / "bundle", LEVELS)
    assert contents(tmp_path / "bundle") == contents(unbroken)


# Forks before torch has started a thread: importing takes longer than the whole export of a tiny checkpoint.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from infimed.export.export_bundle import export_bundle
import infimed.training.torch_backend, torch, transformers, onnxscript, llama_cpp, onnxruntime, gguf, torch.onnx
checkpoint, out, kills, levels = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
draw = random.Random(7)
def attempt(limit):
    child = os.fork()
    if not child:
        export_bundle(checkpoint, out, levels, probe_count=6, threads=1)
        os._exit(0)
    began = time.monotonic()
    while limit is None or time.monotonic() - began < limit:
        if os.waitpid(child, os.WNOHANG)[0]:
            return time.monotonic() - began
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
whole = attempt(None)
def files():
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
expected, killed = files(), 0
while killed < kills:
    import shutil
    shutil.rmtree(out)
    while not out.exists():
        if attempt(draw.uniform(0, whole / 2) if killed < kills else None) is None:
            killed += 1
    assert files() == expected, "other bytes after a kill"
print(killed, "kills")
"""


@pytest.mark.full
def test_killed_at_30_random_points_it_ends_with_the_bytes_of_an_unbroken_run(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(checkpoint), str(tmp_path / "bundle"), "30", *LEVELS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "30 kills" in done.stdout, done.stderr[-2000:]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
