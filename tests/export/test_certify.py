"""The certificate is taken in a process of its own: its end, however it comes, is a failed statement and no more."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from infimed.cli.app import run
from infimed.export import certify as module
from infimed.export import own_process
from infimed.export.certificate import Certificate
from infimed.export.certificate_examine import sample
from infimed.export.certify import certify
from infimed.export.parity import ParityError, Reference
from infimed.export.probes import KINDS, make_probes
from infimed.runtime.bundle import Bundle
from infimed.runtime.events import Event
from infimed.runtime.levels import UnknownLevel
from infimed.runtime.prompt import Prompter

from ..text_models import build_text_checkpoint
from .parity_bundles import build_bundle, changed_copy, clean_checkpoint


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    checkpoint = clean_checkpoint(tmp_path_factory.mktemp("certify") / "checkpoint")
    return build_bundle(checkpoint, tmp_path_factory.mktemp("bundle") / "bundle", ["gguf-q8_0", "gguf-q4_k_m"])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    checkpoint = clean_checkpoint(tmp_path_factory.mktemp("certify") / "checkpoint")
    levels = ["gguf-q8_0", "onnx-int4", "tensorrt-int4"]
    return build_bundle(checkpoint, tmp_path_factory.mktemp("mixed") / "bundle", levels)


LEVELS_OF_ONNX = ("onnx-int4", "tensorrt-int4")


@functools.cache
def text_bundle(folder: Path) -> Bundle:
    checkpoint = build_text_checkpoint(folder / "checkpoint", "llama", dtype="bfloat16")
    return build_bundle(checkpoint, folder / "bundle", ["gguf-q8_0", "onnx-int4", "tensorrt-int4"])


def test_the_command_certifies_tells_and_attests(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = changed_copy(bundle, tmp_path / "bundle", lambda folder: None)
    ask = ["verify", str(copy.folder), "--parity", "--level", "gguf-q8_0", "--probes", "3", "--threads", "1"]
    assert run(ask) == 0
    told = capfd.readouterr().out
    for word in ("graph", "kernel", "drift", "weights' part", "certificate: held", "1 square, 1 text"):
        assert word in told, told
    assert Bundle.open(copy.folder).attestations() == ()
    assert run([*ask, "--attest", "--json"]) == 0
    body = json.loads(capfd.readouterr().out)["certificates"][0]
    (attested,) = Bundle.open(copy.folder).attestations()
    assert (attested.kind, attested.level, dict(attested.body)) == ("certificate", "gguf-q8_0", body)
    found = Certificate.from_json(body)
    assert found.held and found.digest == copy.manifest.level_digest("gguf-q8_0")
    assert str(copy.folder) not in json.dumps(body)


def test_a_drift_beyond_the_limit_that_was_asked_for_fails(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    ask = ["verify", str(bundle.folder), "--parity", "--level", "gguf-q4_k_m", "--probes", "2", "--threads", "1"]
    assert run([*ask, "--drift-limit", "1e-5"]) == 1
    assert "FAILED at drift: logits" in capfd.readouterr().out


def test_what_is_for_certificates_alone_is_refused_without_them(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(bundle.folder), "--attest"]) == 2
    assert "--attest is for certificates; give --parity too" in capfd.readouterr().err
    assert run(["verify", str(bundle.folder), "--parity", "--level", "gguf-q6_k"]) == 2


def test_a_level_that_the_bundle_lacks_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UnknownLevel):
        certify(bundle, "onnx-int4")


def broken_by(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child do something else once it asks the level's own engine."""
    code = (
        f"import importlib, os\nexamine = importlib.import_module('{module.__package__}.certificate_examine')\n"
        f"def asked(self, stage, opened):\n"
        f"    self.on_event(examine.Event(stage, 0, 1, 'prompts'))\n"
        f"    if stage == 'level':\n        {line}\n"
        f"    return real(self, stage, opened)\n"
        f"real = examine._Examination._ask\nexamine._Examination._ask = asked\n"
    )
    start = own_process._START.replace("from {name} import main\n", code + "from {name} import main\n", 1)
    monkeypatch.setattr(own_process, "_START", start)


