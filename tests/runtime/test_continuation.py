"""What is likely at each token of a continuation: one call, equal in every engine, in transformers and in SciPy."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from infimed.runtime.decoding import EngineError
from infimed.runtime.distance import token_logprobs
from infimed.runtime.engine import Engine, Sampling, TokenLogprobs
from infimed.runtime.messages import user

scipy_special = pytest.importorskip("scipy.special")
scipy_stats = pytest.importorskip("scipy.stats")


def check_row(found: TokenLogprobs, row: NDArray[np.float64], abs_nats: float = 1e-9) -> None:
    """Hold a reduced row against SciPy's own softmax and entropy of the whole one."""
    logs = scipy_special.log_softmax(row)
    assert found.logprobs_nats == pytest.approx(logs[found.token_ids], abs=abs_nats)
    rest = np.delete(logs, found.token_ids)
    assert found.rest_nats == pytest.approx(scipy_special.logsumexp(rest), abs=abs_nats)
    assert found.rest_entropy_nats == pytest.approx(scipy_stats.entropy(np.exp(rest)), abs=abs_nats * 100)
    assert found.rest_lowest_nats == pytest.approx(rest.min(), abs=abs_nats)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_a_row_is_reduced_to_what_scipy_finds_in_the_whole_of_it(scale: float) -> None:
    row = np.random.default_rng(1).normal(0, scale, 500)
    for at in (1, 7, 499, [3, 499, 0]):
        found = token_logprobs(row, at)
        check_row(found, row)
        assert found.likeliest == int(row.argmax())
        assert list(found.token_ids) == (at if isinstance(at, list) else list(np.argsort(-row, kind="stable")[:at]))


def test_where_every_token_is_named_nothing_is_left() -> None:
    row = np.array([1.0, 3.0, 3.0, -2.0])
    found = token_logprobs(row, 9)
    assert list(found.token_ids) == [1, 2, 0, 3] and found.likeliest == 1
    assert (found.rest_nats, found.rest_entropy_nats, found.rest_lowest_nats) == (-np.inf, 0.0, -np.inf)
    assert list(token_logprobs(np.zeros(5), 2).token_ids) == [0, 1]  # of equals the first


def test_a_rest_of_hardly_any_probability_keeps_its_own_digits() -> None:
    found = token_logprobs(np.array([0.0, -50.0, -60.0]), 1)
    assert found.rest_nats == pytest.approx(-50 + np.log1p(np.exp(-10.0)), rel=1e-12)


torch = pytest.importorskip("torch")
pytest.importorskip("llama_cpp")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from infimed.runtime.open_engine import open_level  # noqa: E402
from infimed.runtime.prompt import PROMPT_FILES  # noqa: E402
from infimed.training.reference import open_reference  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402
from ..onnx_levels import export_levels  # noqa: E402
from ..training.test_torch_backend import PROMPTS, by_transformers  # noqa: E402

QUESTIONS = {name: PROMPTS[name] for name in ("text", "ragged", "two images")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_checkpoint(
        tmp_path_factory.mktemp("continuation") / "model",
        hidden=64, ffn=96, vision_hidden=32, vision_ffn=48, vision_depth=2, fullatt_block_indexes=(1,),
    )  # fmt: skip


def copy_prompt_files(folder: Path, out: Path) -> None:
    (out / "shared").mkdir()
    for name in PROMPT_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / "shared" / name)


