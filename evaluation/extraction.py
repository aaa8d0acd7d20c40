"""Finds what a reply says by fixed rules in a fixed order; a reply that says nothing clear is INVALID, never guessed.

The rules, on the text after the last </think>; the first whose pattern occurs decides:
1 the last \\boxed{X}; 2 the last <answer>X</answer>; 3 the last "(final) answer is X" or "answer: X"; 4 the whole reply
is a letter, "(A)."; 5 the first line starts with a letter and . ) or :; 6 exactly one option's text occurs as whole
words (the longest match wins; not where not, no or unlikely stands within 3 words before, nor "is unlikely" or ": no"
after). Two letters that open one line are INVALID. Signs are words: "> 2 cm" is not "2 cm".
Yes/no after rules 1-3: the first word yes or no; both in the first sentence is INVALID, and so is "not yes". Open after
rules 1-3: the whole reply. Knows no answer key: it cannot favour the right one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

INVALID_RULE = "invalid"
_BOXED = re.compile(r"\\boxed\s*\{")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_STATED = re.compile(r"\b(?:final\s+)?answer\s*(?:\*\*)?\s*(?:is\b\s*:?|:)\s*([^\n]*)", re.IGNORECASE)
_BARE_LETTER = re.compile(r"\W*\(?\s*([A-Za-z])\s*\)?\s*[.:]?\W*")
_LETTERED = re.compile(r"(?<![\w.'-])\(?([A-Za-z])\s*[.):](?!\w)")
_LEADING_LETTER = re.compile(r"\(?([A-Za-z])\s*[.):]")
_YES_NO = re.compile(r"(?<![\w'-])(yes|no)(?![\w'-])", re.IGNORECASE)
_TAKEN_BACK = re.compile(r"(?:\b(?:not|cannot|never|neither|nor|hardly)|n['\u2019]t)\s+(?:\w+\s+){0,2}$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
# A plus or minus is a sign where it ends a word ("IgG+") or the text ("HIV -"); elsewhere a dash joins or divides.
SIGN = re.compile(r"[<>\u2264\u2265\u00b1]|(?<=\w)[+\-]+(?!\w)|[+\-](?=[\s.,;)]*$)")
_WORD = re.compile(rf"{SIGN.pattern}|[\w/.\-]*\w")
_BEFORE_SIGNS = frozenset("<>\u2264\u2265\u00b1")
_AT_ONCE = re.compile(r"([:?=\u2013\u2014\-]|\w)(\s*)\b(no|none)\b(?=\s*(?:[.,;\n]|$))", re.IGNORECASE)
_NEGATIONS = frozenset({"not", "no", "unlikely", "never", "without", "neither", "nor"})
_NEGATION_REACH = 3  # words before an option in which a negation takes it back
_DENIALS = frozenset({"not", "unlikely", "absent", "excluded"})
_DENIAL_REACH = 2  # words after an option: "an effusion is unlikely"


@dataclass(frozen=True)
class Extraction:
    """What a reply says and the rule that found it.

    answer: an option's text, "yes", "no" or free text; None means INVALID. rule: "boxed", "tag", "stated", "letter",
    "leading letter", "option text", "yes/no", "whole reply" or "invalid".
    """

    answer: str | None
    rule: str


def extract(reply: str, *, answer_type: str, options: Sequence[str] = ()) -> Extraction:
    """Return what the reply says. answer_type: "choice" (options in the order shown), "yesno" or "open"."""
    text = final_text(reply)
    for rule, stated in _stated(text):
        if answer_type == "choice":
            answer = _option_of(stated, options)
        elif answer_type == "yesno":
            answer = _yes_or_no(stated)
        else:
            answer = stated.strip(" \t*.") or None
        return Extraction(answer, rule if answer is not None else INVALID_RULE)
    if answer_type == "open":
        whole = text.strip()
        return Extraction(whole, "whole reply") if whole else Extraction(None, INVALID_RULE)
    if answer_type == "yesno":
        said = _yes_or_no(text)
        return Extraction(said, "yes/no") if said else Extraction(None, INVALID_RULE)
    return _chosen(text, options)


def final_text(reply: str) -> str:
    """Return what follows the last </think>; of a thought that was never finished, only what stands before it."""
    text = reply.rsplit("</think>", 1)[-1]
    return text.split("<think>", 1)[0]


def _stated(text: str) -> list[tuple[str, str]]:
    """Return the first of rules 1-3 whose pattern occurs, as (rule, X); empty where none does."""
    boxes = [_braced(text, match.end()) for match in _BOXED.finditer(text)]
    if boxes:
        return [("boxed", re.sub(r"^\\(?:text|mathrm|textbf)\s*\{(.*)\}$", r"\1", boxes[-1].strip(), flags=re.DOTALL))]
    tags = _TAGGED.findall(text)
    if tags:
        return [("tag", tags[-1])]
    sentences = [match.group(1) for match in _STATED.finditer(text)]
    if sentences:
        return [("stated", _first_sentence(sentences[-1]))]
    return []


def _braced(text: str, start: int) -> str:
    """Return the text from `start` to the brace that closes it (to the end where none does)."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start:index]
    return text[start:]


