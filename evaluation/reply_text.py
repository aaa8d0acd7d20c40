"""Makes a reply readable for rules: control tokens, noise, repetition and markup go; words and sentences are cut.

Knows no answer types and no options' meaning. What a reply says is decided by those who read this text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

_ENDS = re.compile(r"<\|(?:im_end|endoftext|end_of_text|eot_id|eom_id|end)\|>|</s>|<end_of_(?:turn|utterance)>|<eos>")
_CONTROL = re.compile(
    rf"<\|[^<>|\s]{{1,40}}\|>|<s>|<(?:bos|pad|unk|start_of_turn)>|\[(?:PAD|UNK|BOS|EOS|CLS|SEP)\]|{_ENDS.pattern}"
    r"|[\u2581\ufffd\u200b-\u200f\u2060\ufeff\x00-\x08\x0b-\x1f]"
)
_MARKS = str.maketrans(
    {
        "\u3002": ". ", "\u3001": ", ", "\u3010": "[", "\u3011": "]", "\u300c": '"', "\u300d": '"', "\u2212": "-",
        "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u2013": "-", "\u2014": " - ", "\u2011": "-",
    }
)  # fmt: skip
_LATEX_TEXT = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it)|textnormal)\s*\{([^{}]*)\}")
_LATEX_SIGNS = re.compile(r"\$|\\[\[\]()]|\\[,;:! ]")
_WRITTEN_BREAK = re.compile(r"\\n(?![A-Za-z])")
_BOX = re.compile(r"^(\s*[-*]?\s*)\[([ xX])\]\s+", re.MULTILINE)
CROSS, TICK = "\u274c", "\u2705"
_RUN = re.compile(r"([^\s\-=*_#.~])\1{3,}")
_MARKUP = re.compile(
    r"\*+|`+|(?<!\w)_+(?=\w)|(?<=\w)_+(?!\w)|^[ \t]*(?:#+|[-\u2022](?=\s)|\d{1,2}[.)](?=\s+\S))", re.MULTILINE
)
_GLUED = re.compile(r"((?:^|(?<=[\s(]))\(?[A-Z][.):])(?=[A-Z]?[a-z]{2})", re.MULTILINE)  # "D.Pneumothorax"
_CONTRACTED = (
    (re.compile(r"\bcan(?:not|'t)\b", re.IGNORECASE), "can not"),
    (re.compile(r"\bwon't\b", re.IGNORECASE), "will not"),
    (re.compile(r"n't\b", re.IGNORECASE), " not"),
    (re.compile(r"\b(it|that|there|this|what|here|he|she|which)'s\b", re.IGNORECASE), r"\1 is"),
    (re.compile(r"\bI'd\b"), "I would"),
    (re.compile(r"\bI'll\b"), "I will"),
    (re.compile(r"\bI'm\b"), "I am"),
    (re.compile(r"(?<=\w)'s\b"), ""),
)

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBERS = {
    **{word: str(value) for value, word in enumerate(_UNITS)},
    **{word: str(10 * value) for value, word in enumerate(_TENS, 2)},
    **{
        f"{tens}-{unit}": str(10 * value + digit)
        for value, tens in enumerate(_TENS, 2)
        for digit, unit in enumerate(_UNITS[1:10], 1)
    },
}
# A plus or minus is a sign where it ends a word ("IgG+") or the text ("HIV -"); elsewhere a dash joins or divides.
SIGN = re.compile(r"[<>\u2264\u2265\u00b1]|(?<=\w)[+\-]+(?!\w)|[+\-](?=[\s.,;)]*$)")
CJK = "\u3400-\u9fff"
_WORD = re.compile(rf"{SIGN.pattern}|[{CJK}]|(?:[^\W{CJK}]|[/.\-](?=[^\s]*[^\W{CJK}]))*[^\W{CJK}]")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s?(mm|cm|millimet(?:er|re)s?|centimet(?:er|re)s?)(?!\w)", re.IGNORECASE)
_ABBREVIATED = re.compile(r"(?:^|[\s(\[\"])(?:[A-Za-z]|e\.g|i\.e|vs|Dr|approx|fig|cf|st)$", re.IGNORECASE)
_STOP = re.compile(r"[.!?]+(?=[\s\"')\]]|$)|\n+")


def final_text(reply: str) -> str:
    """Return what follows the last </think>; of a thought that was never finished, only what stands before it."""
    text = reply.rsplit("</think>", 1)[-1]
    return text.split("<think>", 1)[0]


@dataclass(frozen=True)
class Readable:
    """A reply as the rules read it. marked: with its bold and quotes. plain: without markup, words uncontracted.

    noisy: the reply opens with noise ("!!!!", "%%%%"), so that nothing but a stated answer counts.
    """

    marked: str
    plain: str
    noisy: bool = False


def readable(reply: str) -> Readable:
    """Return the text after the thought: up to the first end token, in NFKC, without noise and repetition."""
    began = re.sub(rf"^(?:\s|{_CONTROL.pattern})+", "", reply)
    text = final_text(_ENDS.split(began, maxsplit=1)[0])
    text = _CONTROL.sub(" ", text)
    text = unicodedata.normalize("NFKC", text).translate(_MARKS)
    text = _WRITTEN_BREAK.sub("\n", text)
    text = _BOX.sub(lambda box: f"{box.group(1)}{TICK if box.group(2).strip() else CROSS} ", text)
    for _ in range(3):  # \text{\mathrm{B}}
        text = _LATEX_TEXT.sub(r"\1", text)
    text = _LATEX_SIGNS.sub(" ", text).replace(r"\%", "%").replace(r"\rightarrow", "\u2192")
    chunks = re.split(r"(\s+)", text)
    noise = [_is_noise(chunk) for chunk in chunks]
    said = [index for index, chunk in enumerate(chunks) if chunk.strip()]
    noisy = bool(said) and noise[said[0]]
    text = _once("".join("" if dropped else chunk for chunk, dropped in zip(chunks, noise, strict=True)).strip())
    return Readable(text, plain(text), noisy)


def _is_noise(chunk: str) -> bool:
    """Return whether most of a chunk is one character again and again; numbers are no noise unless all zeros."""
    if not chunk or re.fullmatch(r"[\d.,]*[1-9][\d.,]*%?", chunk):
        return False
    return 2 * sum(len(found.group()) for found in _RUN.finditer(chunk)) > len(chunk)


def _once(text: str) -> str:
    """Return the unit of a text that is one unit again and again, the last perhaps cut; else the text."""
    spans = [found.span() for found in re.finditer(r"\S+", text)]
    words = [text[start:end].strip(".,;:!*").lower() for start, end in spans]
    failure = [0] * len(words)
    length = 0
    for index in range(1, len(words)):
        while length and words[index] != words[length]:
            length = failure[length - 1]
        length += words[index] == words[length]
        failure[index] = length
    period = len(words) - (failure[-1] if failure else 0)
    if not words or 2 * period > len(words):
        return text
    return text[: spans[period - 1][1]]


def plain(text: str) -> str:
    """Return a text without markup and contractions, its case and its lines kept."""
    bare = _GLUED.sub(r"\1 ", _MARKUP.sub(" ", text.translate(_MARKS)))
    for pattern, written in _CONTRACTED:
        bare = pattern.sub(written, bare)
    return bare.replace("<=", "\u2264").replace(">=", "\u2265").strip()


def words_at(text: str) -> list[tuple[str, int, int]]:
    """Return the lower-case words of a plain text with their spans. "1.2 cm" and "12 mm" are the one word "12mm"."""
    lengths = {found.start(): found for found in _LENGTH.finditer(text)}
    found_words: list[tuple[str, int, int]] = []
    end = 0
    for found in _WORD.finditer(text):
        if found.start() < end:
            continue
        size = lengths.get(found.start())
        if size is None:
            found_words.append((found.group().lower(), *found.span()))
            end = found.end()
            continue
        value = Decimal(size.group(1)) * (10 if size.group(2).lower().startswith("c") else 1)
        found_words.append((f"{value.normalize():f}mm", *size.span()))
        end = size.end()
    return found_words


def words(text: str) -> list[str]:
    """Return the words of any text as `words_at` gives them."""
    return [word for word, _, _ in words_at(plain(unicodedata.normalize("NFKC", text)))]


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of the sentences: a letter that opens an option ("B. Drusen") and "i.e." end none."""
    start = 0
    for stop in _STOP.finditer(text):
        if stop.group().startswith(".") and _ABBREVIATED.search(text[max(start, stop.start() - 12) : stop.start()]):
            continue
        if text[start : stop.end()].strip():
            yield start, stop.end()
        start = stop.end()
    if text[start:].strip():
        yield start, len(text)


def sentence_at(spans: Sequence[tuple[int, int]], position: int) -> tuple[int, int] | None:
    """Return the span, of those of `sentences`, that holds a position."""
    at = bisect_right(spans, position, key=lambda span: span[0]) - 1
    return spans[at] if at >= 0 and position < spans[at][1] else None


def word_set(table: str) -> frozenset[str]:
    """Return the words of a table that is written as one text."""
    return frozenset(table.split())