@pytest.fixture(scope="module")
def engines(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    from infimed.export.gguf_export import export_gguf

    out = tmp_path_factory.mktemp("levels")
    copy_prompt_files(folder, out)
    entry = export_gguf(folder, out, ["gguf-f32"])["gguf-f32"]
    level = open_level(out, entry, threads=1, context_tokens=512)
    return {"torch": open_reference(folder, threads=1), "gguf-f32": level}


@pytest.fixture(scope="module")
def every(folder: Path, engines: dict[str, Engine], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """Return the engines with onnxruntime's, whose level takes long to write."""
    out = tmp_path_factory.mktemp("onnx")
    entry = export_levels(folder, out).entries["onnx-fp32"]
    return {**engines, "onnx-fp32": open_level(out, entry, threads=1, context_tokens=512)}


def replies(engine: Engine) -> dict[str, list[int]]:
    return {name: list(engine.generate(asked, Sampling(6)).token_ids) for name, asked in QUESTIONS.items()}


@pytest.mark.parametrize("name", ["torch", "gguf-f32"])
def test_an_engine_gives_what_transformers_gives(name: str, engines: dict[str, Engine], folder: Path) -> None:
    hold_against_transformers(name, engines, folder)


@pytest.mark.full
def test_every_engine_gives_what_transformers_gives_and_names_what_it_is_asked_for(
    every: dict[str, Engine], folder: Path
) -> None:
    hold_against_transformers("onnx-fp32", every, folder)
    hold_against_each_other(every)


def hold_against_transformers(name: str, engines: dict[str, Engine], folder: Path) -> None:
    for question, reply in replies(engines["torch"]).items():
        asked = QUESTIONS[question]
        rows = by_transformers(folder, asked, reply)[-len(reply) - 1 : -1].astype(np.float64)
        found = engines[name].continuation_logprobs(asked, reply, 5)
        assert len(found) == len(reply)
        for one, row, token in zip(found, rows, reply, strict=True):
            check_row(one, row, 2e-3)
            assert one.likeliest == token == int(row.argmax()) == one.token_ids[0]


def test_engines_name_the_tokens_they_are_asked_for(engines: dict[str, Engine]) -> None:
    hold_against_each_other(engines)


def hold_against_each_other(engines: dict[str, Engine]) -> None:
    reply = replies(engines["torch"])["ragged"]
    wanted: Sequence[Sequence[int]] = [
        [token, (token + 1) % 600, *range(600, 600 + place)] for place, token in enumerate(reply)
    ]
    found = {name: engine.continuation_logprobs(QUESTIONS["ragged"], reply, wanted) for name, engine in engines.items()}
    for others in found.values():
        for one, other, named in zip(found["torch"], others, wanted, strict=True):
            assert list(other.token_ids) == list(named)
            assert other.logprobs_nats == pytest.approx(one.logprobs_nats, abs=2e-3)
            assert other.rest_nats == pytest.approx(one.rest_nats, abs=2e-3)


def test_a_question_asked_before_and_after_changes_nothing(engines: dict[str, Engine]) -> None:
    for engine in engines.values():
        first = engine.continuation_logprobs(QUESTIONS["ragged"], [5, 6, 7], 3)
        engine.score(QUESTIONS["ragged"], ("yes", "no"))
        again = engine.continuation_logprobs(QUESTIONS["ragged"], [5, 6, 7], 3)
        assert [one.logprobs_nats.tolist() for one in first] == [one.logprobs_nats.tolist() for one in again]


def test_what_cannot_be_asked_for_is_refused(engines: dict[str, Engine]) -> None:
    engine, asked = engines["torch"], [user("Is there a lesion?")]
    assert engine.continuation_logprobs(asked, [], 3) == ()
    for continuation, at, told in (
        ([5, 640], 3, "token 640 is none of this model's 640"),
        ([-1], 3, "token -1 is none"),
        ([5], [[7, 7]], "named twice"),
        ([5], [[999]], "token 999"),
        ([5, 6], [[1]], "for 1 places of a continuation of 2"),
        ([5], 0, "at least 1"),
    ):
        with pytest.raises(EngineError, match=told):
            engine.continuation_logprobs(asked, continuation, at)


def test_a_reply_that_ends_of_itself_names_the_token_that_ended_it(
    engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked = engines["torch"], [user("Is there a lesion?")]
    cut = engine.generate(asked, Sampling(4))
    assert (cut.finish, cut.end_id, len(cut.token_ids)) == ("length", None, 4)
    last = next(place for place, token in enumerate(cut.token_ids) if token not in cut.token_ids[:place] and place)
    monkeypatch.setattr(engine.prompter, "end_ids", frozenset({cut.token_ids[last]}))  # type: ignore[attr-defined]
    ended = engine.generate(asked, Sampling(4))
    assert (ended.finish, ended.token_ids, ended.end_id) == ("stop", cut.token_ids[:last], cut.token_ids[last])
