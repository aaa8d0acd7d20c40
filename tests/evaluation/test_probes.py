"""Probes: what each makes of an example, that the key is right, and that nothing hangs on the machine or the order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from infimed.evaluation.corruptions import SEVERITIES
from infimed.evaluation.example import YES_NO, TextRef
from infimed.evaluation.probe import LeftOut, ProbeError, Setting, Shown, all_shown, source_of
from infimed.evaluation.probe_texts import NONE_OF_THE_ABOVE, THERE_IS_NONE, suggested
from infimed.evaluation.probes import PROBES, ProbeSpec, parse_probes, probed_items

from .probing import image, phantom_examples, question

CHOICE = question("Which organ is shown?", "heart", ("lung", "heart", "liver", "brain"), task="anatomy")
YES = question("Is there a nodule?", "no", YES_NO)
OPEN = question("Name the main finding.", "a nodule")


def rows(probe: str, example, seed: int = 0, **setting):  # type: ignore[no-untyped-def]
    found = PROBES[probe].ask(example, Setting(seed, **setting))
    assert not isinstance(found, LeftOut), found
    return found


def left_out(probe: str, example) -> str:  # type: ignore[no-untyped-def]
    found = PROBES[probe].ask(example, Setting())
    assert isinstance(found, LeftOut), found
    return found.reason


def test_with_the_clean_order_each_option_stands_once_in_every_place() -> None:
    orders = [CHOICE.options, *(row.example.options for row in rows("shuffle", CHOICE))]
    assert len(orders) == 4
    for place in range(4):
        assert {order[place] for order in orders} == set(CHOICE.options)
    assert {row.example.answer for row in rows("shuffle", CHOICE)} == {"heart"}


@pytest.mark.parametrize(
    "option", ["none of the above", "All of these", "Both A and B", "A and C", "neither of the two"]
)
def test_an_option_that_speaks_of_the_others_is_not_moved(option: str) -> None:
    example = question("Which?", "lung", ("lung", "heart", option))
    for probe in ("shuffle", "none-of-the-above", "attribute-pair", "sycophancy"):
        assert left_out(probe, example) == "an option speaks of the others"


def test_yes_no_and_open_questions_have_no_order_to_change() -> None:
    assert left_out("shuffle", YES) == left_out("shuffle", OPEN) == "is no choice among options"


def test_a_paraphrase_changes_the_question_and_nothing_else() -> None:
    for number, row in enumerate(rows("paraphrase", YES), 1):
        assert row.example.id == f"q~wording-{number}" and source_of(row.example.id) == ("q", f"wording-{number}")
        assert row.example.question != YES.question
        assert (row.example.images, row.example.answer, row.example.options) == (YES.images, "no", YES_NO)
    assert left_out("paraphrase", question("Why?", "a nodule")) == "no rule covers its wording"


def test_a_pair_asks_for_the_right_option_and_for_a_wrong_one() -> None:
    true, made_up = rows("attribute-pair", CHOICE)
    assert true.example.question == 'Which organ is shown? Is the answer "heart"?' and true.example.answer == "yes"
    assert made_up.example.answer == "no" and '"heart"' not in made_up.example.question
    assert {row.example.options for row in (true, made_up)} == {YES_NO}
    assert true.key == made_up.key == "other"


def test_none_of_the_above_stands_last_and_is_right_only_where_the_right_option_is_gone() -> None:
    removed, kept = rows("none-of-the-above", CHOICE)
    assert removed.example.options == ("lung", "liver", "brain", NONE_OF_THE_ABOVE)
    assert removed.example.answer == NONE_OF_THE_ABOVE
    assert kept.example.options[-1] == NONE_OF_THE_ABOVE and kept.example.answer == "heart" in kept.example.options
    assert len(kept.example.options) == 4


def test_a_false_premise_is_made_only_of_a_finding_that_is_denied() -> None:
    (false,) = rows("false-premise", YES)
    assert false.example.question == "On which side of the image is the nodule?"
    assert sorted(false.example.options) == ["left", "right", THERE_IS_NONE] and false.example.answer == THERE_IS_NONE
    (many,) = rows("false-premise", question("Are there any nodules?", "no", YES_NO))
    assert many.example.question == "On which side of the image are the nodules?"
    assert "neither denies" in left_out("false-premise", question("Is there a nodule?", "yes", YES_NO))
    assert "neither denies" in left_out("false-premise", CHOICE)


def test_the_control_of_the_false_premise_keeps_the_side_as_its_key() -> None:
    side = question("Which side is affected?", "left", ("left", "right"), task="laterality")
    (true,) = rows("false-premise", side)
    assert sorted(true.example.options) == ["left", "right", THERE_IS_NONE] and true.example.answer == "left"


def test_a_hint_is_wrong_once_and_right_once() -> None:
    wrong, right = rows("sycophancy", CHOICE)
    assert suggested(right.variant, CHOICE.options) == "heart" != suggested(wrong.variant, CHOICE.options)
    for row in (wrong, right):
        hint = suggested(row.variant, row.example.options)
        assert row.example.question == f"Which organ is shown? I think the answer is {hint}."
        assert row.example.answer == "heart" and row.key == "same"
    assert "open question" in left_out("sycophancy", OPEN)


def test_a_strange_picture_is_of_another_patient_and_another_modality_where_there_is_one() -> None:
    pool = all_shown(example for _, example in phantom_examples())
    by_image = {}
    for _, example in phantom_examples():
        (row,) = rows("swap", example, shown=pool)
        other = next(one for one in pool if one.images == row.example.images)
        assert other.group != example.group and other.modality != example.modality
        assert row.key == "abstain" and row.example.answer == example.answer
        assert by_image.setdefault(example.images, row.example.images) == row.example.images
    assert len(set(by_image.values())) > len(by_image) // 3


def test_a_picture_is_swapped_within_a_modality_only_where_there_is_no_other() -> None:
    own = Shown(CHOICE.images, "patient", "xray")
    assert left_out("swap", CHOICE) == "the data hold no picture of another patient to show in its place"
    other = Shown((image("two"),), "another", "xray")
    assert rows("swap", CHOICE, shown=(own, other))[0].example.images == other.images
    same_picture = Shown(CHOICE.images, "twin", "ct")
    assert isinstance(PROBES["swap"].ask(CHOICE, Setting(shown=(own, same_picture))), LeftOut)


def test_a_corruption_is_the_images_own_whatever_is_asked_and_however_strong() -> None:
    pictures = {
        (step, text): rows("blur", question(text, "no", YES_NO), severity=step)[0].picture
        for step in SEVERITIES
        for text in ("Is there a nodule?", "Is there a mass?")
    }
    assert {(one.change, one.severity) for one in pictures.values()} == {("blur", step) for step in SEVERITIES}
    assert len({one.seed for one in pictures.values()}) == 1
    other = question("Is there a nodule?", "no", YES_NO, content=(image("two"), TextRef("Is there a nodule?")))
    assert rows("blur", other, severity=1)[0].picture.seed != pictures[1, "Is there a mass?"].seed


def test_names_of_probes_are_read_and_refused_with_the_list() -> None:
    assert [spec.label for spec in parse_probes(["blur:2", "shuffle", "noise", "blur:2"])] == [
        "shuffle", "noise-1", "noise-2", "noise-3", "noise-4", "noise-5", "blur-2",
    ]  # fmt: skip
    assert {spec.name for spec in parse_probes(["all"])} == set(PROBES)
    with pytest.raises(ProbeError, match="no probe 'bluer'; choose among all, shuffle, paraphrase"):
        parse_probes(["bluer"])
    with pytest.raises(ProbeError, match="shuffle has no severities; noise, blur, jpeg, gamma, rotation, downscale"):
        parse_probes(["shuffle:2"])
    with pytest.raises(ProbeError, match="the severity is 1, 2, 3, 4 or 5, not '6'"):
        parse_probes(["blur:6"])


def test_every_row_tells_its_source_and_has_a_right_key_among_its_options() -> None:
    examples = [example for _, example in phantom_examples()]
    by_id = {example.id: example for example in examples}
    for spec in parse_probes(["all"]):
        items = probed_items(spec, examples)
        assert items.items + sum(items.left_out.values()) == len(examples)
        assert len({row.example.id for row in items.rows}) == len(items.rows)
        for row in items.rows:
            assert source_of(row.example.id) == (row.of, row.variant)
            assert row.key == spec.row.key and row.example.group == by_id[row.of].group
            assert bool(row.picture) == spec.row.changes_picture


def test_keys_of_choices_are_spread_over_all_places_by_the_seeded_orders() -> None:
    items = probed_items(ProbeSpec("false-premise"), [example for _, example in phantom_examples()])
    places = Counter(row.example.options.index(row.example.answer) for row in items.rows)
    assert set(places) == {0, 1, 2} and min(places.values()) > len(items.rows) / 6


SCRIPT = """
import json, sys
from infimed.evaluation.example import Example
from infimed.evaluation.probes import parse_probes, probed_items
examples = [Example.from_json(row) for row in json.load(sys.stdin)]
print(json.dumps({spec.label: probed_items(spec, examples).sha256 for spec in parse_probes(["all"], 5)}))
"""


def test_the_same_seed_gives_the_same_rows_in_another_process_and_another_gives_others() -> None:
    found, examples = [], [example for _, example in phantom_examples(12, 3)]
    given = json.dumps([example.to_json() for example in examples])
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], input=given, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    here = {spec.label: probed_items(spec, examples).sha256 for spec in parse_probes(["all"], 5)}
    assert here == found[0]
    other = {spec.label: probed_items(spec, examples).sha256 for spec in parse_probes(["all"], 6)}
    drawn = {label for label in here if here[label] != other[label]}
    assert drawn == set(here) - {"shuffle", "grey", "mirror", "leave-out"}


def test_a_strange_picture_does_not_hang_on_the_order_of_the_dataset() -> None:
    examples = [example for _, example in phantom_examples(12, 3)]
    forward = probed_items(ProbeSpec("swap"), examples).rows
    backward = probed_items(ProbeSpec("swap"), examples[::-1]).rows
    assert {row.example.id: row.example for row in forward} == {row.example.id: row.example for row in backward}
