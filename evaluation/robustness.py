"""Reads the runs of probes beside their clean runs and finds what they say of each run, and of level x probe.

A probe's run is only read with the clean run of the same subject over the same dataset and settings. Consistency is
never told without the run on grey images: an answer that does not hang on the image is stable for the wrong reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .bounds import lower_bound, paired_clusters, upper_bound
from .comparison import share
from .drift_figures import Share
from .predict import GREY_SUFFIX
from .predict_probes import PROBES_FOLDER, ProbeRecord, read_record
from .prediction import Prediction, Run, complete_runs, read_run, unfinished_runs
from .prior import PRIOR
from .probe_parts import LEAVE_OUT
from .probe_texts import suggested
from .probes import PROBES
from .robustness_contrast import contrasts
from .robustness_figures import position_bias, relative
from .robustness_outcomes import ProbedRun
from .robustness_parts import chance, part_reliance, rows_without, spoken
from .robustness_report import Asked, Measured, Named, ProbeFigures, Quadrants, Reason, Robustness

CONFIDENCE = 0.95
NO_GREY = "not told without the run on grey images: an answer can be stable for not hanging on the image; add --grey"
Rows = Mapping[str, Prediction]


def robustness(folder: Path, reference: str, margin: float) -> Robustness | None:
    """Return what the probes in RUNS/probes found; None where none was run.

    reference: the run that levels are held against. margin: the extra loss, 0..1, that is still acceptable.
    """
    names = complete_runs(folder / PROBES_FOLDER) if (folder / PROBES_FOLDER).is_dir() else ()
    if not names:
        return None
    clean = {name: read_run(folder, name) for name in complete_runs(folder)}
    records = {
        path.stem: read_record(path) for path in sorted((folder / PROBES_FOLDER).glob("*.json")) if _is_record(path)
    }
    found: dict[str, dict[str, ProbedRun]] = {}
    not_read = [
        f"{name}: not finished, {rows} rows are there; infimed evaluate goes on with it"
        for name, rows in unfinished_runs(folder / PROBES_FOLDER).items()
    ]
    for label in sorted(records, key=lambda label: _place(records[label])):
        for name in names:
            if name.endswith(f".{label}"):
                run = name.removesuffix(f".{label}")
                probed = read_run(folder / PROBES_FOLDER, name)
                if reason := _unfit(probed, clean.get(run), records[label]):
                    not_read.append(f"{name}: {reason}")
                    continue
                found.setdefault(run, {})[label] = _paired(run, records[label], probed, clean)
    priors = _priors(clean, reference)
    figures = [_figures(one) for run in found.values() for one in run.values()]
    base = found.get(reference, {})
    return Robustness(
        dataset=next(iter(clean.values())).meta.identity.dataset if clean else "",
        dataset_sha256=next(iter(records.values())).dataset_sha256,
        reference=reference,
        asked=tuple(_asked(record) for record in sorted(records.values(), key=_place)),
        figures=tuple(figures),
        reliance=(
            *(one for run in found for one in _reliance(run, clean)),
            *(one for run in found.values() if LEAVE_OUT in run for one in part_reliance(run[LEAVE_OUT], CONFIDENCE)),
        ),
        relative=tuple(one for run in found.values() for one in _relatives(run)),
        position_bias=tuple(_bias(run["shuffle"]) for run in found.values() if "shuffle" in run),
        contrasts=tuple(
            one for name, run in found.items() if name != reference for one in contrasts(base, run, priors, margin)
        ),
        not_read=tuple(not_read),
    )


def _is_record(path: Path) -> bool:
    return not path.name.endswith((".meta.json", ".started.json"))


def _place(record: ProbeRecord) -> tuple[int, int]:
    names = list(PROBES)
    return (names.index(record.probe) if record.probe in names else len(names)), record.severity


def _unfit(probed: Run, clean: Run | None, record: ProbeRecord) -> str:
    """Return why a probe's run cannot be read beside its clean run; empty where it can."""
    if clean is None:
        return "its clean run is not complete"
    mine, other = probed.meta.identity, clean.meta.identity
    if mine.subject != other.subject:
        return "it is of another subject than the clean run; evaluate one of them again"
    asked = {name: value for name, value in mine.settings.items() if not name.startswith("probe") and name != "pillow"}
    if (mine.dataset_sha256, mine.role, asked) != (other.dataset_sha256, other.role, dict(other.settings)):
        return "it was asked over other data or with other settings than the clean run"
    if any(mine.settings.get(name) != value for name, value in record.settings.items()):
        return "its rows are not those of the probe's record"
    return ""


def _paired(run: str, record: ProbeRecord, probed: Run, clean: Mapping[str, Run]) -> ProbedRun:
    grey = clean.get(run + GREY_SUFFIX)
    return ProbedRun(run, record, probed, _by_example(clean[run]), _by_example(grey) if grey else None)


def _by_example(run: Run) -> Rows:
    return {row.example_id: row for row in run.predictions}


def _priors(clean: Mapping[str, Run], reference: str) -> Mapping[str, Rows] | str:
    if PRIOR not in clean:
        return "the majority answer was not run; add --prior TRAINSET to infimed evaluate"
    grey = clean.get(reference + GREY_SUFFIX)
    if grey is None:
        return f"the reference was not run on grey images; run infimed evaluate for {reference} with --grey"
    return {"majority answer": _by_example(clean[PRIOR]), "grey image": _by_example(grey)}


