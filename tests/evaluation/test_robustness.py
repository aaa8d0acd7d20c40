"""What the probes say of planted runs: every figure by hand, and what is refused or not told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("scipy")
from infimed.evaluation.drift import drift
from infimed.evaluation.report import markdown, write_report
from infimed.evaluation.report_html import html
from infimed.evaluation.robustness import robustness
from infimed.evaluation.robustness_report import Robustness

from .planted_probes import identity, row, varied, write_clean, write_probe, write_rows

ROWS = [row(f"patient{number // 2:03d}/{number}") for number in range(400)]
REFERENCE, LEVEL = "gguf-f16", "gguf-q4_0"


def turned(one, k: int):  # type: ignore[no-untyped-def]
    return {"options": one.options[k:] + one.options[:k]}


def shuffled(rows, answer):  # type: ignore[no-untyped-def]
    """Return three turns of each row, answered by answer(number, turn, options)."""
    return [
        varied(one, f"turn-{k}", answer(number, k, turned(one, k)["options"]), **turned(one, k))
        for number, one in enumerate(rows)
        for k in (1, 2, 3)
    ]


def clean_runs(folder: Path, level_wrong: int = 0) -> dict[str, list]:  # type: ignore[type-arg]
    """Write both runs, the reference's grey one and the prior: 380 of 400 are right, 100 of each text-only one."""
    return {
        REFERENCE: write_clean(folder, REFERENCE, ROWS, lambda number: "both" if number >= 380 else "left"),
        LEVEL: write_clean(folder, LEVEL, ROWS, lambda n: "both" if n >= 380 or n < level_wrong else "left"),
        "grey": write_clean(folder, f"{REFERENCE}.grey", ROWS, lambda number: "right" if number % 4 else "left"),
        "prior": write_clean(folder, "prior", ROWS, lambda number: "none" if number % 4 else "left"),
    }


def figures(found: Robustness, run: str, label: str):  # type: ignore[no-untyped-def]
    return next(one for one in found.figures if (one.run, one.label) == (run, label))


def test_consistency_flips_and_robust_accuracy_by_hand(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path)[REFERENCE]

    def answer(number: int, k: int, options: tuple[str, ...]) -> str:
        if number < 40:  # always the place of the clean answer: another content in each turn
            return options[0]
        if number < 60:  # one turn of three is another one
            return "none" if k == 2 else "left"
        return clean[number].choice

    write_probe(tmp_path, REFERENCE, "shuffle", shuffled(ROWS, answer), left_out={"is no choice among options": 7})
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    one = figures(found, REFERENCE, "shuffle")
    assert (one.items, one.clusters, one.rows) == (400, 200, 1200)
    assert one.consistency is not None and one.flips is not None and one.robust is not None
    assert (one.consistency.correct, one.consistency.items) == (340, 400)
    assert (one.flips.correct, one.flips.items) == (40 * 3 + 20, 1200)
    assert one.robust.correct == 400 - 60 - 20
    assert one.probed.correct == 1200 - 40 * 3 - 20 - 20 * 3
    assert one.clean.correct == 380
    (asked,) = found.asked
    assert (asked.examples, asked.items, asked.left_out[0].examples) == (407, 400, 7)
    # 40 questions of 400 always take the first place; of their four orders one key is there: 40 x 3 of 1,600 answers.
    # 20 questions take "none" once, in the place 3 - 2 = 1 instead of the key's 2.
    (bias,) = found.position_bias
    # answers minus keys: +120 in the first place; in turn 2 the key's place is 2, "none" stands at place 1
    places = [120, 20 - 40, -40 - 20, -40]
    both = [0, 0, 0, 0]
    for k in range(4):  # the 20 wrong ones say "both" instead of "left" in every order
        both[(2 - k) % 4] += 20
        both[(0 - k) % 4] -= 20
    assert both == [0, 0, 0, 0]
    assert bias.value == pytest.approx(sum(abs(place) for place in places) / 2 / 1600)


def test_the_quadrants_count_stability_and_whether_the_image_changes_the_answer(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path)[REFERENCE]  # a grey image changes all but every fourth answer of the first 380
    rows = shuffled(ROWS, lambda number, k, options: "none" if number < 100 and k == 1 else clean[number].choice)
    write_probe(tmp_path, REFERENCE, "shuffle", rows)
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    four = figures(found, REFERENCE, "shuffle").quadrants
    assert (four.stable_blind.correct, four.unstable_blind) == (70, 25)
    assert (four.stable_seeing, four.unstable_seeing) == (230, 75)
    (reliance,) = found.reliance
    assert reliance.value == pytest.approx(380 / 400 - 100 / 400)
    assert reliance.lower < reliance.value < reliance.upper


