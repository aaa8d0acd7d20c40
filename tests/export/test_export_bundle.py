from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infimed import MissingExtra
from infimed.evaluation.dataset import Dataset
from infimed.evaluation.phantoms import write_phantoms
from infimed.export import export_bundle as module
from infimed.export import own_process
from infimed.export.calibration import CalibrationError
from infimed.export.export_bundle import REFERENCE_THREADS, Exported, export_bundle
from infimed.export.libraries import require_libraries
from infimed.export.parity import ParityError, measure, require, take_references
from infimed.export.probe_store import read_probes
from infimed.export.probes import KINDS, make_probes
from infimed.export.sabotage import sabotage
from infimed.runtime.bundle import Bundle, verify
from infimed.runtime.engine import Engine
from infimed.runtime.gguf_file import read_gguf
from infimed.runtime.open_engine import open_engine
from infimed.runtime.prompt import Prompter
from infimed.runtime.publish import PublishError
from infimed.training.reference import open_reference

from ..folders import contents
from ..models import build_random_checkpoint

FULL = ("gguf-f32", "onnx-fp32")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint", max_pixels=28 * 28 * 64)


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    out = tmp_path_factory.mktemp("export") / "bundle"
    return export_bundle(checkpoint, out, [*FULL, "gguf-q8_0", "gguf-q4_k_m", "onnx-int4"], probe_count=12, threads=1)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Iterator[Engine]:
    engine = open_reference(checkpoint, threads=REFERENCE_THREADS)
    yield engine
    engine.close()


@pytest.mark.parametrize("count", [24, pytest.param(204, marks=pytest.mark.full)])
def test_both_full_precision_levels_equal_torch_on_many_prompts(
    exported: Exported, reference: Engine, checkpoint: Path, count: int
) -> None:
    probes = make_probes(count, Prompter.open(checkpoint).rules, seed=3)
    assert {probe.kind for probe in probes} == set(KINDS)
    references = take_references(reference, probes)
    for level in FULL:
        engine = open_engine(exported.bundle, level, threads=1)
        found = measure(engine, references)
        engine.close()
        require(found)
        assert found.rows >= count and found.decided > 0.5 * found.rows
        print(found)


def test_every_row_of_a_prompt_is_the_reference_s(exported: Exported, reference: Engine, checkpoint: Path) -> None:
    from infimed.runtime.distance import distance

    for level in FULL:
        engine = open_engine(exported.bundle, level, threads=1)
        for probe in make_probes(6, Prompter.open(checkpoint).rules, seed=4, long_tokens=150):
            found = distance(reference.prompt_logits(probe.messages), engine.prompt_logits(probe.messages), gap=0.01)
            assert found.kl_mean_nats <= 1e-6 and found.top1_decided == 1.0, (level, probe.kind, found)
        engine.close()


def test_a_warm_engine_answers_bit_for_bit_what_a_cold_one_does(exported: Exported, checkpoint: Path) -> None:
    probes = make_probes(6, Prompter.open(checkpoint).rules, seed=5, long_tokens=100)
    for level in ("gguf-q4_k_m", "onnx-int4", *FULL):
        warm = open_engine(exported.bundle, level, threads=1)
        first = [warm.score(probe.messages, ("yes", "no", "left lower")) for probe in probes]
        again = [warm.score(probe.messages, ("yes", "no", "left lower")) for probe in probes]
        warm.close()
        assert [scores.options for scores in first] == [scores.options for scores in again], level
        cold = open_engine(exported.bundle, level, threads=1)
        assert cold.score(probes[3].messages, ("yes", "no", "left lower")).options == first[3].options, level
        cold.close()


