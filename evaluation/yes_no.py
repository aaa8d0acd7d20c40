"""Reads yes or no out of a reply: the word itself, or what the reply says of the very thing that was asked.

The word counts where it stands alone ("no, ..."); before a noun ("no effusion") it denies that noun, and what this
answers depends on the question: no to "is there an effusion?", yes to "are the lungs free of effusion?". What answers
by implication only (a size, the other side, another modality) needs medicine and stays INVALID.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .asked import Asked, asked
from .implied import implied
from .mentions import MOST, WINDOW
from .polarity import NOT_TRUE, REPORTED, reading
from .reply_text import Readable, sentence_at, sentences, word_set, words, words_at
from .silence import declines
from .stated import CORRECTION, only_flag, settled, statements

_FUNCTION = (
    "it there this that the these those i we he she they not because since as but however so only yes and or nor "
    "although though my your both neither evident"
)
_NO = rf"no(?=\s*(?:$|[.,;:!?)\]\"'/\n]|-\s)|\s+(?:{'|'.join(_FUNCTION.split())})\b)"
_YES = (
    r"yes(?!\s+(?:would|could|might|may|requires|needs|means|should)\b|\s+(?:is|was)\s+(?:not|never|wrong|incorrect)\b)"
)
_WORD = re.compile(rf"(?<![\w'\-])(?:{_YES}|{_NO})(?![\w'])", re.IGNORECASE)
_TAKEN_BACK = re.compile(r"\b(?:not|never|neither|nor|hardly)\s+(?:\w+\s+){0,2}$", re.IGNORECASE)
_INITIALLY = re.compile(r"\b(?:initially|originally|at\s+first|first\s+thought|tempted)\b[^.;]*$", re.IGNORECASE)
_SO = re.compile(r"\b(?:so|therefore|thus|hence|answer\s+is|final(?:ly)?)\W*(?:\w+\W+){0,3}$", re.IGNORECASE)
_AGREES = re.compile(
    r"^\W*(?:(?:that|this|it)\s+is\s+|i\s+would\s+say\s+|most\s+likely\s+|probably\s+)?(?:\w+ly\s+)?"
    r"(correct|true|affirmative|indeed|yeah|yep|incorrect|not\s+(?:correct|true)|false|untrue|nope|"
    r"(?:probably|likely|definitely|certainly|apparently)\s+not(?=\s*(?:$|[.,;!]))|"
    r"not\s+that\s+i\s+can\s+(?:see|tell)|i\s+(?:do\s+not\s+)?(?:think|believe)\s+so)\b(?!\s+that\b)",
    re.IGNORECASE,
)
_DISAGREES = re.compile(r"\bnot\b|^(?:incorrect|false|untrue|nope)$")
_FOREIGN = re.compile(
    r"^\W*(?:(s\u00ed|oui|ja|sim|\u0434\u0430|\u306f\u3044|\uc608)|(nein|non|n\u00e3o|\u043d\u0435\u0442|\u3044\u3044\u3048|\uc544\ub2c8\uc694))(?=\s*(?:$|[.,;!]))",
    re.IGNORECASE,
)
_CONDITIONAL = re.compile(r"^\W*(?:only\s+|but\s+only\s+)?(?:if|unless|provided|assuming|when)\b", re.IGNORECASE)
_CONDITION = re.compile(r"\b(?:if|unless|whether|provided|assuming|when)\b[^.;]*$", re.IGNORECASE)
_CHINESE = re.compile(r"^\W*(不是|不存在|不对|没有|否|无|不|是的|是|对|有的?|存在|正确)(?=\s*(?:$|[.,;!:\n]))")
_CHINESE_NO = re.compile("^不|^没|^否|^无")
_STANDS = re.compile(
    r"^\W*(?:it\s+is\s+|they\s+are\s+)?(not\s+)?(?:clearly\s+|definitely\s+)?([a-z]+)\b\W*$", re.IGNORECASE
)
_PRONOUN = re.compile(
    r"^\W*(?:there\s+(?:is|are)\s+(?:(not\s+(?:one|any)|none)|one)|i\s+(?:do|can)\s+(not)\s+see\s+(?:one|any))\W*$",
    re.IGNORECASE,
)
_THERE = frozenset({"present", "positive", "seen", "visible", "detected", "identified", "evident"})
_NOT_THERE = frozenset({"absent", "negative", "none", "unremarkable"})
# a denial or finding holds although its speaker adds that it may be wrong
_NOT_SURE = re.compile(
    r",?\s+(?:but|although|though)\s+i\s+(?:can\s+not\s+be|am\s+not)\s+(?:\w+ly\s+)?(?:sure|certain)(?=\s*(?:[.!]|$))",
    re.IGNORECASE,
)
_FILLERS = word_set(
    "a an the any evidence sign signs of definite obvious clear visible convincing apparent evident discernible "
    "significant identifiable radiographic suggestion finding findings there is are such other"
)
_TOLD_BEFORE = re.compile(
    r"\b(?:there\s+(?:is|are|was|were|seems?\s+to\s+be|appears?\s+to\s+be)|positive\s+for|i\s+(?:can\s+)?(?:see|note|identify)|shows?|demonstrates?|reveals?|contains?|has|have|"
    r"(?:consistent|compatible)\s+with|(?:diagnostic|indicative|evidence)\s+of|indicat\w+|confirm\w*|can\s+see)\b|"
    r"\b(?:this|it|that|image|picture|scan|study|lesion|finding|diagnosis)\s+(?:is|was)\b",
    re.IGNORECASE,
)
_TOLD_AFTER = re.compile(
    r"^\s*[:=]?\s*(?:present|positive)\W*$|^\W*(?:is|are|was|were|can\s+be)\s+(?:\w+ly\s+)?"
    r"(?:present|seen|visible|noted|identified|detected|evident|apparent|demonstrated|shown|there)\b",
    re.IGNORECASE,
)
_GENERIC = word_set(
    "image images picture scan radiograph film view study this the these either both any all examination x-ray ct mri "
    "of on in a an slice section provided given photograph"
)
_PLACED = re.compile(
    r"^\s*(?:of|in|on|at|under|within|along|involving|beneath|near|to|above|below)\s+([^,.;:()]*)", re.IGNORECASE
)


def yes_or_no(text: Readable, question: str = "") -> tuple[str | None, str]:
    """Return ("yes" or "no", rule); (None, "invalid") where the reply says neither, or both."""
    found = statements(text)
    wanted = asked(question)
    stated = settled(text.plain, found, lambda said: _value(said, wanted))
    if stated is not None:
        answer, last = stated
        edges = [0, *(edge for one in found for edge in (one.start, one.end)), len(text.plain)]
        rest = "\n".join(text.plain[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True))
        return _unless_contradicted(answer, last.rule, rest, wanted)
    flag = only_flag(text.marked, question)
    if flag is not None:
        return ("yes" if flag else "no"), "json"
    if text.noisy:
        return None, "invalid"
    said = _direct(text.plain)
    if said == "both":
        return None, "invalid"
    if said is not None and declines(_of_word(text.plain)):
        return None, "invalid"  # "No, I can not see the image"
    if said is not None:
        return _unless_contradicted(said, "yes/no", text.plain, wanted)
    if declines(_NOT_SURE.sub("", text.plain)):
        return None, "invalid"
    told = _stands_alone(text.plain, wanted) or _of_the_thing(text.plain, wanted) or _chinese(text.plain, question)
    told = told or implied(text.plain, question)
    return (told, "asked") if told in ("yes", "no") else (None, "invalid")


def _of_word(text: str) -> str:
    """Return the sentence of the first yes or no that stands alone."""
    one = _WORD.search(text)
    span = sentence_at(list(sentences(text)), one.start()) if one else None
    return text[slice(*span)] if span else ""


def _value(said: str, wanted: Asked | None) -> str | None:
    """Return what a stated X says: yes, no, the words that stand for them, or what it says of the thing asked."""
    first = words(said)[:1]
    if first and len(words(said)) == 1 and first[0] in ("true", "correct", "false", "incorrect"):
        return "yes" if first[0] in ("true", "correct") else "no"
    told = _direct(said)
    if told is None and not declines(said):
        told = _stands_alone(said, wanted) or _of_the_thing(said, wanted)
    return told if told in ("yes", "no") else None


def _unless_contradicted(answer: str | None, rule: str, rest: str, wanted: Asked | None) -> tuple[str | None, str]:
    """Return the answer, unless the reply's own words on the very thing asked say the opposite."""
    if answer is None:
        return None, "invalid"
    content = _of_the_thing(rest, wanted)
    return (answer, rule) if content in (None, answer) else (None, "invalid")