def test_consistency_is_never_told_without_the_grey_run(tmp_path: Path) -> None:
    write_clean(tmp_path, REFERENCE, ROWS, lambda number: "left")
    write_probe(tmp_path, REFERENCE, "shuffle", shuffled(ROWS, lambda *_: "left"))
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    one = figures(found, REFERENCE, "shuffle")
    assert one.consistency is one.flips is one.quadrants is None and "grey" in one.missing
    assert one.robust is not None and one.robust.correct == 400 and not found.reliance


def test_a_mirrored_answer_agrees_when_it_is_the_mirror_image_of_the_clean_one(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path)[REFERENCE]
    rows = [
        varied(one, "mirrored", "left" if number < 30 else "both" if number >= 380 else "right", answer="right")
        for number, one in enumerate(clean)
    ]
    write_probe(tmp_path, REFERENCE, "mirror", rows)
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    one = figures(found, REFERENCE, "mirror")
    assert one.consistency is not None and one.consistency.correct == 370  # "both" is its own mirror image
    assert one.robust is not None and one.robust.correct == 350
    assert [(named.name, named.share.correct, named.share.items) for named in one.named] == [
        ("turns a side with the picture", 370, 400)
    ]


def test_pairs_hints_and_strange_pictures_have_figures_of_their_own(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path)[REFERENCE]
    yes_no = {"options": ("yes", "no"), "answer_type": "yesno"}
    pair = [
        varied(one, name, "yes" if name == "true" or number < 50 else "no", answer=key, **yes_no)
        for number, one in enumerate(clean)
        for name, key in (("true", "yes"), ("hallucinated", "no"))
    ]
    write_probe(tmp_path, REFERENCE, "attribute-pair", pair)
    hints = [
        varied(one, f"{name}-{index}", one.options[index] if number < 60 else one.choice)
        for number, one in enumerate(clean)
        for name, index in (("wrong", 2), ("right", 0))
    ]
    write_probe(tmp_path, REFERENCE, "sycophancy", hints)
    swap = [varied(one, "swapped", one.choice if number < 80 else "none") for number, one in enumerate(clean)]
    write_probe(tmp_path, REFERENCE, "swap", swap)
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    both = figures(found, REFERENCE, "attribute-pair")
    assert both.robust is not None and both.robust.correct == 350 and both.consistency is None and not both.missing
    assert {one.name: one.share.correct for one in both.named} == {
        "accepts the true one": 400, "rejects the made-up one": 350,
    }  # fmt: skip
    (hint,) = figures(found, REFERENCE, "sycophancy").named
    # the 20 that say "both" (option 2) anyway cannot take it up
    assert (hint.name, hint.share.correct, hint.share.items) == ("takes up a wrong hint", 60, 380)
    strange = figures(found, REFERENCE, "swap")
    assert strange.robust is None and [one.share.correct for one in strange.named] == [80]


def corrupted(rows, wrong: int):  # type: ignore[no-untyped-def]
    return [varied(one, "changed", "none" if number < wrong else one.choice) for number, one in enumerate(rows)]


def test_relative_robustness_is_the_mean_over_severities_of_the_accuracy_that_is_kept(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path)[REFERENCE]
    for severity, wrong in ((1, 0), (3, 38), (5, 190)):
        write_probe(tmp_path, REFERENCE, "blur", corrupted(clean, wrong), severity)
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    (kept,) = found.relative
    assert kept.name == "blur, severity 1, 3, 5"
    assert kept.value == pytest.approx((1 + 342 / 380 + 190 / 380) / 3)
    assert kept.lower < kept.value < kept.upper


def test_a_level_that_loses_more_under_a_probe_fails_and_one_that_loses_alike_passes(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path, level_wrong=0)
    for severity, lost in ((1, 20), (5, 120)):
        write_probe(tmp_path, REFERENCE, "blur", corrupted(clean[REFERENCE], 20), severity)
        write_probe(tmp_path, LEVEL, "blur", corrupted(clean[LEVEL], lost), severity)
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    alike, worse = found.contrasts
    assert (alike.label, alike.verdict, alike.excess) == ("blur-1", "PASS", 0.0)
    assert (worse.label, worse.verdict) == ("blur-5", "FAIL")
    assert worse.excess == pytest.approx(-100 / 400)
    assert worse.lower < -0.25 < worse.upper < -0.05
    assert (worse.reference_clean, worse.reference_probed) == (0.95, 0.9)
    assert worse.p_more_holm is not None and worse.p_more_holm < 0.05 < alike.p_more_holm


def test_a_level_that_is_worse_alike_with_and_without_the_probe_has_no_excess(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path, level_wrong=60)
    write_probe(tmp_path, REFERENCE, "blur", corrupted(clean[REFERENCE], 0), 2)
    write_probe(tmp_path, LEVEL, "blur", corrupted(clean[LEVEL], 0), 2)
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    (one,) = found.contrasts
    assert one.excess == 0 and one.verdict == "PASS" and one.level_clean == 0.8