def test_the_manifest_names_the_type_of_every_tensor_and_each_level_is_attested(exported: Exported) -> None:
    manifest = verify(exported.bundle.folder)
    types = {entry.name: set(entry.tensors.values()) for entry in manifest.levels}
    assert {"Q4_K", "Q6_K"} <= types["gguf-q4_k_m"] and types["gguf-f32"] == {"F32"}
    attested = {found.level: found for found in Bundle.open(exported.bundle.folder).attestations()}
    assert set(attested) == {entry.name for entry in manifest.levels}
    distances = {level: found.body["kl_mean_nats"] for level, found in attested.items()}
    assert distances["gguf-f32"] < distances["gguf-q8_0"] < distances["gguf-q4_k_m"]


def test_the_golden_probes_are_read_back_as_they_were_taken(exported: Exported, reference: Engine) -> None:
    stored = read_probes(exported.bundle.folder / "probes")
    assert len(stored) == 12
    for probe in stored[:6]:
        assert np.array_equal(reference.logits(probe.probe.messages, probe.continuation), probe.rows)


def test_exports_are_equal_byte_for_byte_and_leave_no_level_that_was_not_asked_for(
    checkpoint: Path, tmp_path: Path
) -> None:
    for name, threads in (("one", 1), ("deep/er/two", 2)):
        export_bundle(checkpoint, tmp_path / name, ["gguf-q8_0", "onnx-int4"], probe_count=6, threads=threads)
    assert contents(tmp_path / "one") == contents(tmp_path / "deep/er/two")
    assert not (tmp_path / "one/gguf-f32").exists() and not (tmp_path / "one/shared/mmproj-f32.gguf").exists()


