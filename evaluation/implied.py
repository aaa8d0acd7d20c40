"""Reads what answers a yes/no question by arithmetic, by a side, by an opposite, or by names that exclude each other.

"It measures 1.8 cm" is no to "larger than 3 cm?", "on the right" no to "is the lesion on the left?", "this is an MRI"
no to "is this a CT?", "the heart is enlarged" no to "is the heart normal?". Each needs one plain statement on the very
thing that was asked; one that is limited, doubted, negated or said in two ways is left alone.
"""

from __future__ import annotations

import re

from .equivalents import AXES, named_members
from .reply_text import NUMBERS, plain, sentences, word_set, words

_NUMBER = rf"(?:\d+(?:\.\d+)?|{'|'.join(sorted(NUMBERS, key=len, reverse=True))})"
_UNIT = r"(?:mm|cm|m|ml|cc|%|percent|degrees?|weeks?|years?|months?|days?|hu|bpm|mmhg|grams?|kg|g)"
_COMPARED = re.compile(
    r"^(?P<of>.*?)\b(?:(?P<more>larger|bigger|greater|more|longer|wider|thicker|taller|higher|older|over|above|exceed(?:s|ing)?)"
    r"|(?P<less>smaller|less|fewer|shorter|narrower|thinner|lower|younger|under|below)|(?P<least>at\s+least))"
    rf"(?:\s+than)?\s+(?P<bound>{_NUMBER})(?:\s*(?P<unit>{_UNIT})(?!\w))?(?P<rest>.*)$",
    re.IGNORECASE,
)
_MEASURE = re.compile(
    rf"(?<![\w.])({_NUMBER}(?:\s*(?:x|\u00d7|by)\s*{_NUMBER})*)\s*-?\s*({_UNIT})(?!\w)", re.IGNORECASE
)
_SCALE = {"cm": ("mm", 10.0), "m": ("mm", 1000.0), "cc": ("ml", 1.0), "percent": ("%", 1.0)}
_LOOSE = re.compile(
    r"\b(?:no|not|never|nor|neither|without|could|may|might|possibl[ey]|perhaps|if|unless|whether|or|than|versus|vs|would|should|"
    r"least|most|up\s+to|over|under|exceed\w*|previous(?:ly)?|prior|formerly|was|were|normal(?:ly)?|usually|typically|expected|"
    r"likely|probabl[ey]|suspected|suspicious|appears\s+to|between|except|can)\b|[<>\u2264\u2265?]",
    re.IGNORECASE,
)
_CAN_SEE = re.compile(r"\bcan\s+(?:be\s+)?(?:see|seen|count|counted|identify|identified)\b", re.IGNORECASE)
_ABOUT = re.compile(r"\b(?:about|approximately|approx|around|roughly|nearly|almost|circa)\b|~", re.IGNORECASE)
_BRACKETS = re.compile(r"\([^()]*\)")
_PRONOUN = re.compile(r"^\W*(?:it|this|they|these)\b", re.IGNORECASE)
_SIDES = (
    ("left", "right"), ("upper", "lower"), ("superior", "inferior"), ("anterior", "posterior"), ("medial", "lateral"),
    ("proximal", "distal"), ("unilateral", "bilateral"),
)  # fmt: skip
_SIDE_OF = {**dict(_SIDES), **{b: a for a, b in _SIDES}}
_PLACED = re.compile(
    r"^(?:is|are)\s+(?:the|this|that|these)\s+(?P<of>[\w\- ]+?)\s+(?:(?:located|situated|seen|present|found)\s+)?"
    r"(?:(?:on|in|at)\s+(?:the\s+)?(?P<side>\w+)\b|(?P<sided>\w+)(?:-sided)?\s*$)",
    re.IGNORECASE,
)
_OF_IMAGE = re.compile(r"\b(?:of|in)\s+(?:the|this)\s+(?:image|picture|film|screen|viewer)\b", re.IGNORECASE)
_BOTH = word_set("both bilateral bilaterally also sides")
_NAMES_THIS = re.compile(
    r"^\W*(?:(?:this|it|that|these)|(?:the|this)\s+(?:\w+\s+)?(?:image|picture|scan|study|modality|view|plane|projection|sequence|film))"
    r"\s+(?:\w+\s+)?(?:is|was)\b|\b(?:indicat|suggest|consistent\s+with|which\s+means)\w*\s+(?:of\s+)?(?:an?\s+)?",
    re.IGNORECASE,
)
_ASKS_THIS = re.compile(
    r"^(?:is|was|are)\s+(?:this|it|that|the\s+(?:\w+\s+)?(?:image|picture|scan|study|modality|view|plane|projection|sequence|film))\b",
    re.IGNORECASE,
)
_SIZE = word_set("enlarged dilated small shrunken atrophic hypertrophied distended widened thickened narrowed")
_PLACE = word_set("displaced deviated shifted")
_OTHER = word_set("abnormal thinned irregular blunted collapsed fractured torn ruptured inflamed swollen")
_ATTRIBUTES = {
    **dict.fromkeys(word_set("size width thickness caliber calibre diameter volume"), _SIZE),
    **dict.fromkeys(word_set("position location alignment"), _PLACE),
}
_OPPOSITES = {
    "normal": _SIZE | _PLACE | _OTHER,
    "midline": _PLACE,
    "central": _PLACE,
    "intact": word_set("torn ruptured fractured disrupted interrupted perforated"),
    "benign": word_set("malignant"),
    "malignant": word_set("benign"),
    "solid": word_set("cystic"),
    "cystic": word_set("solid"),
}
_PLACE_OF = re.compile(r"\s(?:of|in|on|at|within|from|with)\s")
_VERBS = word_set("is are was were does do there be measure measures measured have has")
_SUBJECT = re.compile(
    r"^(?P<of>(?:the|this|that|these|both|it)\b[\w\- ]*?)\s*\b"
    r"(?:is|are|appears?|looks?)\s+(?:\w+ly\s+)?(?P<x>[\w\-]+)\b",
    re.IGNORECASE,
)
_DET = word_set("the this that these those a an any both of in on and")