def _direct(text: str) -> str | None:
    """Return "yes", "no" or "both" by the words that stand alone; None where there is none."""
    if agreed := _AGREES.match(text):
        return "no" if _DISAGREES.search(agreed.group(1).lower()) else "yes"
    if foreign := _FOREIGN.match(text):
        return "yes" if foreign.group(1) else "no"
    if chinese := _CHINESE.match(text):
        return "no" if _CHINESE_NO.match(chinese.group(1)) else "yes"
    found = list(_WORD.finditer(text))
    spans = list(sentences(text))
    said: list[tuple[str, int]] = []
    taken_back = False
    for one in found:
        begin = (sentence_at(spans, one.start()) or (0, 0))[0]
        before = text[max(begin, one.start() - WINDOW) : one.start()]
        taken_back |= bool(
            _TAKEN_BACK.search(before)
            or REPORTED.search(before)
            or _CONDITION.search(before)
            or _CONDITIONAL.match(text[one.end() :])
        )
        if not _INITIALLY.search(before):
            said.append((one.group().lower(), one.start()))
    if taken_back:
        return "both"
    if not said:
        return None
    opening_end = (sentence_at(spans, said[0][1]) or (0, len(text)))[1]
    opening = {word for word, at in said if at < opening_end}
    if len(opening) > 1:
        return "both"
    first, last = said[0], said[-1]
    if last[0] == first[0]:
        return first[0]
    between = text[first[1] + len(first[0]) : last[1]]
    if CORRECTION.search(between):
        return last[0]
    anew = any(
        word != first[0] and not re.search(r"\w", text[(sentence_at(spans, at) or (0, 0))[0] : at]) for word, at in said
    )
    return "both" if anew or _SO.search(text[: last[1]]) else first[0]


