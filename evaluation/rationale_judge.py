"""Asks a judge, a model behind an OpenAI-compatible address, what the rules read in reasoning; apart from the rules.

Optional and never asked unless somebody names one: it sends questions, options, what is known of the item and the
replies (no image and no key) to that address. What it says lies in RUNS/judged/ and is never mixed with the rules'
figures. An answer that is not what was asked for is kept as unread, never guessed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import InfimedError
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import canonical_json, write_bytes
from .jsonform import FormError, from_json, parse, to_json
from .prediction import Prediction, Run
from .rationale import ASPECTS, NAMINGS, Naming, Rationale, parted
from .rationale_follows import FOLLOWS, Follows
from .reply_text import words

SCHEMA = "infimed.judged/1"
FOLDER = "judged"
INSTRUCTIONS = """You check the reasoning of another model about a medical image. You do not see the image.
You get JSON: the question, its options, what is known of the item (record), the reasoning, and the answer.
Reply with one JSON object and nothing else, with these fields:
- "modality", "organ", "side": each "right" if the reasoning names it as in the record, "wrong" if it names another,
  "not named" if it names none. A field that the record lacks is "not named".
- "follows": "consistent" if the answer follows from the finding that the reasoning states, "contradicts" if it does
  not, "undecidable" if the reasoning states no finding that decides it.
Do not judge whether the answer is medically right."""

Ask = Callable[[str], str]


class JudgeError(InfimedError):
    """A judge that cannot be asked, or judgements that cannot be read."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one reply. read: False where its answer was not what was asked for; then all is empty."""

    example_id: str
    read: bool
    modality: Naming | None = None
    organ: Naming | None = None
    side: Naming | None = None
    follows: Follows = "undecidable"

    def as_rationale(self, length: int) -> Rationale:
        """Return it in the form of the rules' findings. length: words of the reasoning."""
        return Rationale(length, self.modality, self.organ, self.side, self.follows)


@dataclass(frozen=True)
class Judged:
    """RUNS/judged/<run>.json: what one judge said of one run's reasoning. instructions_sha256: of what it was told."""

    run: str
    predictions_sha256: str
    model: str
    instructions_sha256: str
    rows: tuple[Judgement, ...] = ()
    schema: str = SCHEMA