def implied(text: str, question: str) -> str | None:
    """Return "yes" or "no" where a plain text answers by implication; None where it does not, or says it two ways."""
    spans = list(sentences(plain(question)))
    if not spans:
        return None
    asks = plain(question)[slice(*spans[-1])].strip().rstrip("?").strip()
    bare = _BRACKETS.sub(" ", text)
    told = [bare[a:b].strip() for a, b in sentences(bare)]
    for rule in (_by_number, _by_side, _by_name, _by_opposite):
        said = {answer for sentence in told if (answer := rule(sentence, asks))}
        if said:
            return said.pop() if len(said) == 1 and "unclear" not in said else None
    return None


def _value(number: str) -> float:
    return float(NUMBERS.get(number.lower(), number))


def _scaled(value: float, unit: str) -> tuple[float, str]:
    unit = unit.lower()
    name, times = _SCALE.get(unit, (unit.rstrip("s") if len(unit) > 2 else unit, 1.0))
    return value * times, name


def _head(phrase: str) -> str | None:
    named = [word for word in words(_PLACE_OF.split(phrase)[0]) if word not in _DET and word not in _VERBS]
    return named[-1] if named else None


def _same(word: str, wanted: str) -> bool:
    return word == wanted or word + "s" == wanted or wanted + "s" == word


