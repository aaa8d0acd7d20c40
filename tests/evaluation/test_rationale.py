"""Reasoning is read by rule: what it names, whether the answer follows, and nothing guessed; held to labelled ones."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from infimed.benchmarks.rationale_agreement import agreement
from infimed.evaluation.phantom_images import KINDS, phantom
from infimed.evaluation.phantoms import phantoms
from infimed.evaluation.rationale import parted, rationale
from infimed.evaluation.rationale_words import organ_of, same_organ
from infimed.evaluation.record import record_of

from .probing import phantom_examples, question

FILE = Path(__file__).with_name("rationales.jsonl")
RECORD = {"modality": "ct", "organ": "liver", "side": "left"}


def read(reply: str, record=RECORD, options=("left", "right"), asked="On which side is the mass?", kind="choice"):  # type: ignore[no-untyped-def]
    found = rationale(reply, record, answer_type=kind, options=options, question=asked)
    assert found is not None
    return found


def test_the_labels_are_those_that_were_frozen_before_the_rules_were_run() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == (
        "00b182590b36e7e154b05532a7635708b270c807b5e276c19467dd2641515aeb"
    )
    rows = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    assert len(rows) >= 120 and len({row["reply"] for row in rows}) == len(rows)
    for field in ("modality", "organ", "side", "follows"):
        assert len({row[field] for row in rows} - {None}) == 3, "every outcome occurs"


def test_the_rules_agree_with_the_reader_and_claim_hardly_anything_that_he_does_not() -> None:
    counts, differences = agreement(FILE)
    total = sum(counts.values(), Counter[str]())
    # "sonography" is read as ultrasound since replies are; the reader called this a matter of medicine
    wrong = [one for one in differences if "not undecidable" in one or ": wrong" in one or ": right" in one]
    assert total["agreed"] >= 457 and total["wrong"] == 1 and [one[:4] for one in wrong] == ["t057"], differences


@pytest.mark.parametrize(
    ("reply", "reasoning", "answer"),
    [
        ("<think>It lies on the left.</think>left", "It lies on the left.", "left"),
        ("It lies on the left. Answer: left", "It lies on the left.", "Answer: left"),
        ("<think>It lies on the left, or", "It lies on the left, or", ""),
        ("<think>It lies left.</think>I see it there. Answer: left", "It lies left.\nI see it there.", "Answer: left"),
        ("left", "", "left"),
        ("The answer is left", "", "The answer is left"),
        ("left, because it lies there", "", "left, because it lies there"),
        ("", "", ""),
    ],
)
def test_reasoning_is_what_is_thought_or_stands_before_the_stated_answer(
    reply: str, reasoning: str, answer: str
) -> None:
    assert parted(reply) == (reasoning, answer)


def test_a_reply_without_reasoning_has_no_rationale() -> None:
    assert rationale("left", RECORD, answer_type="choice", options=("left", "right")) is None


def test_what_the_record_does_not_know_is_not_judged() -> None:
    found = read("<think>An MRI of the knee, on the right.</think>right", {"organ": "knee"})
    assert (found.modality, found.organ, found.side) == (None, "right", None)


def test_an_organ_within_the_one_of_the_record_and_around_it_is_right() -> None:
    assert same_organ("colon", "abdomen") and same_organ("abdomen", "colon") and not same_organ("lung", "abdomen")
    assert read("<think>Somewhere in the abdomen there is a mass.</think>left").organ == "right"
    assert read("<think>Somewhere in the spleen there is a mass.</think>left").organ == "wrong"
    assert read("<think>The spleen is normal, as far as seen.</think>left").organ == "not named"


def test_a_denied_modality_is_not_named_and_a_place_in_one_is() -> None:
    assert read("<think>This can not be an MRI at all.</think>left").modality == "not named"
    assert read("<think>I see no mass on this MRI slice.</think>left").modality == "wrong"


def test_an_answer_that_takes_medicine_or_arithmetic_is_undecidable() -> None:
    count = {"options": ("0", "1", "2", "3"), "asked": "How many masses are there?"}
    assert read("<think>One mass above and one mass below it.</think>2", **count).follows == "undecidable"
    yes = {"options": ("yes", "no"), "asked": "Is there a mass?", "kind": "yesno"}
    assert read("<think>No mass in the left lobe, I think.</think>no", **yes).follows == "undecidable"
    assert read("<think>There is a mass in the left lobe.</think>no", **yes).follows == "contradicts"


def test_a_reply_that_contradicts_itself_is_found_though_its_answer_is_invalid_as_a_whole() -> None:
    asked = {"options": ("yes", "no"), "asked": "Is there a mass?", "kind": "yesno"}
    assert read("The scan shows no mass. Answer: yes", **asked).follows == "contradicts"


def test_the_record_of_a_phantom_is_its_kind_and_its_side() -> None:
    for one, example in phantom_examples()[:40]:
        known = record_of(example)
        assert known["modality"] == one.kind.modality and same_organ(known["organ"], organ_of(one.kind.body_part))
        assert known.get("side") == one.side
    assert all(organ_of(kind.body_part) for kind in KINDS.values())
    assert phantom(KINDS["ct"], 1, 0).id == next(phantoms([KINDS["ct"]], 1, 1)).id


def test_the_record_of_other_data_is_what_the_source_states() -> None:
    given = question("Where is it?", "left upper lobe", ("left upper lobe", "right upper lobe"), task="location")
    assert record_of(given) == {"modality": "xray", "side": "left"}
    known = question("Is it large?", "yes", ("yes", "no"), attributes={"organ": "chest", "side": "right"})
    assert record_of(known) == {"modality": "xray", "organ": "chest", "side": "right"}
    asked = question("Which organ?", "kidney", ("kidney", "liver"), task="anatomy", modality="unknown")
    assert record_of(asked) == {"organ": "kidney"}


def test_long_and_odd_replies_are_read_in_bounded_time() -> None:
    for text in ("left right " * 4000, "no " * 8000, "<think>" * 2000, "the CT, MRI and " * 2000, "((((" * 4000):
        rationale(f"<think>{text}</think>left", RECORD, answer_type="choice", options=("left", "right"))
