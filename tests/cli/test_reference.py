"""A reference that travels: kept by a checkpoint on one machine, levels of a bundle held against it on another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")
pytest.importorskip("scipy")
from scipy import stats

from infimed.cli.app import run
from infimed.evaluation.dataset import Dataset
from infimed.evaluation.phantoms import write_phantoms
from infimed.evaluation.prediction import read_run
from infimed.evaluation.prompting import messages_for
from infimed.runtime.bundle import Bundle, write_manifest
from infimed.runtime.messages import ImagePart
from infimed.runtime.open_engine import open_engine
from infimed.runtime.prompt import PROMPT_FILES, Prompter
from infimed.training.checkpoint import Checkpoint
from infimed.training.reference import open_reference

from ..models import build_random_checkpoint

LEVELS = ("gguf-f32", "gguf-q4_k_m")


def bundle_of(checkpoint: Path, out: Path) -> Path:
    """Write two levels of a checkpoint as a bundle."""
    from infimed.export.gguf_export import export_gguf

    (out / "shared").mkdir(parents=True)
    for name in PROMPT_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, out / "shared" / name)
    entries = export_gguf(checkpoint, out, LEVELS)
    prompter = Prompter.open(out / "shared")
    write_manifest(
        out, family=prompter.family.name, license="none", preprocessing=prompter.preprocessing,
        levels=[entries[level] for level in LEVELS],
        provenance={"checkpoint_sha256": Checkpoint.open(checkpoint).sha256},
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a place with a checkpoint, its bundle, a dataset and the store that the checkpoint wrote of itself."""
    place = tmp_path_factory.mktemp("travel")
    checkpoint = build_random_checkpoint(place / "checkpoint", vision_depth=2, fullatt_block_indexes=(1,))
    bundle_of(checkpoint, place / "bundle")
    write_phantoms(place / "data", 8, 1, ("ct",), per_image=2, roles={"train": 0.5, "test": 0.5})
    arguments = ["--data", str(place / "data"), "--threads", "1", "--max-tokens", "4"]
    store = ["--reference-store", str(place / "reference.zip"), "--grey", "--prior", str(place / "data")]
    probes = ["--probe", "sycophancy", "--probe", "blur:3"]
    assert run(["evaluate", str(checkpoint), *arguments, "--out", str(place / "server"), *store, *probes]) == 0
    assert run(["evaluate", str(place / "bundle"), *arguments, "--out", str(place / "device"), "--reference",
                str(place / "reference.zip"), *probes]) == 0  # fmt: skip
    return place