def _stands_alone(text: str, wanted: Asked | None) -> str | None:
    """Return what one word alone answers: "Present", "Negative", or the property that was asked."""
    spans = list(sentences(text))
    if (
        wanted is not None
        and wanted.kind == "there"
        and (none := _PRONOUN.match(text[slice(*spans[0])] if spans else ""))
    ):
        return "no" if none.group(1) or none.group(2) else "yes"
    alone = _STANDS.match(text[slice(*spans[0])]) if spans else None
    if alone is None or wanted is None:
        return None
    word, negated = alone.group(2).lower(), bool(alone.group(1))
    if wanted.kind == "property" and wanted.thing == (word,):
        return "no" if negated else "yes"
    if wanted.kind == "absent" and word in ("absent", "present"):
        return "yes" if (word == "absent") != negated else "no"
    if wanted.kind == "property" and _opposite(word) == wanted.thing[-1]:
        return "yes" if negated else "no"
    if wanted.kind == "there" and word in _THERE | _NOT_THERE:
        return "yes" if (word in _THERE) != negated else "no"
    return None


def _opposite(word: str) -> str:
    return word[2:] if word.startswith("ab") else f"ab{word}"


def _places(text: str, thing: Sequence[str]) -> list[tuple[int, int]]:
    said = words_at(text)
    size = len(thing)
    return [
        (said[at][1], said[at + size - 1][2])
        for at in range(len(said) - size + 1)
        if all(_same(word, want) for (word, _, _), want in zip(said[at : at + size], thing, strict=True))
    ]


def _same(word: str, wanted: str) -> bool:
    return word == wanted or (len(wanted) > 3 and (word == wanted + "s" or word + "s" == wanted))


def _of_the_thing(text: str, wanted: Asked | None) -> str | None:
    """Return what the sentences on the thing asked say: "yes", "no", "both", or None where none can be read."""
    if wanted is None:
        return None
    said = {told for begin, end in sentences(text) if (told := _in_sentence(text[begin:end], wanted))}
    return said.pop() if len(said) == 1 else "both" if said else None


