"""Training rows: a packed row computes each question as if it were asked alone, and loss falls on answers only."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from infimed.evaluation.dataset import Dataset
from infimed.evaluation.prompting import messages_for, target_for
from infimed.runtime.events import Event
from infimed.runtime.messages import ImagePart
from infimed.runtime.prompt import Prompter
from infimed.training.augment import AugmentSpec
from infimed.training.checkpoint import Checkpoint
from infimed.training.reference import open_reference
from infimed.training.sft_batches import Collator, Showing, Showings, who_sees_whom
from infimed.training.sft_data import (
    PREFIX,
    UNLABELLED,
    ImageStore,
    Row,
    RowMaker,
    SftDataError,
    pack,
)
from infimed.training.torch_backend import load_model


@pytest.fixture(scope="module")
def prompter(room: Path) -> Prompter:
    return Prompter.open(room / "base")


@pytest.fixture(scope="module")
def dataset(room: Path) -> Dataset:
    return Dataset.open(room / "data")


@pytest.fixture(scope="module")
def store(dataset: Dataset, prompter: Prompter) -> ImageStore:
    return ImageStore(dataset, prompter.rules)


@pytest.fixture(scope="module")
def rows(dataset: Dataset, prompter: Prompter, store: ImageStore) -> list[Row]:
    maker = RowMaker(store, prompter, most_tokens=4096)
    return [maker.row(examples) for examples in pack(dataset.examples, 16, seed=0)]


def test_questions_of_an_image_share_a_pack_of_nearly_equal_size(dataset: Dataset) -> None:
    for most, sizes in ((16, {3}), (2, {1, 2}), (1, {1})):
        packs = pack(dataset.examples, most, seed=0)
        assert {len(examples) for examples in packs} == sizes
        assert all(len({example.images for example in examples}) == 1 for examples in packs)
        assert sorted(e.id for examples in packs for e in examples) == sorted(e.id for e in dataset.examples)
    first, second = pack(dataset.examples, 2, seed=0), pack(dataset.examples, 2, seed=1)
    assert first == pack(dataset.examples, 2, seed=0) and first != second
    alone = [dataclasses.replace(e, content=e.content[-1:]) for e in dataset.examples[:4]]
    assert {len(examples) for examples in pack(alone, 16, seed=0)} == {1}


def test_loss_falls_on_each_answer_and_its_end_of_turn_only(
    dataset: Dataset, prompter: Prompter, rows: list[Row]
) -> None:
    end = prompter.encode("<|im_end|>")
    for row, examples in zip(rows, pack(dataset.examples, 16, seed=0), strict=True):
        assert row.questions == len(examples) and (row.labels[row.branches == PREFIX] == UNLABELLED).all()
        for number, example in enumerate(examples):
            labels = row.labels[row.branches == number]
            answer = [*prompter.encode(target_for(example)), *end]
            assert list(labels[-len(answer) :]) == answer and (labels[: -len(answer)] == UNLABELLED).all()
            assert list(row.token_ids[row.branches == number][-len(answer) :]) == answer


def test_a_packed_question_has_the_tokens_positions_and_logits_of_the_question_alone(
    room: Path, dataset: Dataset, prompter: Prompter, store: ImageStore, rows: list[Row]
) -> None:
    model = load_model(Checkpoint.open(room / "base")).eval()
    batch = Collator(store)([Showing(row, 0) for row in rows[:3]])
    assert len({len(row.token_ids) for row in rows[:3]}) > 1, "padding must be part of the test"
    with torch.no_grad():
        packed = model(**{k: v for k, v in batch.items() if k != "labels"}).logits.numpy()
    engine = open_reference(room / "base", threads=1)
    packs = pack(dataset.examples, 16, seed=0)
    for index, (row, examples) in enumerate(zip(rows[:3], packs, strict=False)):
        for number, example in enumerate(examples):
            messages = messages_for(example, [ImagePart(dataset.image(ref)) for ref in example.images])
            alone = prompter.prompt(messages)
            reply = prompter.encode(target_for(example))
            mine = np.flatnonzero((row.branches == PREFIX) | (row.branches == number))
            assert np.array_equal(row.token_ids[mine][:-1], [*alone.token_ids, *reply])
            assert np.array_equal(row.positions[:, mine][:, : len(alone.token_ids)], alone.positions)
            assert row.positions[0, mine][len(alone.token_ids)] == alone.next_position
            expected = engine.logits(messages, reply)
            asked = mine[len(alone.token_ids) - 1 : -1]
            assert np.abs(packed[index, asked] - expected).max() < 5e-5


def test_the_gradient_of_a_packed_row_is_that_of_its_questions_one_by_one(
    room: Path, dataset: Dataset, prompter: Prompter, store: ImageStore
) -> None:
    model = load_model(Checkpoint.open(room / "base")).train()
    maker, examples = RowMaker(store, prompter, 4096), list(dataset.examples[:3])
    weight = model.model.language_model.layers[0].mlp.up_proj.weight

    def gradient(together: list[list[object]]) -> torch.Tensor:
        model.zero_grad()
        for group in together:
            batch = Collator(store)([Showing(maker.row(group), 0)])  # type: ignore[arg-type]
            (model(**batch).loss * (batch["labels"] != UNLABELLED).sum()).backward()
        return weight.grad.clone()

    packed, single = gradient([examples]), gradient([[example] for example in examples])
    assert torch.allclose(packed, single, rtol=1e-3, atol=1e-5 * float(single.abs().max()))


def test_who_sees_whom_is_the_rule_written_out() -> None:
    branches = torch.tensor([[-1, -1, 0, 0, 1, 1, -2]])
    mask = who_sees_whom(branches)[0, 0]
    for query, key in np.ndindex(7, 7):
        of_query, of_key = int(branches[0, query]), int(branches[0, key])
        expected = key <= query and (of_key in (-1, of_query))
        assert bool(mask[query, key]) == expected, (query, key)


def test_a_row_that_is_too_long_or_has_no_answer_is_refused_by_the_name_of_its_example(
    dataset: Dataset, prompter: Prompter, store: ImageStore
) -> None:
    with pytest.raises(SftDataError, match=rf"'{dataset.examples[0].id}'.*max_tokens is 20"):
        RowMaker(store, prompter, most_tokens=20).row(dataset.examples[:1])


def test_an_image_is_resized_once_and_read_again_where_memory_is_short(
    dataset: Dataset, prompter: Prompter, rows: list[Row]
) -> None:
    tight = ImageStore(dataset, prompter.rules, cache_bytes=0)
    refs = [row.images[0] for row in rows]
    for ref in refs:
        part = tight.part(ref)
        prepared = prompter.prompt([*messages_for(dataset.examples[0], [part])]).images[0]
        assert np.array_equal(prepared.rgb, part.rgb), "resizing a resized image must change nothing"
        whole = prompter.prompt([*messages_for(dataset.examples[0], [ImagePart(dataset.image(ref))])]).images[0]
        assert np.array_equal(prepared.rgb, whole.rgb)
    assert tight.part(refs[0]) is not tight.part(refs[0])


def test_rows_tell_how_far_they_are(dataset: Dataset, prompter: Prompter, store: ImageStore) -> None:
    told: list[Event] = []
    made = Showings(RowMaker(store, prompter, 4096), pack(dataset.examples, 16, seed=0), 0, told.append)
    assert len(made.rows) == 6 and [(event.done, event.total) for event in told] == [(n, 6) for n in range(1, 7)]


def test_every_pass_shows_each_row_once_in_an_order_of_its_own_from_any_place(
    dataset: Dataset, prompter: Prompter, store: ImageStore
) -> None:
    packs = pack(dataset.examples, 16, seed=0)
    made = Showings(RowMaker(store, prompter, 4096), packs, seed=1).times(20)
    shown = [id(made[number].row) for number in range(len(made))]
    everything = {id(row) for row in made.rows}
    passes = [shown[start : start + 6] for start in (0, 6, 12)]
    assert all(set(one) == everything for one in passes) and len(shown) == 20
    assert len({tuple(one) for one in passes}) == 3
    assert [id(made[number].row) for number in (19, 3, 8)] == [shown[number] for number in (19, 3, 8)]


def test_an_image_is_changed_anew_each_time_but_equally_at_the_same_place(
    dataset: Dataset, prompter: Prompter, store: ImageStore, rows: list[Row]
) -> None:
    plain, spec = Collator(store), AugmentSpec(zoom=0.2, turn_degrees=5, light=0.1)
    for one, other, equal in ((0, 0, True), (0, 1, False)):
        pixels = [Collator(store, spec, 7)([Showing(rows[0], number)])["pixel_values"] for number in (one, other)]
        assert torch.equal(*pixels) is equal
    changed = Collator(store, spec, 7)([Showing(rows[0], 0)])
    before = plain([Showing(rows[0], 0)])
    assert not torch.equal(changed["pixel_values"], before["pixel_values"])
    assert torch.equal(changed["image_grid_thw"], before["image_grid_thw"])
    assert torch.equal(before["pixel_values"], Collator(store, AugmentSpec(), 9)([Showing(rows[0], 5)])["pixel_values"])