def test_a_device_reports_kl_and_flips_against_a_model_that_it_never_held(made: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    device = shutil.copytree(made / "device", tmp_path / "device")
    for path in device.rglob("checkpoint*"):
        path.unlink()  # whatever of the store was laid there: drift lays it again
    (device / "prior.meta.json").unlink()
    store = str(made / "reference.zip")
    assert run(["drift", str(device), "--reference", store, "--out", str(tmp_path / "report"), "--json"]) in (
        0,
        1,
        4,
        5,
    )
    report = json.loads(capsys.readouterr().out)
    assert report["reference"]["run"] == "checkpoint" and [row["facts"]["run"] for row in report["levels"]] == [*LEVELS]
    full, small = (row["overall"]["answers"]["tokens"] for row in report["levels"])
    assert full["items"] == small["items"] == report["items"]
    assert full["kl"]["max_nats"] < 1e-5 < small["kl"]["mean_nats"] <= small["kl_at_most"]["mean_nats"]
    assert full["replies"]["correct"] == report["items"]
    for row in report["levels"]:
        assert {probe["probe"] for probe in row["probes"] if probe["answers"]["tokens"]} == {"blur-3", "sycophancy"}
        assert row["overall"]["bootstrap"]["draws"] == 10_000
    told = (tmp_path / "report" / "drift.md").read_text()
    assert f"Given the reference's replies, {report['items']} of {small['kl']['items']} tokens: KL per token" in told
    assert "Given its replies under blur-3" in told and "by a bootstrap of the" in told


def test_rows_lie_where_scipy_finds_the_two_engines_whole_rows(made: Path) -> None:
    dataset = Dataset.open(made / "data")
    kept = {row.example_id: row.kept for row in read_run(made / "server", "checkpoint").predictions}
    forced = {row.example_id: row.forced for row in read_run(made / "device", "gguf-q4_k_m").predictions}
    reference = open_reference(made / "checkpoint", threads=1)
    level = open_engine(Bundle.open(made / "bundle"), "gguf-q4_k_m", threads=1)
    for example in dataset.in_role("test")[:4]:
        asked = messages_for(example, tuple(ImagePart(rgb) for rgb in dataset.images(example)))
        answer, found = kept[example.id], forced[example.id]
        assert answer is not None and found is not None
        p, q = (engine.logits(asked, answer.token_ids[:-1]).astype(np.float64) for engine in (reference, level))
        truth = stats.entropy(np.exp(p - p.max(-1, keepdims=True)), np.exp(q - q.max(-1, keepdims=True)), axis=-1)
        assert (np.array(found.kl_nats) <= truth + 2e-6).all()
        assert (truth <= np.array(found.kl_nats) + found.missed_nats + 2e-6).all()
        assert found.same == tuple(q.argmax(-1) == np.array(answer.token_ids))
        assert answer.token_ids == tuple(p.argmax(-1))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bundle", "--level", "gguf-q4_k_m", "--reference-store", "x.zip"], "bits per weight and is no reference"),
        (["bundle", "--reference-store", "x.zip"], "is of one model, not of 2"),
        (["checkpoint", "--reference-store", "x.npz"], "it must end in .zip"),
        (["checkpoint", "--reference-store", "x.zip", "--reference", "reference.zip"], "give one of the two"),
        (["checkpoint", "--reference", "reference.zip"], "is of the run 'checkpoint' itself"),
        (["bundle", "--reference", "none.zip"], "none.zip does not exist"),
        (["bundle", "--reference", "data/examples.jsonl"], "is cut or damaged"),
        (["bundle", "--reference", "reference.zip", "--max-tokens", "9"], "for another settings"),
        (["bundle", "--reference", "reference.zip", "--role", "train"], "for another role"),
    ],
)
def test_what_is_no_reference_is_refused_before_any_question(
    made: Path, tmp_path: Path, capsys, arguments, told
) -> None:  # type: ignore[no-untyped-def]
    files = {word for word in arguments if (made / word).exists() or word.endswith((".zip", ".npz"))}
    words = [str(made / word) if word in files else word for word in arguments]
    base = ["--data", str(made / "data"), "--out", str(tmp_path / "runs")]
    base += [] if "--max-tokens" in words else ["--max-tokens", "4"]
    assert run(["evaluate", *words, *base]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_store_of_other_questions_or_another_model_is_refused(made: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    write_phantoms(tmp_path / "other", 8, 2, ("ct",), per_image=2, roles={"train": 0.5, "test": 0.5})
    common = ["--max-tokens", "4", "--out", str(tmp_path / "runs"), "--reference", str(made / "reference.zip")]
    assert run(["evaluate", str(made / "bundle"), "--data", str(tmp_path / "other"), *common]) == 2
    assert "is for another dataset" in capsys.readouterr().err
    stranger = build_random_checkpoint(tmp_path / "stranger", seed=9, vision_depth=2, fullatt_block_indexes=(1,))
    bundle_of(stranger, tmp_path / "theirs")
    assert run(["evaluate", str(tmp_path / "theirs"), "--data", str(made / "data"), *common]) == 2
    assert "is of another model than gguf-f32" in capsys.readouterr().err
    template = stranger / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    bundle_of(stranger, tmp_path / "worded")
    assert run(["evaluate", str(tmp_path / "worded"), "--data", str(made / "data"), *common]) == 2
    assert "another tokenizer, template or pixel rules" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
