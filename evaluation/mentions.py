"""Finds where a reply mentions an option, by its text or its letter, and whether it affirms, denies or leaves it open.

Negation reaches over its own clause, and over a list ("no A, B or C"), never further. Knows no question and no key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .equivalents import other_names
from .polarity import MARK
from .reply_text import CJK, NUMBERS, sentence_at, sentences, word_set, words, words_at

_BEFORE_SIGNS = frozenset("<>\u2264\u2265\u00b1")
_LABELLED = re.compile(r"\s*\(?([A-Za-z])\s*[:.)]\s+\S")
_GLOSSED = re.compile(r"(.{2,}?)\s*\(([^()]{2,})\)\s*")
_PAREN = re.compile(r"[(\[<{]\s*([A-Za-z])\s*[)\]>}]")
_CALLED = re.compile(
    r"\b(?:option|choice|answer|letter|alternative)(?:\s+[(\[\"']?|[(\[\"'])([A-Za-z])\b(?!')", re.IGNORECASE
)
_CHOSEN = re.compile(r"选(?:择|项)?\s*[:(\[]?\s*([A-Za-z])(?![A-Za-z])")
_OPENS = re.compile(r"^\W*([A-Za-z])\s*(?:[.):](?!\w)|-\s|,\s)")
_BARE = re.compile(r"(?<![A-Za-z0-9_'/.\-+])([A-Z])(?![A-Za-z0-9_'/\-+])")
_LEADS = word_set(
    "so is also be or and not with for choose chose pick select say likely probably thought think leaves leaving to "
    "maybe perhaps possibly options choices between either neither both therefore thus hence but only than favor "
    "favors favour favours wait no yes then about guess was would exclude excludes reject rejects option answer "
    "are mean means out toward towards recommend advise suggest"
)
_FOLLOWS = re.compile(
    r"[ \t]*\n|\s*(?:$|-\s|\.(?!\w)|[,;:!?)(\]<>|/\"\u3400-\u9fff\u2192\u2705\u2713\u2714\u274c\u2717\u2718]|"
    r"(?:is|are|and|or|nor|because|since|but|though|although|as|could|can|would|should|"
    r"not|over|rather|due|given|seems|fits|looks|cannot|does|may|might|was|were|has|here|it)\b)",
    re.IGNORECASE,
)
_ADJACENT = re.compile(r"[\s.):\],>\-\"]*(?:=\s*)?(?:(?:the|an?)\s+)?", re.IGNORECASE)
_ARTICLES = ("a", "an", "the")
_VERB = re.compile(r"\s+(?:is|are|was|were|would|can|could|may|might|has|have|shows?|seems?|appears?)\b", re.IGNORECASE)
_COUNTS = word_set(
    "is are see seen has have only exactly about approximately of the a total count counted with shows be"
)
_MEASURED = word_set("% years year weeks week days day months month hours hour kg g ml degrees times slices views x")
_SIDES = {"left": "right", "right": "left"}
_COUNTED = {
    NUMBERS[word]: word for word in ("zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
}
_ANSWERED = re.compile(r"\s*\?\s*((?:yes|no)\b)[.,;!]?", re.IGNORECASE)

MOST = 200  # mentions: what names options more often lists them, and settles on none
WINDOW = 400  # characters of a sentence, on either side, in which something is said about a mention


@dataclass(frozen=True)
class Mention:
    """An option in the text. option: its index; None for a letter that no option has. conflict: letter and text differ.

    lettered: only its letter stands there.
    """

    start: int
    end: int
    option: int | None
    lettered: bool = False
    conflict: bool = False


def mentions(text: str, options: Sequence[str], asked: Collection[str] = ()) -> list[Mention]:
    """Return the mentions in a plain text, in their order. A letter beside its own option's text is one with it.

    asked: the words of the question; "segment 3" is no count of 3 unless the question speaks of segments.
    """
    texts = _texts(text, options, asked)
    letters = [
        one for one in _letters(text, options) if not any(one.start < t.end and t.start < one.end for t in texts)
    ]
    joined: list[Mention] = []
    for one in sorted((*texts, *letters), key=lambda m: m.start):
        last = joined[-1] if joined else None
        if last is None or last.lettered == one.lettered:
            joined.append(one)
            continue
        gap = text[last.end : one.start]
        # "Drusen (B)" and "drusen (option B)"
        behind = one.lettered and bool(re.fullmatch(r"\s*[(\[<{]\s*\w?", gap + text[one.start]))
        ahead = last.lettered and "\n" not in gap and bool(_ADJACENT.fullmatch(gap))
        if behind or ahead:
            differ = last.option != one.option or last.conflict
            if ahead and differ and "." in gap and _VERB.match(text[one.end :]):  # "A. Nevus is less likely."
                joined.append(one)
                continue
            joined[-1] = Mention(last.start, one.end, one.option if behind is False else last.option, False, differ)
        else:
            joined.append(one)
    return joined


def _forms(options: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return (option, words) for every way to write an option: its text, its gloss, its initials, "the left one"."""
    own: list[tuple[int, list[str]]] = []
    more: list[tuple[int, list[str]]] = []
    for index, option in enumerate(options):
        wanted = words(option)
        if len(wanted) > 1 and wanted[0] in _ARTICLES:
            wanted = wanted[1:]
        own.append((index, wanted))
        if labelled := _LABELLED.match(option):
            more.append((index, words(option[labelled.end() - 1 :])))
        if glossed := _GLOSSED.fullmatch(option):
            more += [(index, words(glossed.group(1))), (index, words(glossed.group(2)))]
        if wanted == ["1"]:
            more.append((index, ["one"]))
        elif len(wanted) == 1 and (wanted[0] in _COUNTED or wanted[0] in _COUNTED.values()):
            more.append((index, [_COUNTED.get(wanted[0]) or NUMBERS[wanted[0]]]))
        more += [(index, name) for name in other_names(wanted)]
        if (
            len(wanted) > 1
            and (side := _SIDES.get(wanted[0]))
            and [side, *wanted[1:]] in (words(one) for one in options)
        ):
            more += [(index, ["on", "the", wanted[0]]), (index, [wanted[0], "side"]), (index, [f"{wanted[0]}-sided"])]
        if len(wanted) > 1 and wanted[-1].isalpha() and len(wanted[0]) > 1:
            more.append((index, [*wanted[:-1], "one"]))
    taken = [form for _, form in own]
    counts = [form for _, form in more]
    return [(i, f) for i, f in own if f] + [(i, f) for i, f in more if f and f not in taken and counts.count(f) == 1]


