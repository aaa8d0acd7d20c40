"""Every family at every level: exported, held against torch, opened, asked and scored; stated for docs/support.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

for _library in ("torch", "llama_cpp", "onnx", "onnxruntime"):
    pytest.importorskip(_library)

from infimed import InfimedError  # noqa: E402
from infimed.evaluation.dataset import write_dataset  # noqa: E402
from infimed.evaluation.example import Example, TextRef  # noqa: E402
from infimed.evaluation.phantoms import write_phantoms  # noqa: E402
from infimed.export.calibration import CalibrationError  # noqa: E402
from infimed.export.export_bundle import export_bundle  # noqa: E402
from infimed.export.parity import KL_LIMIT_NATS, Parity  # noqa: E402
from infimed.runtime.bundle import verify  # noqa: E402
from infimed.runtime.engine import Engine, Sampling  # noqa: E402
from infimed.runtime.levels import LEVELS, VISION_TYPES, Format, UnknownLevel, level  # noqa: E402
from infimed.runtime.messages import ImagePart, Message, user  # noqa: E402
from infimed.runtime.open_engine import computed_as, open_engine  # noqa: E402
from infimed.training.reference import open_reference  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402
from ..support import Shown  # noqa: E402
from ..text_models import TEXT_FAMILIES, build_text_checkpoint  # noqa: E402

pytestmark = pytest.mark.full

VISION_FAMILY = "qwen2.5-vl"
FORMATS: tuple[Format, ...] = ("gguf", "onnx", "tensorrt")
ENGINES = {"gguf": "llama.cpp", "onnx": "onnxruntime", "tensorrt": "onnxruntime"}
# The level whose tower is written in every other type that the format has.
WITH_TOWERS = {"gguf": "gguf-q4_k_m", "onnx": "onnx-int4", "tensorrt": "tensorrt-int4"}
# Bits that a level is named by -> its largest mean KL on random weights: twice the largest seen of these levels.
MOST_KL_NATS = {16: 1e-4, 8: 0.013, 6: 0.017, 5: 0.06, 4: 0.33, 3: 1.1, 2: 2.0}
QUESTION = "Is there a lesion in the left lung?"
OPTIONS = ("yes", "no")
StateIt = Callable[[Shown], None]


def names_of(format: Format, family: str) -> list[str]:
    """Return every level of a format: its rows, each with a matrix where it takes one, and each type of a tower."""
    rows = [row for row in LEVELS if row.format == format]
    names = [row.name for row in rows]
    names += [f"{row.base}+imatrix" for row in rows if row.importance == "optional"]
    if family == VISION_FAMILY:
        base = WITH_TOWERS[format]
        names += [f"{base}+vision-{kind}" for kind in VISION_TYPES[format] if kind != level(base).vision]
    return names


def most_kl_nats(name: str) -> float:
    """Return the largest mean KL to torch that a level may show; levels that are judged in float hold the gate's."""
    row = level(name)
    if row.full_precision:
        return KL_LIMIT_NATS
    return MOST_KL_NATS[int(re.findall(r"\d+", row.storage)[0])]


def build(family: str, folder: Path) -> Path:
    if family == VISION_FAMILY:
        small = {"vision_depth": 2, "fullatt_block_indexes": (1,), "max_pixels": 28 * 28 * 16}
        return build_random_checkpoint(folder, dtype="bfloat16", **small)  # type: ignore[arg-type]
    return build_text_checkpoint(folder, family, dtype="bfloat16")


def calibration_set(family: str, folder: Path) -> Path:
    """Write some calibration rows: drawn images for the family that sees them, questions alone for the others."""
    if family == VISION_FAMILY:
        roles = {"calibration": 1.0}
        return write_phantoms(folder, 4, 1, ("ct", "xray"), per_image=1, roles=roles).folder  # type: ignore[arg-type]
    asked = ("Which modality uses no ionising radiation?", "What is the size of the finding?", "Is there a mass?")
    rows = [
        Example(
            id=f"row-{number}", content=(TextRef(question),), answer="yes", options=(), answer_type="open",
            modality="text", task="open", source="made", license="CC0-1.0", group=str(number), role="calibration",
        )
        for number, question in enumerate(asked)
    ]  # fmt: skip
    return write_dataset(folder, rows, {}, name="questions").folder