def test_an_abort_of_the_engine_is_a_failed_statement_with_its_signal(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_by("os.write(2, b'ggml_abort: a check failed'); os.abort()", monkeypatch)
    stages: list[str] = []
    found = certify(bundle, "gguf-q8_0", probes=2, threads=1, on_event=lambda event: stages.append(event.stage))
    assert not found.held and found.failure is not None
    assert (found.failure[0], found.failure[1].stage) == ("kernel", "level")
    assert "SIGABRT" in found.failure[1].said and "a check failed" in found.failure[1].said
    assert found.statement("checks").verdict == "held"  # what was found before the abort is kept
    assert found.statement("graph").verdict == found.statement("drift").verdict == "not run"
    assert "gguf-q8_0 weights" in stages and os.getpid() > 0


def test_a_hang_is_ended_and_is_a_failed_statement(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = (
        "print(json.dumps({'event': {'stage': 'dequantised', 'done': 0, 'total': 1, 'unit': 'prompts'}}), flush=True)"
    )
    monkeypatch.setattr(own_process, "_START", f"import json, time\n{begin}\ntime.sleep(3600)")
    found = certify(bundle, "gguf-q8_0", probes=1, threads=1, silence_s=3.0)
    assert found.failure is not None and found.failure[0] == "graph"
    assert "no sign of life for 3 s" in found.failure[1].said


def hidden(names: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child find none of these modules, as where they are not installed."""
    code = f"sys.modules.update(dict.fromkeys({tuple(names)!r}))\n"
    start = own_process._START.replace("from {name} import main\n", code + "from {name} import main\n", 1)
    assert start != own_process._START
    monkeypatch.setattr(own_process, "_START", start)


@pytest.mark.parametrize("level", ["gguf-q8_0", "onnx-int4", "tensorrt-int4"])
def test_without_torch_the_graph_is_not_run_and_the_rest_is(
    mixed: Bundle, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden(("torch", "transformers"), monkeypatch)
    found = certify(mixed, level, probes=2, threads=1)
    assert {one.kind: one.verdict for one in found.statements} == {
        "checks": "held",
        "graph": "not run",
        "kernel": "held",
        "drift": "stated",
    }
    assert "torch is not installed" in found.finding("graph", "torch").said
    assert "transformers is not installed" in found.finding("checks", "tokens").said
    assert found.held and found.failure is None


@pytest.mark.parametrize(
    ("level", "library"),
    [("gguf-q8_0", "gguf"), *(pytest.param(name, "onnx", marks=pytest.mark.full) for name in LEVELS_OF_ONNX)],
)
def test_without_the_library_that_reads_weights_only_prompts_and_drift_are_left(
    mixed: Bundle, level: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden((library,), monkeypatch)
    found = certify(mixed, level, probes=2, threads=1)
    assert {one.kind: one.verdict for one in found.statements} == {
        "checks": "not run",
        "graph": "not run",
        "kernel": "not run",
        "drift": "not run",
    }
    for kind, stage in (("checks", "headers"), ("checks", "weights"), ("graph", "dequantised")):
        assert found.finding(kind, stage).verdict == "not run" and library in found.finding(kind, stage).said
    assert found.finding("checks", "tokens").verdict == "held"
    assert found.finding("drift", "logits").verdict == "stated" and found.held


def test_a_sample_without_an_image_says_nothing_of_the_tower(mixed: Bundle) -> None:
    found = certify(mixed, "onnx-int4", probes=1, threads=1)
    assert found.probes == {"text": 1}
    for kind, stage in (("checks", "pixels"), ("graph", "vision"), ("kernel", "vision")):
        finding = found.finding(kind, stage)
        assert (finding.verdict, finding.value, finding.limit) == ("not run", None, None)
        assert finding.said == "no prompt of the sample holds an image"
    assert found.finding("graph", "prompt logits").verdict == "held"


@pytest.mark.parametrize(
    "level", ["gguf-q8_0", *(pytest.param(name, marks=pytest.mark.full) for name in LEVELS_OF_ONNX)]
)
def test_a_model_without_a_tower_says_so_in_the_place_of_a_verdict(
    tmp_path_factory: pytest.TempPathFactory, level: str
) -> None:
    bundle = text_bundle(tmp_path_factory.getbasetemp() / "text-bundle")
    found = certify(bundle, level, threads=1)
    for kind, stage in (("checks", "pixels"), ("graph", "vision"), ("kernel", "vision")):
        finding = found.finding(kind, stage)
        assert (finding.verdict, finding.value, finding.limit) == ("stated", None, None)
        assert finding.said.removeprefix("graph, not engine; ") == "no tower: the model takes no images"
    assert {one.kind: one.verdict for one in found.statements} == {
        "checks": "held",
        "graph": "held",
        "kernel": "held",
        "drift": "stated",
    }


def test_a_child_that_cannot_begin_is_a_failed_statement(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_process, "_START", "raise SystemExit(7)  # {name}")
    found = certify(bundle, "gguf-q8_0", probes=1, threads=1)
    assert found.failure is not None and found.failure[0] == "checks" and "code 7" in found.failure[1].said


def test_what_a_library_prints_does_not_disturb(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_by("print('{\"event\": 1}'); os.write(1, b'noise\\n')", monkeypatch)
    events: list[Event] = []
    assert certify(bundle, "gguf-q8_0", probes=1, threads=1, on_event=events.append).held and events


def test_a_sample_is_spread_over_the_kinds(bundle: Bundle) -> None:
    probes = make_probes(14, Prompter.open(bundle.shared).rules)
    empty = np.zeros((1, 2), np.float32)
    references = [Reference(probe, (), empty, ()) for probe in probes]
    assert [one.probe.kind for one in sample(references, 6)] == list(KINDS)
    assert [one.probe.kind for one in sample(references, 2)] == list(KINDS[:2])
    assert sample(references, None) == sample(references, 99) == tuple(references)
    for wrong in ((references, 0), ([], None)):
        with pytest.raises(ParityError, match="no prompt"):
            sample(*wrong)
