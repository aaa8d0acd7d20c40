"""Makes runs of probes with planted answers beside planted clean runs. Knows no engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from infimed.evaluation.journal import Journal
from infimed.evaluation.jsonform import to_json
from infimed.evaluation.predict_probes import PROBES_FOLDER, ProbeRecord
from infimed.evaluation.prediction import Identity, Prediction, Subject
from infimed.evaluation.probes import PROBES
from infimed.runtime.files import canonical_json

SHA256 = "d" * 64


def row(key: str, options: Sequence[str] = ("left", "right", "both", "none"), answer: str = "left") -> Prediction:
    """Return an unanswered choice row. key: "group/number"."""
    return Prediction(
        example_id=key, group=key.split("/")[0], modality="ct", task="laterality", answer_type="choice", images=1,
        wording="Which side?", answer=answer, options=tuple(options), option_logprobs_nats=(),
        option_tokens=(1,) * len(options), choice=None, probabilities=(), generated=None, extracted=None, correct=False,
        score=0.0,
    )  # fmt: skip


def said(one: Prediction, choice: str) -> Prediction:
    """Return the row answered so, with 70 % of the probability on it."""
    shares = [0.7 if option == choice else 0.3 / (len(one.options) - 1) for option in one.options]
    right = choice == one.answer
    return replace(
        one, choice=choice, correct=right, score=float(right), probabilities=tuple(shares),
        option_logprobs_nats=tuple(math.log(share) for share in shares), option_tokens=(1,) * len(shares),
    )  # fmt: skip


def varied(one: Prediction, variant: str, choice: str, **changes: object) -> Prediction:
    """Return a row of a probe: a variant of a clean row with its answer."""
    options = changes.get("options", one.options)
    fresh = row(one.example_id, options, str(changes.get("answer", one.answer)))  # type: ignore[arg-type]
    return said(replace(fresh, example_id=f"{one.example_id}~{variant}", **changes), choice)  # type: ignore[arg-type]


def identity(run: str, settings: Mapping[str, str | int | bool] = {}, subject: str = "") -> Identity:
    base = subject or run.removesuffix(".grey")
    kind = "prior" if base == "prior" else "bundle"
    image = "none" if kind == "prior" else "grey" if run.endswith(".grey") else "own"
    return Identity(run, Subject(kind, base, "e" * 64, 1), image, "planted", SHA256, "test", settings)  # type: ignore[arg-type]


def write_rows(folder: Path, name: Identity, rows: Sequence[Prediction]) -> None:
    with Journal(folder, name, [one.example_id for one in rows]) as journal:
        for one in rows[journal.done :]:
            journal.append(one, 0.0)
        journal.finish()


def write_probe(
    folder: Path, run: str, probe: str, rows: Sequence[Prediction], severity: int = 0, left_out: Mapping[str, int] = {}
) -> None:  # fmt: skip
    """Write a probe's record and one run under it."""
    label = f"{probe}-{severity}" if severity else probe
    settings = {"probe": probe, "probe_severity": severity, "probe_seed": 0, "probe_sha256": label.ljust(64, "0")}
    sources = {one.example_id.split("~")[0] for one in rows}
    record = ProbeRecord(
        probe, severity, 0, PROBES[probe].key, SHA256, "test", len(sources), len(rows), left_out,
        str(settings["probe_sha256"]), settings,
    )  # fmt: skip
    (folder / PROBES_FOLDER).mkdir(parents=True, exist_ok=True)
    (folder / PROBES_FOLDER / f"{label}.json").write_bytes(canonical_json(to_json(record)))
    write_rows(folder / PROBES_FOLDER, identity(f"{run}.{label}", settings, run), rows)


def write_clean(folder: Path, run: str, rows: Sequence[Prediction], answer: Callable[[int], str]) -> list[Prediction]:
    """Write a clean, grey or prior run whose answers are answer(number)."""
    answered = [said(one, answer(number)) for number, one in enumerate(rows)]
    write_rows(folder, identity(run), answered)
    return answered