def openai_ask(url: str, model: str, timeout_s: float = 120.0) -> Ask:
    """Return what asks a model at an OpenAI-compatible address (".../v1"), by the official client.

    The key is that of OPENAI_API_KEY; a local server needs none. Raises JudgeError where the client is not installed.
    """
    try:
        import openai
    except ImportError:
        raise JudgeError(
            "a judge is asked through the openai client; install it: pip install 'infimed[judge]'"
        ) from None
    client = openai.OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "none", timeout=timeout_s)

    def ask(text: str) -> str:
        try:
            reply = client.chat.completions.create(
                model=model,
                messages=[{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": text}],
                temperature=0,
                seed=0,
            )
        except openai.OpenAIError as error:
            raise JudgeError(
                f"the judge {model} at {url} does not answer ({' '.join(str(error).split()):.200}); what it said so "
                "far is kept, and the same command goes on"
            ) from None
        return (reply.choices[0].message.content or "") if reply.choices else ""

    return ask


def judge(folder: Path, run: Run, model: str, ask: Ask, on_event: OnEvent = ignore) -> Judged:
    """Ask a judge about every reply of a run that carries reasoning, and write RUNS/judged/<run>.json.

    What was asked already is not asked again. Judgements by another model, of another run's rows or under other
    instructions are refused.
    """
    rows = [row for row in run.predictions if row.generated is not None and parted(row.generated)[0]]
    if not rows:
        raise JudgeError(
            f"run {run.name!r} holds no reply with reasoning; evaluate with --generate and a model that reasons"
        )
    told = hashlib.sha256(INSTRUCTIONS.encode()).hexdigest()
    blank = Judged(run.name, run.meta.predictions_sha256, model, told)
    path = folder / FOLDER / f"{run.name}.json"
    part = path.with_suffix(".part.jsonl")
    if (kept := read_judged(path)) is not None:
        _refuse_other(kept, blank, path)
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _begun(part, blank)
    with part.open("ab") as stream:
        if not stream.tell():
            stream.write(_line(blank))
        for count, row in enumerate(rows, 1):
            if row.example_id not in done:
                done[row.example_id] = judgement(row, ask(asked_of(row)))
                stream.write(_line(done[row.example_id]))
                stream.flush()
            on_event(Event(f"judge {run.name}", count, len(rows), "replies"))
    found = Judged(blank.run, blank.predictions_sha256, model, told, tuple(done[row.example_id] for row in rows))
    write_bytes(path, canonical_json(to_json(found)))
    part.unlink()
    return found


def asked_of(row: Prediction) -> str:
    """Return what a judge is given of a row: JSON with the question, options, record, reasoning and answer."""
    reasoning, answer = parted(row.generated or "")
    given = {"question": row.wording, "options": list(row.options), "record": dict(row.record),
             "reasoning": reasoning, "answer": answer}  # fmt: skip
    return json.dumps(given, ensure_ascii=False, indent=1)


def judgement(row: Prediction, reply: str) -> Judgement:
    """Return what a judge's reply says of a row: its last JSON object, where every field is one of those asked for."""
    said = _object(reply)
    named: dict[str, Any] = {name: said.get(name) for name in ASPECTS if name in row.record}
    follows = said.get("follows")
    if follows not in FOLLOWS or any(value not in NAMINGS for value in named.values()):
        return Judgement(row.example_id, False)
    return Judgement(row.example_id, True, follows=follows, **named)


def read_judged(path: Path) -> Judged | None:
    """Return the judgements of a file; None where there is none. Raises JudgeError."""
    if not path.is_file():
        return None
    try:
        return from_json(Judged, parse(path.read_bytes(), path.name), path.name)
    except FormError as error:
        raise JudgeError(f"{path} cannot be read ({error}); remove it and ask the judge again") from None


def lengths(rows: Sequence[Prediction]) -> Mapping[str, int]:
    """Return the words of each row's reasoning, by example."""
    return {row.example_id: len(words(parted(row.generated or "")[0])) for row in rows}


def _object(reply: str) -> dict[str, Any]:
    """Return the last JSON object of a reply's final text, empty where there is none."""
    text = reply.rsplit("</think>", 1)[-1]
    decoder, at = json.JSONDecoder(), text.rfind("{")
    if at < 0:
        return {}
    try:
        value, _ = decoder.raw_decode(text, at)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _begun(part: Path, blank: Judged) -> dict[str, Judgement]:
    """Return the judgements of a broken run; a torn last line is dropped."""
    if not part.is_file():
        return {}
    data = part.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        write_bytes(part, whole)
    lines = whole.splitlines()
    try:
        if lines:
            _refuse_other(from_json(Judged, parse(lines[0])), blank, part)
        rows = [from_json(Judgement, parse(line)) for line in lines[1:]]
    except FormError as error:
        raise JudgeError(f"{part} cannot be read ({error}); remove it and ask the judge again") from None
    return {row.example_id: row for row in rows}


def _refuse_other(kept: Judged, wanted: Judged, path: Path) -> None:
    for name in ("run", "predictions_sha256", "model", "instructions_sha256"):
        mine, theirs = getattr(wanted, name), getattr(kept, name)
        if mine != theirs:
            raise JudgeError(f"{path} has {name} {theirs!r:.80}, not {mine!r:.80}; remove it to ask anew")


def _line(value: Judged | Judgement) -> bytes:
    return (json.dumps(to_json(value), sort_keys=True, ensure_ascii=False) + "\n").encode()
