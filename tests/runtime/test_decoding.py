from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infimed.runtime.decoding import Decoder, EngineError
from infimed.runtime.engine import RequestError, Sampling
from infimed.runtime.messages import ImagePart, Message, assistant, user
from infimed.runtime.prompt import PromptError

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


def test_a_held_image_is_encoded_once_whatever_is_asked_in_between(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_reference(checkpoint, threads=1)
    assert isinstance(engine, Decoder)
    engine._cache_bytes = 10_000  # room for the embeddings of one such image
    calls = []
    real = engine.backend.encode_image
    monkeypatch.setattr(engine.backend, "encode_image", lambda picture: (calls.append(picture.key), real(picture))[1])
    handle = engine.hold([user(image(1))])
    for seed in (2, 3, 2):
        engine.score([user(image(seed), QUESTIONS[0])], OPTIONS)
    engine.score([user(image(1), QUESTIONS[0])], OPTIONS, prefix=handle)
    assert calls.count(image(1).key) == 1 and calls.count(image(2).key) == 2
    engine.release(handle)
    for seed in (2, 1):
        engine.score([user(image(seed), QUESTIONS[0])], OPTIONS)
    assert calls.count(image(1).key) == 2
    engine.close()


def test_more_images_than_the_cache_has_room_for_are_not_held(checkpoint: Path) -> None:
    engine = open_reference(checkpoint, threads=1)
    assert isinstance(engine, Decoder)
    engine._cache_bytes = 10_000
    first = engine.hold([user(image(1))])
    engine.hold([user(image(1), QUESTIONS[0])])  # the same image takes no more room
    with pytest.raises(EngineError, match="release a handle first"):
        engine.hold([user(image(2))])
    engine.score([user(image(1), QUESTIONS[0])], OPTIONS, prefix=first)
    engine.close()


def test_a_handle_is_good_only_where_and_while_it_is_held(engine: Decoder, checkpoint: Path) -> None:
    messages = [user(image(1), QUESTIONS[0])]
    other = open_reference(checkpoint, threads=1)
    engine.hold(messages)
    foreign = other.hold(messages)
    with pytest.raises(EngineError, match="not held by this engine"):
        engine.score(messages, OPTIONS, prefix=foreign)
    with pytest.raises(EngineError, match="not held by this engine"):
        engine.release(foreign)
    mine = engine.hold(messages)
    engine.release(mine)
    for use in (lambda: engine.generate(messages, Sampling(1), prefix=mine), lambda: engine.release(mine)):
        with pytest.raises(EngineError, match="call hold first"):
            use()
    assert other.score(messages, OPTIONS, prefix=foreign).options == engine.score(messages, OPTIONS).options
    other.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["yes"], "at least two"),
        ([], "at least two"),
        (["yes", ""], "blank"),
        (["yes", " \n"], "blank"),
        (["CT", "MR", "CT"], "'CT' is given twice"),
        (["CT", " CT "], "'CT' is given twice"),
    ],
)
def test_options_that_are_no_choice_are_refused(options: list[str], words: str, engine: Decoder) -> None:
    with pytest.raises(RequestError, match=words):
        engine.score([user(QUESTIONS[0])], options)


def test_options_are_texts_like_any_other(engine: Decoder) -> None:
    for option, words in (("<|im_end|>", "control token"), ("caf\udce9", "UTF-8")):
        with pytest.raises(PromptError, match=words):
            engine.score([user(QUESTIONS[0])], ["yes", option])


def test_an_empty_question_is_no_question(engine: Decoder) -> None:
    for messages in ([], [user(image(1))], [user(image(1), " \n")], [user("Why?"), Message("user", ())]):
        with pytest.raises(RequestError, match="question is empty"):
            engine.score(messages, OPTIONS)


def test_a_too_long_prompt_is_refused(engine: Decoder) -> None:
    with pytest.raises(EngineError, match="context holds"):
        engine.score([user("lesion " * engine.backend.context_tokens)], OPTIONS)
    with pytest.raises(EngineError, match="context holds"):
        engine.hold([user("lesion " * engine.backend.context_tokens)])


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
