"""The words by which reasoning names a modality, an organ and a side, and which organs belong together.

Tables only: what a sentence does with a name is rationale.py's. Names are those of MODALITIES, organs are our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .mentions import Mention

_I = re.IGNORECASE
MODALITY_WORDS: Mapping[str, re.Pattern[str]] = {
    "ct": re.compile(r"\bCTA?\b|(?i:\bcomputed\s+tomograph\w*|\bCAT\s+scan)"),
    "mri": re.compile(r"\bMR[IA]?\b|\bFLAIR\b|\bT[12][- ]weighted|(?i:\bmagnetic\s+resonance)"),
    "xray": re.compile(
        r"\bx-?\s?rays?\b|\bradiograph\w*|\bCXR\b|\bmammogra\w*"
        r"|\b(?:plain|PA|AP|chest|abdominal|frontal|lateral)\s+(?:\w+\s+)?films?\b",
        _I,
    ),
    "ultrasound": re.compile(r"\bUS\b|(?i:\bultraso\w*|\bsonogra\w*|\bechocardiogra\w*)"),
    "fundus": re.compile(r"\bfundus\b|\bfundoscop\w*|\bretinal\s+photograph\w*", _I),
    "oct": re.compile(r"\bOCT\b|(?i:\boptical\s+coherence\s+tomograph\w*)"),
    "dermoscopy": re.compile(r"\bderm(?:at)?oscop\w*", _I),
    "endoscopy": re.compile(r"\bendoscop\w*|\b(?:colono|gastro|broncho|laparo|cysto)scop\w*", _I),
    "histopathology": re.compile(r"\bhistolog\w*|\bhistopatholog\w*|\bH\s?&\s?E\b|\bhematoxylin\w*", _I),
    "microscopy": re.compile(r"\bmicroscop\w*|\bmicrograph\w*|\bblood\s+smear", _I),
}
# one way of making an image that another name covers too
_ALSO_MODALITY: Mapping[str, frozenset[str]] = {
    "histopathology": frozenset({"microscopy"}),
    "microscopy": frozenset({"histopathology"}),
}
ORGAN_WORDS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(rf"\b(?:{words})\b", _I)
    for name, words in (
        ("chest", r"chests?|thora(?:x|cic)|hemithorax"),
        ("lung", r"lungs?|pulmonary|lung\s+fields?"),
        ("heart", r"hearts?|cardiac|cardiomediastin\w*|(?:left|right)\s+(?:ventric\w+|atri\w+)"),
        ("mediastinum", r"mediastin\w+"),
        ("breast", r"breasts?"),
        ("abdomen", r"abdom\w+|belly|abd"),
        ("liver", r"liver|hepatic"),
        ("kidney", r"kidneys?|renal"),
        ("spleen", r"spleen|splenic"),
        ("pancreas", r"pancrea\w*"),
        ("gallbladder", r"gall\s?bladder"),
        ("stomach", r"stomach|gastric"),
        ("bowel", r"bowels?|intestin\w*|duoden\w*|jejun\w*|ile(?:um|al)"),
        ("colon", r"colon|colonic|c(?:a)?ecum|sigmoid|rect(?:um|al)"),
        ("pelvis", r"pelvi[sc]|pelvic"),
        ("bladder", r"(?<!gall)(?<!gall )(?:urinary\s+)?bladder"),
        ("prostate", r"prostat\w*"),
        ("uterus", r"uter(?:us|ine)"),
        ("ovary", r"ovar(?:y|ies|ian)"),
        ("head", r"head|skull|crani\w+"),
        ("brain", r"brain|cerebr\w+|cerebell\w+|(?:frontal|temporal|parietal|occipital)\s+lobes?"),
        ("eye", r"eyes?|ocular"),
        ("retina", r"retinas?|retinal|macula\w*|optic\s+disc"),
        ("neck", r"neck|cervical"),
        ("thyroid", r"thyroid"),
        ("spine", r"spines?|spinal|vertebra\w*"),
        ("knee", r"knees?|patell\w*"),
        ("shoulder", r"shoulders?"),
        ("hip", r"hips?"),
        ("hand", r"(?<!-)hands?|wrists?"),
        ("foot", r"foot|feet|ankles?"),
        ("skin", r"skin|cutaneous"),
        ("tissue", r"tissues?|stroma"),
    )
}
_INSIDE: Mapping[str, str] = {
    "lung": "chest", "heart": "chest", "mediastinum": "chest", "liver": "abdomen", "kidney": "abdomen",
    "spleen": "abdomen", "pancreas": "abdomen", "gallbladder": "abdomen", "stomach": "abdomen", "bowel": "abdomen",
    "colon": "bowel", "bladder": "pelvis", "prostate": "pelvis", "uterus": "pelvis", "ovary": "pelvis",
    "brain": "head", "retina": "eye", "thyroid": "neck",
}  # fmt: skip
_NOT_A_SIDE = re.compile(
    r"\b(?:all|just|that\s+is|be|am)\s+right\b|\bis\s+(?:the\s+)?right\s*(?:[.,;:!?]|$)"
    r"|\bright\s+(?:answer|option|choice|diagnosis|now|away|angled?|after|before)\b"
    r"|\b(?:nothing|anything|what|is|are)\s+left\b(?!\s*(?:sided|-))(?!\s*[.,;:]|$)|\bleft\s+(?:over|behind|to|out)\b",
    _I,
)
UNSPECIFIC = frozenset({"tissue"})  # a name that counts only where the record says the same
_WELL = r"(?:clear|normal|unremarkable|healthy|intact|preserved|uninvolved|free\s+of)"
WELL_AFTER = re.compile(rf"^[^,;.]*?\b(?:is|are|appears?|looks?|remains?)\s+(?:\w+\s+)?{_WELL}\b", re.IGNORECASE)
WELL_BEFORE = re.compile(rf"\b{_WELL}\s+(?:\w+\s+)?$", re.IGNORECASE)
SIDE_WORDS: Mapping[str, re.Pattern[str]] = {
    "left": re.compile(r"\bleft(?:most|wards?|-?sided|-hand)?\b", _I),
    "right": re.compile(r"\bright(?:most|wards?|-?sided|-hand)?\b", _I),
    "both": re.compile(r"\bbilateral\w*|\bboth\s+sides\b", _I),
}


def named(text: str, table: Mapping[str, re.Pattern[str]]) -> list[Mention]:
    """Return where a plain text holds the words of a table, in their order; option: the index of the name."""
    found = [
        Mention(one.start(), one.end(), index)
        for index, pattern in enumerate(table.values())
        for one in pattern.finditer(text)
    ]
    if table is SIDE_WORDS:
        return named(without_idioms(text), {**SIDE_WORDS})
    return sorted(found, key=lambda one: (one.start, -one.end))


def without_idioms(text: str) -> str:
    """Return the text with "all right", "the right answer", "nothing left" and the like as blanks, as long as they."""
    return _NOT_A_SIDE.sub(lambda found: " " * len(found.group()), text)


def organ_of(text: str) -> str:
    """Return the one organ that a record's words name; empty where they name none, or several that do not nest."""
    names = list(ORGAN_WORDS)
    found = {names[one.option] for one in named(text.replace("_", " "), ORGAN_WORDS) if one.option is not None}
    inner = [name for name in found if not any(name in list(_around(other))[1:] for other in found)]
    return inner[0] if len(inner) == 1 else ""


def _around(organ: str) -> Iterator[str]:
    while organ:
        yield organ
        organ = _INSIDE.get(organ, "")


def same_organ(one: str, other: str) -> bool:
    """Return whether an organ is the other, holds it, or lies in it."""
    return one in _around(other) or other in _around(one)


def same_modality(one: str, other: str) -> bool:
    """Return whether two names can be of one image."""
    return one == other or other in _ALSO_MODALITY.get(one, ())