def _in_sentence(sentence: str, wanted: Asked) -> str | None:
    if wanted.kind == "property":
        return _property(sentence, wanted)
    if wanted.kind == "there" and f"non-{wanted.thing[-1]}" in words(sentence):
        return "no"
    spots = _places(sentence, wanted.thing) or _places(sentence, wanted.thing[-1:])
    told: set[str] = set()
    for start, end in spots[:MOST]:
        whole = bool(_places(sentence[start:end], wanted.thing))
        before, after = sentence[max(0, start - WINDOW) : start], sentence[end : end + WINDOW]
        place = _PLACED.match(after)
        denied = NOT_TRUE.search(before)
        twice, before = denied is not None, before[denied.end() :] if denied else before
        stand = reading(before, after).stand
        if (
            place
            and not set(words(place.group(1))) <= wanted.every | _GENERIC
            and (stand != "affirmed" or wanted.placed)
        ):
            continue
        lead = re.split(
            r"\b(?:no|not|without|nor|neither|or|for|see|shows?|demonstrates?|reveals?|contains?|identify|detect|have|has|suggests?)\b|,",
            before,
            flags=re.IGNORECASE,
        )[-1]
        bare = set(words(lead)) <= _FILLERS
        if stand == "denied" and (bare or (whole and re.search(r"\b(?:is|are|was|were|can)\b", after))):
            told.add("yes" if twice else "no")
        elif stand == "affirmed" and whole and (_TOLD_BEFORE.search(before) or _TOLD_AFTER.match(after)):
            told.add("no" if twice else "yes")
        elif stand != "affirmed":
            told.add("unclear")
    if len(told) != 1 or "unclear" in told:
        return None
    answer = told.pop()
    return answer if wanted.kind != "absent" else {"yes": "no", "no": "yes"}[answer]


def _property(sentence: str, wanted: Asked) -> str | None:
    """Return what a sentence says of the property asked, where it speaks of the same thing."""
    subject = [word for word in wanted.of if word not in _GENERIC | _FILLERS | {"it", "that", "those"}]
    normal = wanted.thing == ("normal",)
    if wanted.thing[-1] in ("normal", "abnormal") and re.search(
        r"\bno\s+(?:\w+\s+)?abnormalit(?:y|ies)\b(?!\s+(?:of|in|on|at|within))", sentence, re.IGNORECASE
    ):
        named = not subject or set(subject) <= set(words(sentence))
        return None if not named else "yes" if normal else "no"
    word, answer = wanted.thing[-1], "yes"
    spots = _places(sentence, (word,))
    if not spots and word in ("normal", "abnormal"):
        spots, answer = _places(sentence, (_opposite(word),)), "no"
    if len(spots) != 1:
        return None
    start, end = spots[0]
    before = sentence[:start]
    about = re.match(r"\W*(?:it|this|they|these)\b", before, re.IGNORECASE) or _generic_subject(before, wanted)
    if not (set(subject) <= set(words(before)) if subject else about):
        return None
    attributive = re.search(r"\b(?:is|are)\s+an?\s+(?:\w+ly\s+)?$", before, re.IGNORECASE)
    noun = words(sentence[end:])[:1]
    if attributive and noun and (noun[0] in wanted.of or noun[0] in _GENERIC):
        before = re.sub(r"\ban?\s+(?=(?:\w+ly\s+)?$)", "", before, flags=re.IGNORECASE)
    if not re.search(
        r"\b(?:is|are|was|were|appears?|looks?|seems?)\s+(?:not\s+)?(?:\w+ly\s+)?$", before, re.IGNORECASE
    ):
        return None
    stand = reading(before, sentence[end:]).stand
    flipped = {"yes": "no", "no": "yes"}
    return answer if stand == "affirmed" else flipped[answer] if stand == "denied" else None


def _generic_subject(before: str, wanted: Asked) -> bool:
    return bool(set(words(before)) & set(wanted.of) - {"the", "this", "these", "of", "in", "on"})


_CHINESE_ASKED = re.compile(r"(?:是否|是不是)(?:存在|有|包含)?(.+?)(?:\?|$)")
_CHINESE_NORMAL = re.compile("(正常)吗")
_CHINESE_HAS = re.compile(r"(?:有|存在)(.+?)吗")


def _chinese(text: str, question: str) -> str | None:
    """Return what a Chinese reply says of the predicate asked: denied by what stands right before it, or affirmed."""
    found = _CHINESE_ASKED.search(question.replace("\uff1f", "?")) or _CHINESE_NORMAL.search(question)
    found = found or _CHINESE_HAS.search(question)
    if not found:
        return None
    thing = found.group(1).strip()
    exists = bool(re.search("存在|有|包含", found.group()))
    if thing == "正常":
        if re.search("(?:未见|没有|无)(?:明显)?异常", text):
            return "yes"
        if re.search("不正常|(?<!无)(?<!见)(?<!有)异常", text):
            return "no"
    if len(thing) < 2 or thing not in text:
        return None
    before = text[: text.index(thing)]
    if re.search("(?:不|未见|没有|无|非|未发现)(?:明显)?$", before):
        return "no"
    if re.search("可能|无法|不", text):
        return None
    return "yes" if not exists or re.search("(?:有|见|存在|包含)[^,.;]{0,4}$", before) else None