def _first_sentence(text: str) -> str:
    found = _SENTENCE_END.search(text)
    # "B. pneumonia" is one answer, not the sentence "B."
    if found and len(text[: found.start()].strip(" *(")) > 1:
        return text[: found.start()]
    return text


def _yes_or_no(text: str) -> str | None:
    first = _YES_NO.search(text)
    if first is None:
        return None
    stop = _SENTENCE_END.search(text)
    opening = text[: stop.start()] if stop else text
    if len({word.lower() for word in _YES_NO.findall(opening)}) > 1:
        return None
    if _TAKEN_BACK.search(opening[: first.start()]):
        return None
    return first.group(1).lower()


def _chosen(text: str, options: Sequence[str]) -> Extraction:
    """Apply rules 4-6. An option that is itself the whole reply is taken before its letters are read."""
    whole = _tokens(text)
    equal = [option for option in options if whole and _tokens(option) == whole]
    if len(equal) == 1:
        return Extraction(equal[0], "option text")
    opening = _opened_by(whole, options)
    if opening is not None:
        return Extraction(opening, "option text")
    bare = _BARE_LETTER.fullmatch(text.strip())
    if bare:
        return _lettered(bare.group(1), options, "letter")
    leading = _LEADING_LETTER.match(text.strip())
    if leading:
        if _opens_again(text.strip()[leading.end() :], leading.group(1), options):
            return Extraction(None, INVALID_RULE)
        return _lettered(leading.group(1), options, "leading letter")
    named = _named(text, options)
    return Extraction(named, "option text" if named is not None else INVALID_RULE)


def _opened_by(words: list[str], options: Sequence[str]) -> str | None:
    """Return the option like "E. coli" that opens the reply: its first letter is part of a name, not a choice."""
    named = [
        option
        for option in options
        if len(wanted := _tokens(option)) > 1 and len(wanted[0]) == 1 and words[: len(wanted)] == wanted
    ]
    return max(named, key=len) if named else None


def _opens_again(rest: str, letter: str, options: Sequence[str]) -> bool:
    """Return whether the rest of the line is another option: its text, or opened by its letter."""
    first = _lettered(letter, options, "").answer
    own = _tokens(first) if first is not None else []
    said = _tokens(rest)
    if own and said[: len(own)] == own:
        return False
    if said and any(_tokens(option) == said for option in options):
        return True
    others = {found.upper() for found in _LETTERED.findall(rest.split("\n", 1)[0])} - {letter.upper()}
    return any(_lettered(other, options, "").answer is not None for other in others)


def _lettered(letter: str, options: Sequence[str], rule: str) -> Extraction:
    index = ord(letter.upper()) - ord("A")
    return Extraction(options[index], rule) if index < len(options) else Extraction(None, INVALID_RULE)


def _option_of(stated: str, options: Sequence[str]) -> str | None:
    """Return the option that a stated answer names: by its text, its letter, or its text among other words."""
    return _chosen(stated, options).answer


def _tokens(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    plain = re.sub(r"n't\b", " not", plain).replace("<=", "\u2264").replace(">=", "\u2265")
    return _WORD.findall(plain)


def _named(text: str, options: Sequence[str]) -> str | None:
    """Return the one option whose words occur and are not taken back; None for none or several."""
    words = _tokens(_AT_ONCE.sub(r"\1\2\3 absent", text))  # "pneumonia: no" denies what stands before it
    spans: list[tuple[int, int, str]] = []
    for option in options:
        wanted = _tokens(option)
        if len(wanted) > 1 and wanted[0] in ("a", "an", "the"):
            wanted = wanted[1:]
        for start in range(len(words) - len(wanted) + 1 if wanted else 0):
            signed = bool(_BEFORE_SIGNS & set(words[max(0, start - 1) : start]))
            signed |= bool({"+", "-"} & set(words[start + len(wanted) : start + len(wanted) + 1]))
            if words[start : start + len(wanted)] == wanted and not signed:
                spans.append((start, start + len(wanted), option))
    longest = [
        span
        for span in spans
        if not any(
            other[0] <= span[0] and span[1] <= other[1] and other[1] - other[0] > span[1] - span[0] for other in spans
        )
    ]
    found = {
        option
        for start, end, option in longest
        if not _NEGATIONS & set(words[max(0, start - _NEGATION_REACH) : start])
        and not _DENIALS & set(words[end : end + _DENIAL_REACH])
    }
    return found.pop() if len(found) == 1 else None