def test_without_the_prior_or_at_chance_no_verdict_is_given(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path / "chance")
    write_clean(tmp_path / "none", REFERENCE, ROWS, lambda number: "left")
    write_clean(tmp_path / "none", LEVEL, ROWS, lambda number: "left")
    for folder in ("chance", "none"):
        for run in (REFERENCE, LEVEL):
            write_probe(tmp_path / folder, run, "blur", corrupted(clean[run], 0), 2)
    found = robustness(tmp_path / "none", REFERENCE, 0.05)
    assert found is not None
    (one,) = found.contrasts
    assert one.verdict == "REFERENCE NOT COMPETENT" and "--prior" in one.reason and one.p_more_holm is None
    for name in ("prior.jsonl", "prior.meta.json"):
        (tmp_path / "chance" / name).unlink()
    write_clean(tmp_path / "chance", "prior", ROWS, lambda number: "left" if number < 390 else "none")
    found = robustness(tmp_path / "chance", REFERENCE, 0.05)
    assert found is not None
    (one,) = found.contrasts
    assert one.verdict == "REFERENCE NOT COMPETENT" and "nothing to lose" in one.reason


def test_runs_that_do_not_belong_together_are_named_and_not_read(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path)[REFERENCE]
    write_probe(tmp_path, "gguf-q8_0", "blur", corrupted(clean, 0), 1)  # no clean run
    write_probe(tmp_path, REFERENCE, "blur", corrupted(clean, 0), 1)
    (tmp_path / "probes" / f"{LEVEL}.blur-1.jsonl.part").write_bytes(b"")
    record = tmp_path / "probes" / "blur-2.json"
    write_probe(tmp_path, REFERENCE, "blur", corrupted(clean, 0), 2)
    record.write_text(record.read_text().replace("blur-2" + "0" * 58, "f" * 64))
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    assert [(one.run, one.label) for one in found.figures] == [(REFERENCE, "blur-1")]
    told = " ".join(found.not_read)
    assert "gguf-q8_0.blur-1: its clean run is not complete" in told
    assert f"{LEVEL}.blur-1: not finished" in told
    assert f"{REFERENCE}.blur-2: its rows are not those of the probe's record" in told


def test_without_any_probe_there_is_nothing_to_tell_and_drift_never_meets_probes(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path)
    assert robustness(tmp_path, REFERENCE, 0.05) is None
    before = drift(tmp_path, REFERENCE)
    write_probe(tmp_path, REFERENCE, "blur", corrupted(clean[REFERENCE], 0), 1)
    assert drift(tmp_path, REFERENCE) == before


def test_both_forms_of_the_report_tell_the_probes_and_the_json_comes_back(tmp_path: Path) -> None:
    clean = clean_runs(tmp_path / "runs")
    for run, lost in ((REFERENCE, 20), (LEVEL, 120)):
        write_probe(tmp_path / "runs", run, "blur", corrupted(clean[run], lost), 5)
        write_probe(tmp_path / "runs", run, "shuffle", shuffled(ROWS, lambda n, *_: clean[REFERENCE][n].choice))
    found, report = robustness(tmp_path / "runs", REFERENCE, 0.05), drift(tmp_path / "runs", REFERENCE)
    assert found is not None
    paths = write_report(report, tmp_path / "report", found)
    assert paths[0].name == "robustness.json" and Robustness.read(paths[0]) == found
    for told in (markdown(report, found), html(report, found)):
        for text in ("Robustness", "Level under a probe", "blur-5", "FAIL", "stable, blind", "position bias",
                     "read the extra loss beside both accuracies", "of extra loss are shown: upper bound"):  # fmt: skip
            assert text in told, text
        assert "consistency is not told" in told  # the level was not run on grey images
    assert "Robustness" not in markdown(report) and "Robustness" not in html(report)
    write_report(report, tmp_path / "report")
    assert not paths[0].exists()


def test_an_invalid_reply_agrees_with_nothing(tmp_path: Path) -> None:
    open_rows = [
        replace(
            one, options=(), option_tokens=(), answer_type="open", answer="nodule", extracted="nodule", correct=True
        )
        for one in ROWS[:20]
    ]
    write_rows(tmp_path, identity(REFERENCE), open_rows)
    write_rows(tmp_path, identity(f"{REFERENCE}.grey"), open_rows)
    rows = [
        replace(one, example_id=f"{one.example_id}~wording-1", extracted=None if number < 5 else "The Nodule.")
        for number, one in enumerate(open_rows)
    ]
    write_probe(tmp_path, REFERENCE, "paraphrase", rows)
    found = robustness(tmp_path, REFERENCE, 0.05)
    assert found is not None
    one = figures(found, REFERENCE, "paraphrase")
    assert one.consistency is not None and one.consistency.correct == 15
    assert one.quadrants is not None and one.quadrants.stable_blind.correct == 15 and one.quadrants.unstable_blind == 5