def change(path: Path, tensor: str, by: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the numbers of one float32 tensor of a GGUF file."""
    place = next(one for one in read_gguf(path).tensors if one.name == tensor)
    data = np.memmap(path, np.float32, "r+", place.offset_bytes, (place.bytes // 4,))
    data[:] = by(np.array(data))
    data.flush()


@pytest.mark.parametrize("stage", ["vision", "reply logits"])
def test_a_graph_that_differs_is_refused_with_its_stage_and_nothing_is_left(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    real = module.export_gguf

    def wrong(folder: Path, draft: Path, *rest: object, **named: object) -> object:
        made = real(folder, draft, *rest, **named)  # type: ignore[arg-type]
        if stage == "vision":
            change(draft / "shared/mmproj-f32.gguf", "mm.2.bias", lambda values: values + 0.5)
        else:
            change(draft / "gguf-f32/model.gguf", "output_norm.weight", lambda values: values[::-1])
        return made

    monkeypatch.setattr(module, "export_gguf", wrong)
    with pytest.raises(ParityError, match=f"gguf-f32: {stage} differ"):
        export_bundle(checkpoint, tmp_path / "bundle", ["gguf-q8_0"], probe_count=6, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_ends_its_process_does_not_end_the_export_s(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = own_process.OwnProcess.ask

    def killed(process: own_process.OwnProcess, value: dict[str, object]) -> None:
        os.kill(process.pid, signal.SIGABRT)
        real(process, value)

    monkeypatch.setattr(own_process.OwnProcess, "ask", killed)
    with pytest.raises(ParityError, match=r"gguf-f32: its engine failed: the process was ended by SIGABRT"):
        export_bundle(checkpoint, tmp_path / "bundle", ["gguf-q8_0"], probe_count=6, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_a_sabotaged_checkpoint_exports_true_to_itself_and_far_from_the_original(
    checkpoint: Path, tmp_path: Path, reference: Engine
) -> None:
    broken = sabotage(checkpoint, tmp_path / "broken")
    made = export_bundle(broken.folder, tmp_path / "bundle", ["gguf-f16"], probe_count=6, threads=1)
    assert made.gate[0].kl_mean_nats <= 1e-6
    references = take_references(reference, make_probes(6, Prompter.open(checkpoint).rules))
    engine = open_engine(made.bundle, "gguf-f16", threads=1)
    assert measure(engine, references).kl_mean_nats > 1e-3
    engine.close()


def test_calibration_takes_calibration_rows_and_refuses_a_set_without_any(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = write_phantoms(tmp_path / "mixed", 6, 1, ("ct",), per_image=2, roles={"calibration": 0.5, "test": 0.5})
    opened: list[Path] = []
    real = Dataset.open
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "open", lambda folder: opened.append(folder) or real(folder))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        made = export_bundle(
            checkpoint, tmp_path / "bundle", ["gguf-q4_0+imatrix"], calibration=mixed.folder, probe_count=6, threads=1
        )
    assert opened == [mixed.folder], "a dataset that is read twice may be two"
    used = {probe.probe.id for probe in read_probes(made.bundle.folder / "probes")}
    allowed = {f"calibration-{example.id}" for example in mixed.examples if example.role == "calibration"}
    assert allowed == {name for name in used if name.startswith("calibration-")} and len(allowed) == 6
    assert made.bundle.manifest.provenance["calibration_sha256"] == mixed.sha256
    only_test = write_phantoms(tmp_path / "test", 2, 1, ("ct",), per_image=2, roles={"test": 1.0})
    with pytest.raises(CalibrationError, match="no row calibration"):
        export_bundle(checkpoint, tmp_path / "other", ["gguf-q8_0"], calibration=only_test.folder, threads=1)


def test_a_calibration_set_is_named_only_where_its_rows_are_among_the_probes(checkpoint: Path, tmp_path: Path) -> None:
    rows = write_phantoms(tmp_path / "rows", 3, 1, ("ct",), per_image=1, roles={"calibration": 1.0})

    def named(folder: str, level: str, **more: Any) -> bool:
        made = export_bundle(checkpoint, tmp_path / folder, [level], probe_count=6, threads=1, **more)
        return "calibration_sha256" in made.bundle.manifest.provenance

    assert not named("ungated", "gguf-q8_0", calibration=rows.folder, gate=False), "no prompt was kept"
    assert not named("joined", "gguf-q8_0")
    assert not named("joined", "gguf-f16", calibration=rows.folder), "the prompts are those of the first export"
    assert read_probes(tmp_path / "joined/probes")[0].probe.kind != "calibration"
    assert named("ungated", "gguf-f16", calibration=rows.folder), "a bundle without prompts gets them"


def test_a_folder_that_is_no_bundle_is_refused_and_kept(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(PublishError, match="exists already"):
        export_bundle(checkpoint, tmp_path, ["gguf-q8_0"], threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


LIBRARIES = ("torch", "transformers", "gguf", "llama_cpp", "onnx", "onnxscript", "onnxruntime", "optimum")


@pytest.mark.parametrize("module_name", LIBRARIES)
def test_a_missing_library_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module_name: str
) -> None:
    monkeypatch.setitem(sys.modules, module_name, None)
    with pytest.raises(MissingExtra, match=f"{module_name} is not installed"):
        export_bundle(tmp_path / "absent", tmp_path / "out", ["gguf-q8_0", "onnx-int4"])
    assert list(tmp_path.iterdir()) == []
    if module_name in ("gguf", "onnxscript"):
        require_libraries(["onnx-int4"] if module_name == "gguf" else ["gguf-q8_0"])


def test_a_place_that_cannot_be_written_is_refused_before_the_reference_runs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("the reference must not be opened")

    monkeypatch.setattr(module, "open_reference", too_late)
    (tmp_path / "plain").write_text("mine")
    with pytest.raises(PublishError, match="cannot be made"):
        export_bundle(checkpoint, tmp_path / "plain/below/bundle", ["gguf-q8_0"], probe_count=6, threads=1)
    assert (tmp_path / "plain").read_text() == "mine"


def test_a_level_of_an_engine_that_was_tampered_with_is_not_opened(exported: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported.bundle.folder, copy)
    model = copy / "gguf-q8_0/model.gguf"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(Exception, match=r"gguf-q8_0/model\.gguf was changed"):
        Bundle.open(copy)
