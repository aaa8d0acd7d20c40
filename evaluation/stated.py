"""Finds the places where a reply states its answer in so many words, and which of several counts.

\\boxed{X}, <answer>X</answer>, a JSON field named answer, "the answer is X", "Final: X" and the same in Chinese. What X
means (an option, yes or no) is read by the caller. Two statements that differ are no answer unless the later one says
that it is final or corrects the earlier one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .reply_text import Readable, words

_BOXED = re.compile(r"\\boxed\s*\{")
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.IGNORECASE | re.DOTALL)
_MOST_STATEMENTS = 64  # the last ones, of a reply that states its answer again and again
_MOST_OBJECTS = 64  # a reply of nothing but braces is read once, not once per brace
_FIELDS = ("answer", "final_answer", "finalanswer", "prediction", "choice", "option", "selected_option", "答案")
_FIELD = re.compile(r"""["'](?:final_?)?answer["']\s*:\s*("(?:[^"\\]|\\.)*"|'[^'\n]*'|[\w.\-]+)""", re.IGNORECASE)
_IS = r"(?:\s+(?:is|would\s+be|should\s+be|must\s+be|will\s+be)\b\s*:?|\s*[:=\u2192]|\s+-\s)"
_NAMED = (
    r"(?:answers?|(?:correct|right|best|most\s+(?:appropriate|suitable|likely)|selected|chosen)\s+(?:option|choice))"
)
_WHERE = r"(?:\s+(?:to|among|of|for|from|here|in|based)\b[^.:;=\n]{0,60}?)?"
_STATED = re.compile(
    rf"\b(?:{_NAMED}{_WHERE}{_IS}|makes?\s+the\s+(?:correct|right|best)\s+(?:answer|option|choice)\s"
    r"|(?<!each\s)(?<!every\s)(?<!differential\s)(?:(?:\A|(?<=\n))correct|final|conclusion|diagnosis|impression|prediction|option|choice)\s*:)"
    r"[ \t]*(?:\n\s*)?([^\n]*)"
    r"|\b(?:respuesta|resposta|risposta|r\u00e9ponse|antwort|\u043e\u0442\u0432\u0435\u0442)(?:\s+(?:correcta|correta|corretta|correcte|final))?"
    r"(?:\s+(?:es|\u00e9|\u00e8|est|ist|lautet)\b\s*:?|\s*[:=])[ \t]*([^\n]*)"
    "|(?:答案(?:应该)?(?:是|为|:)|(?:故|应|因此)?选(?:择|项)?"
    r"(?=[:\sA-Za-z(\[]))\s*:?[ \t]*([^\n]*)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_FINAL = re.compile(r"\b(?:final|corrected|revised|updated)\b[^.\n]{0,20}$", re.IGNORECASE)
CORRECTION = re.compile(
    r"(?:^|[.!?;,\n-]\s*|>\s*)(?:(?:hmm+|but|oh|so|and|no)[,.]?\s+)*"
    r"(?:wait\b|actually,|correction\b|on (?:second thought|review|reflection|closer inspection)\b|scratch that\b"
    r"|no, wait\b|let me (?:correct|revise|reconsider)\b|looking (?:again|more (?:carefully|closely))\b|i was wrong\b"
    r"|I (?:have to |must |need to |should |would |will )?(?:revise|change|correct|reconsider|retract)\b)",
    re.IGNORECASE,
)
_NO = re.compile(r"\bno[,:]\s|不对", re.IGNORECASE)
_RANKS = {"boxed": 2, "tag": 1, "json": 1, "stated": 0}


@dataclass(frozen=True)
class Statement:
    """One statement. rule: its kind. said: the X. start, end: its span. final: whether it calls itself final."""

    rule: str
    said: str
    start: int
    end: int
    final: bool


def statements(text: Readable) -> list[Statement]:
    """Return the statements in their order; one that stands inside another ("the answer is \\boxed{B}") counts once."""
    plain = text.plain
    found = sorted((*_boxes(plain), *_tags(plain), *_fields(text.marked), *_sentences(plain)), key=lambda s: s.start)
    return [one for one in found if not any(_holds(other, one) for other in found[:_MOST_OBJECTS])]


def _holds(outer: Statement, inner: Statement) -> bool:
    """Return whether `inner` gives way to `outer`: they overlap, and `outer` is the plainer sign of an answer."""
    overlap = inner.start < outer.end and outer.start < inner.end
    return inner is not outer and overlap and _RANKS[outer.rule] > _RANKS[inner.rule]


def _boxes(text: str) -> Iterator[Statement]:
    for found in _BOXED.finditer(text):
        depth, end = 1, found.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        said = text[found.end() : end - 1 if not depth else end]
        yield Statement("boxed", said.strip(), found.start(), end, _is_final(text, found.start()))
        if depth:  # it was never closed, so what follows stands inside it
            return


def _tags(text: str) -> Iterator[Statement]:
    for found in _TAGGED.finditer(text):
        yield Statement("tag", found.group(1).strip(), *found.span(), _is_final(text, found.start()))


def _sentences(text: str) -> Iterator[Statement]:
    at = 0
    while found := _STATED.search(text, at):
        group = next(group for group in (1, 2, 3) if found.group(group) is not None)
        said = _first_sentence(found.group(group))
        start = found.start(group)
        at = max(start + len(said), found.start() + 1)
        if not re.match(r"\s*(?:based|unclear|uncertain|unknown)\b", said):
            yield Statement("stated", said.strip(" \t*"), found.start(), at, _is_final(text, start))


def _is_final(text: str, at: int) -> bool:
    line = text[max(0, at - 40) : at].rsplit("\n", 1)[-1]
    return bool(_FINAL.search(line))


def _first_sentence(text: str) -> str:
    for stop in _SENTENCE_END.finditer(text):
        # "B. pneumonia" and "E. coli" are one answer, not a sentence "B."
        if not re.fullmatch(r"\W*(?:option\s+)?\w?\W*", text[: stop.start()], re.IGNORECASE):
            return text[: stop.start()]
    return text


def _fields(text: str) -> Iterator[Statement]:
    """Yield the answer fields of JSON objects; of one that was cut off or is not quite JSON, its field by pattern."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    for _ in range(_MOST_OBJECTS):
        if at < 0:
            return
        end = at + 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            named = _FIELD.search(text, at)
            if named:
                end = named.end()
                yield Statement("json", _scalar(named.group(1)), at, end, False)
        else:
            fields = {str(key).lower(): content for key, content in value.items()}
            name = next((name for name in _FIELDS if name in fields), None)
            if name is not None:
                yield Statement("json", _written(fields[name]), at, end, False)
        at = text.find("{", end)


def _scalar(text: str) -> str:
    try:
        return _written(json.loads(text))
    except ValueError:
        return "" if text.lower() in ("none", "null", "nan") else text.strip("\"'")


def _written(value: Any) -> str:
    """Return a JSON value as words; null, lists and objects are nothing said."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, (str, int, float)) else ""


def only_flag(text: str, question: str) -> bool | None:
    """Return the truth value that is the only field of a JSON reply and is named by the question's own words."""
    fields = _object(text)
    if len(fields) != 1:
        return None
    name, value = next(iter(fields.items()))
    return value if isinstance(value, bool) and _is_asked(name, question) else None


def named_field(text: str, question: str) -> str | None:
    """Return the text or number of the only field of a JSON reply that the question's own words name."""
    named = [value for name, value in _object(text).items() if _is_asked(name, question)]
    return _written(named[0]) or None if len(named) == 1 and not isinstance(named[0], bool) else None


def _object(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text.strip().removeprefix("```json").strip("`\n "))
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_asked(name: str, question: str) -> bool:
    asked = words(question)
    parts = [part for part in re.split(r"[\W_]+", name.lower()) if part not in ("is", "has", "are", "")]
    return bool(parts) and all(part in asked for part in parts)


def settled(
    text: str, found: Sequence[Statement], meaning: Callable[[str], str | None]
) -> tuple[str | None, Statement] | None:
    """Return (answer, statement) of what the reply states in the end; answer None where it does not settle on one.

    None: it states nothing. meaning: what an X says. An earlier statement without meaning is passed over, as a
    statement without a word is after one that has one; the last one must mean something.
    """
    worded = [one for one in found if re.search(r"\w", one.said)][-_MOST_STATEMENTS:]
    if not found:
        return None
    if not worded:
        return None, found[-1]
    told = [(meaning(one.said), one) for one in worded]
    answer, last = told[-1]
    told = [(said, one) for said, one in told if said is not None]
    if answer is None or not told:
        return None, last
    path = [said for index, (said, _) in enumerate(told) if not index or said != told[index - 1][0]]
    if len(path) > 1:
        before = [one for said, one in told if said != answer]
        between = text[before[-1].end : last.start]
        outranks = all(_RANKS[one.rule] < _RANKS[last.rule] for one in before)
        firmer = last.final and not any(one.final or _RANKS[one.rule] > _RANKS[last.rule] for one in before)
        corrects = bool(CORRECTION.search(between) or _NO.search(between))
        if len(set(path)) < len(path) or not (outranks or firmer or corrects):
            return None, last
    return answer, last