def _by_number(sentence: str, asks: str) -> str | None:
    found = _COMPARED.match(asks)
    if found is None:
        return None
    bound = _value(found.group("bound"))
    if found.group("unit"):
        bound, unit = _scaled(bound, found.group("unit"))
        head = _head(found.group("of"))
        measures = [
            max(_scaled(_value(part), one.group(2))[0] for part in re.split(r"\s*(?:x|\u00d7|by)\s*", one.group(1)))
            for one in _MEASURE.finditer(sentence)
            if _scaled(1.0, one.group(2))[1] == unit
        ]
        # "measures up to 1.2 cm" names the largest diameter
        sentence = re.sub(r"\b(measur\w+)\s+up\s+to\b", r"\1", sentence, flags=re.IGNORECASE)
        near = bool(_PRONOUN.match(sentence)) or (
            head is not None and any(_same(word, head) for word in words(sentence))
        )
    else:
        things = [word for word in words(found.group("rest")) if word.endswith("s") and word not in _DET]
        if not things or not re.match(r"(?:are|can|do|does)\b", asks, re.IGNORECASE):
            return None
        counted = re.finditer(
            rf"\b({_NUMBER}|single)\s+(?:(?!and\b|or\b|of\b)[\w\-]+\s+){{0,3}}?{re.escape(things[0][:-1])}s?\b",
            sentence,
            re.IGNORECASE,
        )
        measures = [1.0 if one.group(1).lower() == "single" else _value(one.group(1)) for one in counted]
        near = True
    if not measures:
        return None
    if len(set(measures)) > 1 or not near or _LOOSE.search(_CAN_SEE.sub(" ", sentence)):
        return "unclear"
    rough = found.group("unit") and (_ABOUT.search(sentence) or measures[0] == bound)
    if rough and abs(measures[0] - bound) <= 0.1 * bound:
        return "unclear"
    if found.group("least"):
        return "yes" if measures[0] >= bound else "no"
    return "yes" if (measures[0] > bound if found.group("more") else measures[0] < bound) else "no"


def _by_side(sentence: str, asks: str) -> str | None:
    found = _PLACED.match(asks)
    if found is None:
        return None
    side = (found.group("side") or found.group("sided") or "").lower()
    other, head = _SIDE_OF.get(side), _head(found.group("of"))
    said = [word.removesuffix("-sided") for word in words(sentence)]
    if other is None or head is None or not (_PRONOUN.match(sentence) or any(_same(word, head) for word in said)):
        return None
    if not {side, other} & set(said):
        return None
    if (
        _OF_IMAGE.search(sentence)
        or {side, other} <= set(said)
        or (_BOTH - {side, other}) & set(said)
        or _LOOSE.search(sentence)
    ):
        return "unclear"
    rest = set(words(asks)) - _DET - _VERBS - {side, "side", "located", "situated", "seen", "found", "present", head}
    # "in the left upper lobe" is answered by "in the right upper lobe", not by "in the right kidney"
    return ("yes" if side in said else "no") if rest <= set(said) else "unclear"


def _by_name(sentence: str, asks: str) -> str | None:
    if not _ASKS_THIS.match(asks):
        return None
    asked = {axis: {member for member, _ in named_members(words(asks), axis)} for axis in AXES}
    axes = [axis for axis, members in asked.items() if members]
    if len(axes) != 1 or len(asked[axes[0]]) != 1 or not _NAMES_THIS.search(sentence):
        return None
    said = {member for member, _ in named_members(words(sentence), axes[0])}
    if len(said) != 1 or said == asked[axes[0]]:
        return None if not said else "unclear"
    return "unclear" if _LOOSE.search(re.sub(r"\bwas\b", "is", sentence)) else "no"


def _by_opposite(sentence: str, asks: str) -> str | None:
    found = re.match(
        r"^(?:is|are)\s+(?P<of>(?:the|this|that|these|both)\s+[\w\- ]+?)\s+(?P<x>[\w\-]+)$", asks, re.IGNORECASE
    )
    against = _OPPOSITES.get(found.group("x").lower()) if found else None
    if found is None or against is None:
        return None
    subject = [word for word in words(found.group("of")) if word not in _DET]
    if len(subject) > 1 and subject[-1] in _ATTRIBUTES:
        against = against & _ATTRIBUTES[subject.pop()]
    told = _SUBJECT.match(sentence)
    if told is None or told.group("x").lower() not in against:
        return None
    of = set(words(told.group("of"))) - _DET
    same = all(any(_same(word, want) for word in of) for want in subject) or bool(_PRONOUN.match(told.group("of")))
    extra = [word for word in of if not any(_same(word, want) for want in subject) and word not in ("it", *_ATTRIBUTES)]
    if not same or extra:
        return None
    twice = found.group("x").lower() in words(sentence)
    return "unclear" if twice or _LOOSE.search(sentence) or not subject else "no"
