"""The gate lets nothing through that is no number, and names what differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from infimed.export.parity import GAP_LOGITS, ParityError, Reference, measure, require
from infimed.export.probes import Probe
from infimed.runtime.distance import distance
from infimed.runtime.messages import user


class Answering:
    """An engine that gives the reference's own values, changed where a test says so."""

    level = "onnx-fp32"

    def __init__(self, embeddings: NDArray[np.float32], rows: NDArray[np.float32]) -> None:
        self._embeddings, self._rows = embeddings, rows

    def image_embeddings(self, messages: object) -> tuple[NDArray[np.float32], ...]:
        return (self._embeddings,)

    def logits(self, messages: object, continuation: object) -> NDArray[np.float32]:
        return self._rows


def drawn(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return random.normal(size=(4, 8)).astype(np.float32), random.normal(size=(2, 8)).astype(np.float32)


def references(count: int = 3) -> list[Reference]:
    made = [drawn(seed) for seed in range(count)]
    return [
        Reference(Probe(f"p{index}", "square", (user("x"),)), (1,), rows, (embeddings,))
        for index, (embeddings, rows) in enumerate(made)
    ]


def measured(embeddings: Any = None, rows: Any = None) -> Any:
    """Return the parity of an engine that is the reference on one prompt, but for what is given."""
    (reference,) = references(1)
    engine: Any = Answering(reference.embeddings[0], reference.rows)
    if embeddings is not None:
        engine._embeddings = embeddings
    if rows is not None:
        engine._rows = rows
    return measure(engine, [reference])


def test_the_reference_itself_passes() -> None:
    found = measured()
    require(found)
    assert (found.vision, found.kl_max_nats, found.top1) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_image_embeddings_that_are_no_numbers_do_not_pass(wrong: float) -> None:
    embeddings, _ = drawn(0)
    for spoilt in (np.full_like(embeddings, wrong), np.where(np.arange(8) == 3, np.float32(wrong), embeddings)):
        with pytest.raises(ParityError, match="vision differs"), np.errstate(invalid="ignore"):
            require(measured(embeddings=spoilt))


def test_one_prompt_without_numbers_among_many_does_not_pass() -> None:
    all_three = references()

    class Each(Answering):
        turn = -1

        def image_embeddings(self, messages: object) -> tuple[NDArray[np.float32], ...]:
            self.turn += 1
            embeddings = all_three[self.turn].embeddings[0]
            return (np.full_like(embeddings, np.nan) if self.turn == 1 else embeddings,)

        def logits(self, messages: object, continuation: object) -> NDArray[np.float32]:
            return all_three[self.turn].rows

    engine: Any = Each(*drawn(0))
    with pytest.raises(ParityError, match="vision differs by nan"):
        require(measure(engine, all_three))


def test_logits_that_are_no_numbers_do_not_pass() -> None:
    _, rows = drawn(0)
    with pytest.raises(ParityError, match="logits differ"):
        require(measured(rows=np.full_like(rows, np.nan)))


def test_another_answer_does_not_pass() -> None:
    _, rows = drawn(0)
    with pytest.raises(ParityError, match="top-1"):
        require(measured(rows=rows[:, ::-1].copy()))


def test_no_prompts_are_no_proof() -> None:
    engine: Any = Answering(*drawn(0))
    with pytest.raises(ParityError, match="no prompt"):
        measure(engine, [])


def test_parity_over_prompts_is_the_distance_over_all_their_rows() -> None:
    three = references()
    engine: Any = Answering(*drawn(9))
    found = measure(engine, three)
    rows = np.concatenate([reference.rows for reference in three])
    expected = distance(rows, np.concatenate([engine._rows] * 3), GAP_LOGITS)
    assert (found.rows, found.kl_mean_nats, found.top1, found.decided) == (
        expected.rows,
        expected.kl_mean_nats,
        expected.top1,
        expected.decided,
    )
