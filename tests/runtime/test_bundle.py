from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infimed import InfimedError
from infimed.runtime.bundle import Bundle, BundleError, verify, write_manifest
from infimed.runtime.files import canonical_json
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
        provenance={"checkpoint_sha256": "0" * 64},
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


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "folder link", "pipe"])
def test_links_and_devices_are_refused(folder: Path, kind: str, tmp_path: Path) -> None:
    target = folder / "shared/tokenizer.json"
    outside = tmp_path / "outside.json"
    shutil.copy(target, outside)
    target.unlink()
    if kind == "symlink":
        target.symlink_to(outside)
    elif kind == "hardlink":
        os.link(outside, target)
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        shutil.copy(outside, target)
        (folder / "more").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(VerifyError, match="link"):
        verify(folder)


def forge(folder: Path, data: bytes) -> None:
    """A forger's manifest: changed, and hashed again."""
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  manifest.json\n")


def rewrite(folder: Path, change: dict[str, object]) -> None:
    forge(folder, canonical_json({**json.loads((folder / "manifest.json").read_bytes()), **change}))


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


def changed(value: Any, place: tuple[str, ...], new: Any) -> Any:
    """A copy of nested JSON with another value at one place; None takes the key away."""
    key, *rest = place
    inner = changed(value[key], tuple(rest), new) if rest else new
    return {name: entry for name, entry in {**value, key: inner}.items() if entry is not None}


FILE, LEVEL = ("files", "shared/tokenizer.json"), ("levels", "gguf-f32")


@pytest.mark.parametrize(
    ("place", "new"),
    [
        ((*FILE, "size_bytes"), 2.7),
        ((*FILE, "size_bytes"), 2.0),
        ((*FILE, "size_bytes"), True),
        ((*FILE, "size_bytes"), "2"),
        ((*FILE, "size_bytes"), -2),
        ((*FILE, "mode"), 7),
        ((*FILE, "sha256"), 7),
        ((*LEVEL, "weight_bytes"), 700.5),
        ((*LEVEL, "weight_bytes"), None),
        ((*LEVEL, "tensors"), {"weight": 3}),
        ((*LEVEL, "shared"), "x"),
        ((*LEVEL, "shared"), ["gguf-f32/model.gguf"]),
        ((*LEVEL, "files"), ["gguf-f32/model.gguf", "gguf-f32/model.gguf"]),
        ((*LEVEL, "note"), "new"),
        (("levels",), {}),
        (("levels", "../up"), {}),
        (("schema",), True),
        (("family",), ["qwen2.5-vl"]),
        (("preprocessing",), [["patch_size", 14]]),
        (("provenance",), None),
        (("provenance", "checkpoint_sha256"), None),
        (("provenance", "checkpoint_sha256"), 7),
        (("provenance", "checkpoint_sha256"), "the base"),
        (("files", "Shared/tokenizer.json"), {"sha256": "0" * 64, "size_bytes": 2}),
        (("signature",), "new"),
    ],
)
def test_a_manifest_that_is_not_exactly_the_format_is_refused(folder: Path, place: tuple[str, ...], new: Any) -> None:
    forge(folder, canonical_json(changed(json.loads((folder / "manifest.json").read_bytes()), place, new)))
    with pytest.raises(VerifyError, match=r"manifest\.json"):
        verify(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size_bytes": 2\n', b'"size_bytes": Infinity\n'),
        (b'"size_bytes": 2\n', b'"size_bytes": 1e999\n'),
        (b'"weight_bytes": 700', b'"weight_bytes": 7e2'),
        (b'"license": "apache-2.0"', b'"license": "mit",\n  "license": "apache-2.0"'),
        (b'"license": "apache-2.0"', b'"license": "\\ud800"'),
        (b'"license": "apache-2.0"', b'"license": "\xff"'),
        (b'"license": "apache-2.0"', b'"license":  "apache-2.0"'),
        (b'"checkpoint_sha256": "', b'"score": NaN,\n    "checkpoint_sha256": "'),
        (b"{", b'{"a":' * 100_000),
    ],
)
def test_json_that_could_be_read_in_two_ways_is_refused(folder: Path, old: bytes, new: bytes) -> None:
    data = (folder / "manifest.json").read_bytes()
    assert old in data
    forge(folder, data.replace(old, new, 1))
    with pytest.raises(VerifyError, match=r"manifest\.json"):
        verify(folder)