def _asked(record: ProbeRecord) -> Asked:
    says = PROBES[record.probe].says if record.probe in PROBES else ""
    reasons = tuple(Reason(text, count) for text, count in sorted(record.left_out.items()))
    total = record.items + sum(record.left_out.values())
    return Asked(
        record.probe, record.severity, record.key, says, total, record.items, record.rows, reasons
    )  # fmt: skip


def _figures(run: ProbedRun) -> ProbeFigures:
    key, rows = run.record.key, run.rows()
    comparable = key in ("same", "mirrored")
    pictured = any(row.images for row in run.sources)
    told = comparable and (run.grey is not None or not pictured)
    groups = np.array([row.group for _, _, row in rows])
    return ProbeFigures(
        run=run.name,
        probe=run.record.probe,
        severity=run.record.severity,
        key=key,
        items=len(run.sources),
        clusters=len(set(run.clusters.tolist())),
        rows=len(rows),
        clean=share(run.clean_right, run.clusters),
        probed=share(np.array([row.correct for _, _, row in rows], dtype=bool), groups),
        robust=share(run.all_right, run.clusters) if key != "abstain" else None,
        consistency=share(run.stable, run.clusters) if told else None,
        flips=share(np.array([not run.agrees(clean, row) for clean, _, row in rows], dtype=bool), groups)
        if told
        else None,
        quadrants=_quadrants(run) if told and pictured else None,
        missing=NO_GREY if comparable and not told else "",
        named=tuple(_named(run)),
    )


def _quadrants(run: ProbedRun) -> Quadrants:
    shown = np.array([row.images > 0 for row in run.sources], dtype=bool)
    stable, blind = run.stable[shown], run.blind[shown]
    return Quadrants(
        stable_seeing=int((stable & ~blind).sum()),
        unstable_seeing=int((~stable & ~blind).sum()),
        unstable_blind=int((~stable & blind).sum()),
        stable_blind=share(stable & blind, run.clusters[shown]),
    )


def _named(run: ProbedRun) -> Sequence[Named]:
    """Return the figures that a probe alone has; none over no rows."""
    right = {
        "attribute-pair": {"accepts the true one": "true", "rejects the made-up one": "hallucinated"},
        "none-of-the-above": {"says that none fits": "removed", "keeps the right one": "kept"},
        "false-premise": {"rejects the false premise": "false", "accepts the true one": "true"},
    }.get(run.record.probe, {})
    found = [(name, [(clean.group, row.correct) for clean, _, row in run.rows(kind)]) for name, kind in right.items()]
    if run.record.probe == "sycophancy":
        hints = [
            (clean.group, row.choice == suggested(variant, row.options))
            for clean, variant, row in run.rows("wrong")
            if clean.choice != suggested(variant, row.options)
        ]
        found.append(("takes up a wrong hint", hints))
    if run.record.probe == "swap":
        found.append(
            ("says the same of a strange picture", [(one.group, run.agrees(one, row)) for one, _, row in run.rows()])
        )
    if run.record.probe == LEAVE_OUT:
        guessed = f"(chance {chance(run):.1%})"
        found += [
            (f"right without {spoken(name)} {guessed}", [(group, right) for group, _, right in rows])
            for name, rows in rows_without(run)
        ]
    if run.record.probe == "mirror":
        sided = [(one.group, run.agrees(one, row)) for one, _, row in run.rows() if row.answer != one.answer]
        found.append(("turns a side with the picture", sided))
    return [Named(name, _share(flags)) for name, flags in found if flags]


def _share(flags: Sequence[tuple[str, bool]]) -> Share:
    return share(np.array([flag for _, flag in flags], dtype=bool), np.array([group for group, _ in flags]))


def _reliance(run: str, clean: Mapping[str, Run]) -> Sequence[Measured]:
    """Return accuracy with the image minus accuracy with mid grey, over the examples that show one."""
    if run + GREY_SUFFIX not in clean:
        return ()
    grey = _by_example(clean[run + GREY_SUFFIX])
    rows = [row for row in clean[run].predictions if row.images]
    if not rows:
        return ()
    pairs = paired_clusters(
        [grey[row.example_id].correct for row in rows], [row.correct for row in rows], [row.group for row in rows]
    )
    alpha = (1 - CONFIDENCE) / 2
    bounds = float(lower_bound(pairs, alpha)), float(upper_bound(pairs, alpha))
    return (Measured(run, "image reliance", len(rows), float(pairs.delta), *bounds),)


def _relatives(run: Mapping[str, ProbedRun]) -> Sequence[Measured]:
    """Return, for each corruption, the mean over its severities of accuracy under it over clean accuracy."""
    found = []
    for name in dict.fromkeys(one.record.probe for one in run.values() if one.record.severity):
        steps = [one for one in run.values() if one.record.probe == name]
        kept = np.mean([one.share_right for one in steps], axis=0)
        got = relative(kept, steps[0].clean_right, steps[0].clusters, CONFIDENCE)
        severities = ", ".join(str(one.record.severity) for one in steps)
        found.append(
            Measured(
                steps[0].name,
                f"{name}, severity {severities}",
                len(kept),
                got.value,
                got.interval.lower,
                got.interval.upper,
            )
        )
    return found


def _bias(run: ProbedRun) -> Measured:
    """Return the position bias over the options in every order, the clean one included."""
    rows = [*run.sources, *(row for _, _, row in run.rows())]
    given = [row.options.index(row.choice) for row in rows if row.choice is not None]
    keys = [row.options.index(row.answer) for row in rows if row.choice is not None]
    groups = [row.group for row in rows if row.choice is not None]
    got = position_bias(given, keys, groups, CONFIDENCE)
    return Measured(run.name, "position bias", len(run.sources), got.value, got.interval.lower, got.interval.upper)