def _initials(options: Sequence[str]) -> dict[str, int]:
    """Return the initials of options of two words or more (MRI), if only one has them."""
    found: dict[str, list[int]] = {}
    for index, option in enumerate(options):
        parts = re.findall(r"[A-Za-z]+", option)
        if 2 <= len(parts) <= 6 and len("".join(parts)) > 2 * len(parts):
            found.setdefault("".join(part[0] for part in parts).upper(), []).append(index)
    written = {option.strip().upper() for option in options}
    return {name: at[0] for name, at in found.items() if len(at) == 1 and name not in written}


def _texts(text: str, options: Sequence[str], asked: Collection[str]) -> list[Mention]:
    said = words_at(text)
    plain_words = [word for word, _, _ in said]
    spans: list[tuple[int, int, int, bool]] = []
    for option, wanted in _forms(options):
        for start in range(len(said) - len(wanted) + 1):
            exact = plain_words[start : start + len(wanted)] == wanted
            if exact or _plural(plain_words[start : start + len(wanted)], wanted):
                if _signed(plain_words, start, start + len(wanted)) or _inside_cjk(text, said, start, wanted):
                    continue
                number = wanted[0].isdecimal() or (wanted == ["one"] and words(options[option]) == ["1"])
                if len(wanted) == 1 and number and not _counts(plain_words, start, asked):
                    continue
                spans.append((start, start + len(wanted), option, exact))
                if len(spans) > 2 * MOST:
                    break
    for name, option in _initials(options).items():
        spans += [(i, i + 1, option, True) for i, (_, a, b) in enumerate(said) if text[a:b] == name][: 2 * MOST]
    longest = {
        span
        for span in spans
        if not any(
            other[0] <= span[0] and span[1] <= other[1]
            and (other[1] - other[0] > span[1] - span[0] or (other[:2] == span[:2] and other[3] and not span[3]))
            for other in spans
        )
    }  # fmt: skip
    return [Mention(said[start][1], said[end - 1][2], option) for start, end, option, _ in sorted(longest)]