def picture(seed: int) -> ImagePart:
    return ImagePart(np.random.default_rng(seed).integers(0, 256, (84, 112, 3), dtype=np.uint8))


def ask(family: str, seed: int = 1) -> tuple[Message, ...]:
    return (user(picture(seed), QUESTION) if family == VISION_FAMILY else user(QUESTION),)


def check_answers(engine: Engine, family: str, name: str, reference: Engine) -> None:
    """Hold what a person does with a level: a reply, two options scored, another image seen, an image refused."""
    assert engine.level == name
    made = engine.generate(ask(family), Sampling(max_tokens=6))
    assert made.token_ids and len(made.token_ids) == len(made.logprobs_nats) and np.all(np.isfinite(made.logprobs_nats))
    scores = engine.score(ask(family), OPTIONS)
    assert [one.option for one in scores.options] == list(OPTIONS) and np.all(np.isfinite(scores.values()))
    assert np.isclose(scores.probabilities().sum(), 1.0) and scores.choice() in OPTIONS
    if level(name).full_precision:
        theirs = reference.score(ask(family), OPTIONS)
        assert np.allclose(scores.values(), theirs.values(), atol=1e-3)
        assert made.token_ids == reference.generate(ask(family), Sampling(max_tokens=6)).token_ids
    if family == VISION_FAMILY:
        assert not np.allclose(scores.values(), engine.score(ask(family, seed=2), OPTIONS).values(), atol=1e-4)
    else:
        with pytest.raises(InfimedError, match="models take no images; ask in text alone"):
            engine.generate((user(picture(1), QUESTION),))


def check_distance(found: Parity, full: Parity) -> None:
    """Hold a level's measured distance to torch between that of full precision and the ceiling of its bits."""
    assert found.rows > 0 and found.kl_mean_nats <= most_kl_nats(found.level), found
    if not level(found.level).full_precision:
        # Weights that are rounded show; if they do not, it is not the level that was asked for that was run.
        assert found.kl_mean_nats > 2 * full.kl_mean_nats, (found, full)


def check_refusals(checkpoint: Path, names: list[str], dataset: Path, out: Path) -> list[str]:
    """Hold that a calibrated level is refused without a dataset, and one without the matrix it needs; return those."""
    for name in names:
        if level(name).calibrated:
            with pytest.raises(CalibrationError, match="add --calibration DATASET"):
                export_bundle(checkpoint, out, [name])
    bare = [level(name).base for name in names if level(name).importance == "required"]
    for name in bare:
        with pytest.raises(UnknownLevel, match="needs an importance matrix"):
            export_bundle(checkpoint, out, [name], calibration=dataset)
    assert not out.exists()
    return bare


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", [VISION_FAMILY, *TEXT_FAMILIES])
def test_every_level_of_a_family_answers(
    family: str, format: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: StateIt
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint = build(family, tmp_path / "checkpoint")
    dataset, names = calibration_set(family, tmp_path / "data"), names_of(format, family)
    for name in check_refusals(checkpoint, names, dataset, tmp_path / "none"):
        shown(Shown(family, name, "export", "refused", "without +imatrix"))
    made = export_bundle(checkpoint, tmp_path / "bundle", names, calibration=dataset, probe_count=6, threads=1)
    manifest = verify(made.bundle.folder)
    assert manifest.family == family and sorted(e.name for e in manifest.levels) == sorted(names)
    (gate,) = made.gate
    assert level(gate.level).full_precision and gate.kl_mean_nats <= KL_LIMIT_NATS
    measured = {found.level: found for found in made.levels}
    reference = open_reference(checkpoint, threads=1)
    for name in names:
        check_distance(measured[name], gate)
        engine = open_engine(made.bundle, name, threads=1)
        check_answers(engine, family, name, reference)
        engine.close()
        computed = f" ({how})" if (how := computed_as(name)) else ""
        note = "by --calibration, refused without" if level(name).calibrated else ""
        shown(Shown(family, name, ENGINES[format] + computed, "executed", note))
    reference.close()
    if family != VISION_FAMILY:
        shown(Shown(family, f"every {format} level", ENGINES[format], "refused", "an image in a message"))
