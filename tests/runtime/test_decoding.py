from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infimed.runtime.decoding import Decoder, EngineError
from infimed.runtime.engine import PrefixHandle, Sampling
from infimed.runtime.messages import ImagePart, assistant, user

torch = pytest.importorskip("torch")
from infimed.training.reference import open_reference  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Decoder:
    opened = open_reference(checkpoint, threads=1)
    assert isinstance(opened, Decoder)
    return opened


def image(seed: int, height: int = 70, width: int = 100) -> ImagePart:
    return ImagePart(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


QUESTIONS = ("Is there a lesion?", "How many lesions does this image show?", "Which modality is this?")
OPTIONS = ("yes", "no", "pneumothorax", "left lower lobe")


def test_a_warm_engine_answers_bit_for_bit_what_a_cold_one_does(engine: Decoder, checkpoint: Path) -> None:
    warm = [engine.score([user(image(1), question)], OPTIONS) for question in QUESTIONS]
    assert warm[0].reused_tokens < warm[1].reused_tokens
    for question, found in zip(QUESTIONS, warm, strict=True):
        cold = open_reference(checkpoint, threads=1).score([user(image(1), question)], OPTIONS)
        assert cold.reused_tokens == 0
        assert cold.options == found.options


def test_an_image_is_encoded_once_for_all_its_questions(engine: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = engine.backend.encode_image
    monkeypatch.setattr(engine.backend, "encode_image", lambda picture: (calls.append(picture.key), real(picture))[1])
    for question in QUESTIONS:
        engine.score([user(image(2), question)], OPTIONS)
        engine.score([user(image(3), question)], OPTIONS)
    assert calls == [image(2).key, image(3).key]


def test_option_likelihoods_are_the_sums_of_the_logits_they_come_from(engine: Decoder) -> None:
    messages = [user(image(4), QUESTIONS[0])]
    for score in engine.score(messages, OPTIONS).options:
        ids = engine.prompter.encode(score.option)
        rows = engine.logits(messages, ids).astype(np.float64)
        logs = (
            rows
            - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True))
            - rows.max(-1, keepdims=True)
        )
        assert score.tokens == len(ids)
        assert score.logprob_nats == pytest.approx(sum(logs[i, token] for i, token in enumerate(ids)), abs=1e-4)


def test_greedy_generation_is_the_argmax_of_each_row(engine: Decoder) -> None:
    messages = [user(image(5), QUESTIONS[1])]
    reply = engine.generate(messages, Sampling(max_tokens=6))
    rows = engine.logits(messages, reply.token_ids)
    assert [int(row.argmax()) for row in rows][: len(reply.token_ids)] == list(reply.token_ids)


def test_streamed_pieces_join_to_the_reply_and_a_seed_repeats_it(engine: Decoder) -> None:
    pieces: list[str] = []
    sampling = Sampling(max_tokens=12, temperature=1.2, top_p=0.95, seed=5)
    first = engine.generate([user(image(6), QUESTIONS[0])], sampling, on_text=pieces.append)
    assert "".join(pieces) == first.text
    assert engine.generate([user(image(6), QUESTIONS[0])], sampling) == replace_reused(first, engine)
    assert engine.generate([user(image(6), QUESTIONS[0])], Sampling(12, 1.2, 0.95, seed=6)).token_ids != first.token_ids


def replace_reused(completion, engine):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    again = engine.generate([user(image(6), QUESTIONS[0])], Sampling(1))
    return replace(completion, reused_tokens=again.reused_tokens)


def test_a_stop_string_ends_the_reply(engine: Decoder) -> None:
    messages = [user(image(7), QUESTIONS[0])]
    plain = engine.generate(messages, Sampling(max_tokens=12))
    mark = plain.text[2:4]
    stopped = engine.generate(messages, Sampling(max_tokens=12, stop=(mark,)))
    assert stopped.finish == "stop" and stopped.text == plain.text[: plain.text.index(mark)]


def test_a_conversation_is_taken_in_once_and_gone_on_with(engine: Decoder) -> None:
    first = [user(image(8), QUESTIONS[0])]
    handle = engine.hold(first)
    engine.score(first, OPTIONS, prefix=handle)
    going_on = [*first, assistant("yes"), user(QUESTIONS[1])]
    found = engine.score(going_on, OPTIONS, prefix=handle)
    assert found.reused_tokens > engine.prompter.prompt(first).images[0].tokens
    fresh = engine.prompter.prompt(going_on)
    assert found.prompt_tokens == len(fresh.token_ids)


def test_a_handle_of_another_engine_one_option_and_a_too_long_prompt_are_refused(engine: Decoder) -> None:
    messages = [user(QUESTIONS[0])]
    with pytest.raises(EngineError, match="hold"):
        engine.score(messages, OPTIONS, prefix=PrefixHandle(99, 1))
    with pytest.raises(EngineError, match="at least two"):
        engine.score(messages, ["yes"])
    with pytest.raises(EngineError, match="no tokens"):
        engine.score(messages, ["yes", ""])
    with pytest.raises(EngineError, match="context holds"):
        engine.score([user("lesion " * engine.backend.context_tokens)], OPTIONS)


def test_top_tokens_come_likeliest_first(engine: Decoder) -> None:
    found = engine.top_tokens([user(QUESTIONS[0])], 5)
    row = engine.logits([user(QUESTIONS[0])])[0]
    assert [token.token_id for token in found] == np.argsort(-row, kind="stable")[:5].tolist()
    assert found[0].logprob_nats >= found[-1].logprob_nats


def test_all_rows_of_a_prompt_end_with_the_row_that_predicts_the_reply(engine: Decoder) -> None:
    messages = [user(image(9), QUESTIONS[2])]
    rows = engine.prompt_logits(messages)
    assert rows.shape == (len(engine.prompter.prompt(messages).token_ids), engine.backend.vocab_size)
    assert np.allclose(rows[-1:], engine.logits(messages), atol=1e-4)
