from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from infimed import InfimedError
from infimed.runtime.bundle import Bundle, BundleError, verify, write_manifest
from infimed.runtime.levels import UnknownLevel
from infimed.runtime.manifest import LevelEntry, VerifyError

RULES = {"patch_size": 14}


def make_bundle(folder: Path) -> Path:
    for path, text in {
        "shared/tokenizer.json": "{}",
        "shared/mmproj.gguf": "tower" * 50,
        "shared/vision.onnx": "graph" * 50,
        "gguf-f32/model.gguf": "weights" * 100,
        "onnx-fp32/decoder.onnx": "graph" * 100,
        "probes/probes.json": "[]",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    write_manifest(
        folder,
        family="qwen2.5-vl",
        license="apache-2.0",
        preprocessing=RULES,
        levels=[
            LevelEntry("gguf-f32", ("gguf-f32/model.gguf",), ("shared/mmproj.gguf", "shared/tokenizer.json"), {}, 700),
            LevelEntry("onnx-fp32", ("onnx-fp32/decoder.onnx",), ("shared/vision.onnx",), {}, 5),
        ],
        provenance={"checkpoint": "0" * 64},
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = make_bundle(tmp_path / "bundle")
    Bundle.open(made).attest("parity", "gguf-f32", {"kl_mean_nats": 1e-8})
    return made


def test_an_untouched_bundle_opens_and_lists_its_levels(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert [entry.name for entry in bundle.manifest.levels] == ["gguf-f32", "onnx-fp32"]
    assert bundle.attestations()[0].digest == bundle.manifest.level_digest("gguf-f32")
    with pytest.raises(UnknownLevel, match="gguf-f32, onnx-fp32"):
        bundle.entry("gguf-q9")


def test_one_flipped_bit_in_any_file_is_refused(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert {"manifest.json", "manifest.sha256"} <= {path.name for path in files} and len(files) == 9
    for path in files:
        original = path.read_bytes()
        for bit in range(0, len(original) * 8, max(1, len(original) * 8 // 16)):
            changed = bytearray(original)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            with pytest.raises(VerifyError):
                verify(folder)
        path.write_bytes(original)
    verify(folder)


def test_a_missing_and_an_extra_file_are_refused(folder: Path) -> None:
    target = folder / "probes/probes.json"
    target.rename(folder / "probes/other.json")
    with pytest.raises(VerifyError, match=r"probes/probes\.json is missing"):
        verify(folder)
    (folder / "probes/other.json").rename(target)
    (folder / "gguf-f32/more.bin").write_text("x")
    with pytest.raises(VerifyError, match=r"gguf-f32/more\.bin does not belong"):
        verify(folder)


def test_two_swapped_files_are_refused(folder: Path) -> None:
    one, two = folder / "shared/mmproj.gguf", folder / "shared/vision.onnx"
    one.rename(folder / "swap")
    two.rename(one)
    (folder / "swap").rename(two)
    with pytest.raises(VerifyError, match="changed"):
        verify(folder)


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "folder link"])
def test_links_are_refused(folder: Path, kind: str, tmp_path: Path) -> None:
    target = folder / "shared/tokenizer.json"
    outside = tmp_path / "outside.json"
    shutil.copy(target, outside)
    target.unlink()
    if kind == "symlink":
        target.symlink_to(outside)
    elif kind == "hardlink":
        os.link(outside, target)
    else:
        shutil.copy(outside, target)
        (folder / "more").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(VerifyError, match="link"):
        verify(folder)


def rewrite(folder: Path, change: dict[str, object]) -> None:
    """A forger's manifest: changed, and hashed again."""
    value = json.loads((folder / "manifest.json").read_bytes())
    value.update(change)
    data = json.dumps(value).encode()
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  manifest.json\n")


OUTSIDE = ["../outside", "/etc/passwd", "a//b", "./a", "attestations/x", "manifest.json", "", "a\\b"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_manifest_that_points_outside_is_refused(folder: Path, path: str) -> None:
    value = json.loads((folder / "manifest.json").read_bytes())
    rewrite(folder, {"files": {**value["files"], path: {"sha256": "0" * 64, "size_bytes": 1}}})
    with pytest.raises(VerifyError, match="plain path"):
        verify(folder)


@pytest.mark.parametrize(
    "change",
    [{"schema": 0}, {"levels": []}, {"files": None}, {"levels": {"x": {}}}, {"preprocessing": {"patch_size": 16}}],
)
def test_a_malformed_or_downgraded_manifest_is_refused(folder: Path, change: dict[str, object]) -> None:
    rewrite(folder, change)
    with pytest.raises(VerifyError, match=r"manifest\.json"):
        verify(folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        verify(tmp_path)


def test_a_level_added_later_leaves_the_digest_of_the_others(folder: Path) -> None:
    before = Bundle.open(folder).manifest.level_digest("gguf-f32")
    (folder / "shared/vision.onnx").write_text("another graph")
    for name in ("manifest.json", "manifest.sha256"):
        (folder / name).unlink()
    entry = LevelEntry("gguf-f32", ("gguf-f32/model.gguf",), ("shared/mmproj.gguf", "shared/tokenizer.json"), {}, 700)
    after = write_manifest(
        folder, family="qwen2.5-vl", license="apache-2.0", preprocessing=RULES, levels=[entry], provenance={}
    )
    assert after.level_digest("gguf-f32") == before


def test_errors_of_a_bundle_are_infimed_errors_with_exit_code_1() -> None:
    assert issubclass(VerifyError, InfimedError) and VerifyError.exit_code == 1 and BundleError.exit_code == 2