def test_a_bundle_without_its_manifest_was_changed_and_is_not_merely_none(folder: Path) -> None:
    for name in ("manifest.json", "manifest.sha256"):
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(VerifyError, match=f"{name} is missing"):
            verify(folder)
        (folder / name).mkdir()
        with pytest.raises(VerifyError, match=f"{name} is missing"):
            verify(folder)
        (folder / name).rmdir()
        (folder / name).write_bytes(data)


def test_an_extra_folder_and_a_file_in_the_place_of_attestations_are_refused(folder: Path) -> None:
    for path in ("empty", "gguf-f32/empty", "attestations/empty"):
        (folder / path).mkdir()
        with pytest.raises(VerifyError, match=f"{path} does not belong"):
            verify(folder)
        (folder / path).rmdir()
    (folder / "attestations/deep").mkdir()
    (folder / "attestations/deep/parity-gguf-f32-0.json").write_text("{}")
    with pytest.raises(VerifyError, match="attestations/deep does not belong"):
        verify(folder)
    shutil.rmtree(folder / "attestations")
    verify(folder)
    (folder / "attestations").write_text("payload")
    with pytest.raises(VerifyError, match="attestations does not belong"):
        verify(folder)


def attest_by_hand(folder: Path, name: str | None = None, **value: object) -> None:
    digest = Bundle.open(folder).manifest.level_digest("gguf-f32")
    data = canonical_json({"kind": "parity", "level": "gguf-f32", "digest": digest, "body": {"own": 1}, **value})
    short = hashlib.sha256(data).hexdigest()[:16]
    name = name or f"{value.get('kind', 'parity')}-{value.get('level', 'gguf-f32')}"
    (folder / "attestations" / f"{name}-{short}.json").write_bytes(data)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, ""),
        ({"level": "gguf-q99"}, "speaks of level gguf-q99"),
        ({"digest": "0" * 64}, "speaks of another gguf-f32"),
        ({"digest": 7}, "speaks of another gguf-f32"),
        ({"name": "drift-gguf-f32"}, "malformed"),
        ({"body": [["own", 1]]}, "malformed"),
        ({"more": 1}, "malformed"),
    ],
)
def test_an_attestation_must_speak_of_a_level_of_this_bundle(folder: Path, value: dict[str, Any], says: str) -> None:
    attest_by_hand(folder, **value)
    if not says:
        assert len(Bundle.open(folder).attestations()) == 2
        return
    with pytest.raises(VerifyError, match=says):
        verify(folder)


def test_a_draft_of_a_killed_attest_is_ignored_and_goes_with_the_next_one(folder: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom infimed.runtime import files\n"
        "from infimed.runtime.bundle import Bundle\nfiles._flush = lambda draft: os._exit(9)\n"
        "Bundle.open(Path(sys.argv[1])).attest('parity', 'gguf-f32', {'more': 1})\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == 9
    assert len([path for path in (folder / "attestations").iterdir() if path.name.endswith(".part")]) == 1
    bundle = Bundle.open(folder)
    assert len(bundle.attestations()) == 1
    bundle.attest("parity", "gguf-f32", {"more": 2})
    assert all(path.suffix == ".json" for path in (folder / "attestations").iterdir())
    assert len(Bundle.open(folder).attestations()) == 2
    (folder / "attestations/.x.part").symlink_to("/etc/passwd")
    with pytest.raises(VerifyError, match="is a link"):
        verify(folder)


def test_a_folder_and_a_file_whose_names_are_not_utf_8_are_told_of_and_crash_nothing(folder: Path) -> None:
    odd = folder.with_name(os.fsdecode(b"b\xfcndel"))
    folder.rename(odd)
    verify(odd)
    (odd / os.fsdecode(b"\xff.bin")).write_text("x")
    with pytest.raises(VerifyError, match="does not belong"):
        verify(odd)


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
        folder,
        family="qwen2.5-vl",
        license="apache-2.0",
        preprocessing=RULES,
        levels=[entry],
        provenance={"checkpoint_sha256": "0" * 64},
    )
    assert after.level_digest("gguf-f32") == before


def test_errors_of_a_bundle_are_infimed_errors_with_exit_code_1() -> None:
    assert issubclass(VerifyError, InfimedError) and VerifyError.exit_code == 1 and BundleError.exit_code == 2