def _counts(said: Sequence[str], at: int, asked: Collection[str]) -> bool:
    """Return whether a bare number counts something: neither a name ("segment 3") nor a measure ("3 weeks")."""
    before, after = said[at - 1] if at else "is", said[at + 1] if at + 1 < len(said) else ""
    if said[at] == "one":
        return before in ("is", "are", "only", "exactly") and after not in ("of", "or", "in")
    if before in ("or", "and", "to") and at > 1 and said[at - 2].isdecimal():
        return _counts(said, at - 2, asked)
    return (before in _COUNTS or before in asked or not before.isalpha()) and after not in _MEASURED


def _plural(said: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether the words differ by the s of a plural only."""
    if list(said[:-1]) != list(wanted[:-1]) or min(len(said[-1]), len(wanted[-1])) < 4 or not said[-1].isalpha():
        return False
    return said[-1] == wanted[-1] + "s" or said[-1] + "s" == wanted[-1]


def _signed(said: Sequence[str], start: int, end: int) -> bool:
    """Return whether a sign beside the words makes them another answer: "> 2 cm" is not "2 cm"."""
    return bool(_BEFORE_SIGNS & set(said[max(0, start - 1) : start])) or bool({"+", "-"} & set(said[end : end + 1]))


def _inside_cjk(text: str, said: Sequence[tuple[str, int, int]], start: int, wanted: Sequence[str]) -> bool:
    """Return whether a single Chinese character stands inside a longer word, where it may mean something else."""
    if len(wanted) != 1 or not re.fullmatch(f"[{CJK}]", wanted[0]):
        return False
    _, begin, end = said[start]
    around = text[max(0, begin - 1) : begin] + text[end : end + 1]
    return bool(re.search(f"[{CJK}]", around))


def _letters(text: str, options: Sequence[str]) -> list[Mention]:
    """Return the letters that stand for options: in brackets, after "option", at the start, or alone in a clause."""
    found: dict[int, Mention] = {}

    def add(start: int, end: int, letter: str) -> None:
        index = ord(letter.upper()) - ord("A")
        if len(found) <= 2 * MOST and not any(one.start < end and start < one.end for one in found.values()):
            found[start] = Mention(start, end, index if index < len(options) else None, True)

    if opens := _OPENS.match(text):
        add(*opens.span(1), opens.group(1))
    for pattern in (_PAREN, _CALLED, _CHOSEN):
        for one in pattern.finditer(text):
            if pattern is not _PAREN or one.group(1).isupper() or len(one.group()) == len(text.strip()):
                add(*one.span(), one.group(1))
    labelled = bool(options) and all(_LABELLED.match(option) for option in options)
    for one in _BARE.finditer(text):
        letter, before, after = one.group(1), text[max(0, one.start() - 60) : one.start()], text[one.end() :][:30]
        lead = re.search(r"([\w']+)\W*$", before)
        clause = re.search(
            r"(?:^|[.;:!?,|\n\u2192(=<>是选为和或项故]|->|=>|-\s)\W*$|[\u2705\u2713\u2714\u274c\u2717\u2718]\s*$",
            before,
        )
        led = clause or (lead and (lead.group(1).lower() in _LEADS or re.search(r"\b[A-Z]\s*[,/&]\s*$", before)))
        labels = labelled and re.match(r"\s*[.!]?\s*$", after)
        if (led or labels) and _FOLLOWS.match(after) and not (letter == "I" and not re.match(r"\s*[.),:]", after)):
            add(*one.span(1), letter)
    return sorted(found.values(), key=lambda one: one.start)


def marked_sentence(text: str, found: Sequence[Mention], this: Mention) -> tuple[str, str]:
    """Return the sentence of a mention before and after it, every other mention in it replaced by one sign."""
    start, end = sentence_at(list(sentences(text)), this.start) or (0, len(text))
    if (told := _ANSWERED.match(text[this.end :])) and end <= this.end + told.start(1):
        end = this.end + told.end()  # "Pneumonia? No."
    start, end = max(start, this.start - WINDOW), min(end, this.end + WINDOW)
    before, after = text[start : this.start], text[this.end : max(end, this.end)]
    for other in reversed(found):
        if other is this:
            continue
        if start <= other.start and other.end <= this.start:
            before = before[: other.start - start] + MARK + before[other.end - start :]
        elif this.end <= other.start and other.end <= end:
            after = after[: other.start - this.end] + MARK + after[other.end - this.end :]
    return before, after
