"""Says what a sentence does with something it mentions: affirm, deny, doubt, or leave it open.

A negation reaches over its own clause, at most six words, and over a list ("no A, B or C"). What is beyond is left
open, never affirmed. Knows no options and no question; MARK stands for whatever else is mentioned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Stand = Literal["affirmed", "denied", "doubted", "open"]

MARK = "\ue000"
_REACH = 6
_CLAUSE = re.compile(
    r"[;:\n\u2192]|\s-\s|,\s*(?=(?:there|it|this|that|these|we|i|but|so|a|an|the|yet|instead|most|likely)\b)"
    r"|\b(?:but|however|although|though|while|whereas|because|since|so|therefore|thus|hence|which|who|instead|yet|as|"
    r"leaves|leaving|favou?rs?|favou?ring|given|until|and\s+(?:points?|suggests?|indicates?|supports?|shows?))\b|但|而(?!不是|非)",
    re.IGNORECASE,
)
_NO = re.compile(
    r"\b(?:no(?![,.:;]|\s+(?:doubt|question)\b)|not(?!\s+(?:only|just|merely|that)\b)|never|nothing|without(?!\s+(?:a\s+)?doubt)|"
    r"neither|nor|hardly|unlikely(?!\s*(?:[,.;]|and\b|or\b))|excludes?|excluding|rules?\s+out|ruling\s+out|free\s+(?:of|from)|"
    r"(?<!is\s)(?<!are\s)(?<!be\s)(?<!been\s)(?<!was\s)(?<!were\s)(?:excluded|ruled\s+out|rejected|eliminated)|"
    r"negative\s+for|against|denies|rather\s+than|instead\s+of|opposed\s+to|absence\s+of|away\s+from|none\s+of|"
    r"rejects?|eliminates?|devoid\s+of|fails?\s+to)\b",
    re.IGNORECASE,
)
_NO_CJK = re.compile("(?:不是|并非|没有|未见|未发现|无|非|排除|不考虑|不像|不支持|不符合)[^,.;\n]{0,6}$")
# what others say is left open: "the report says", "you suggested", "many would say"
REPORTED = re.compile(
    r"\b(?:user|you|someone|somebody|anyone|people|others?|one|they|many|some|reports?|radiologists?|doctors?|clinicians?|specialists?|"
    r"colleagues?|textbooks?|notes?)\s+(?:\w+\s+){0,2}?(?:says?|said|thinks?|thought|suggest(?:s|ed)?|claim(?:s|ed)?|argue[sd]?|"
    r"believe[sd]?|state[sd]?|mention(?:s|ed)?|call(?:s|ed)?)\b",
    re.IGNORECASE,
)
_IF_CHOOSING = re.compile(
    r"\bif\s+(?:i\s+)?(?:(?:had|have|were|am|was)\s+)?(?:to\s+|forced\s+to\s+|pressed\s+to\s+)(?:choose|pick|guess|say|decide|answer)[^,.;]*,",
    re.IGNORECASE,
)
NOT_TRUE = re.compile(
    r"\bnot\s+(?:true|correct|the\s+case|right)\s+(?:to\s+\w+\s+)?that\b"
    r"|\b(?:wrong|incorrect|false|untrue|mistake|mistaken)\s+(?:to\s+(?:say|claim|state|assume|conclude|think)\s+)?that\b",
    re.IGNORECASE,
)
_UNSETTLED = re.compile(
    r"\bnot\s+(?:\w+\s+){0,3}(?:exclude|excluded|rule|ruled|out|differentiate|distinguish)\b|\bdifferential\b|"
    r"(?<!no\s)(?<!without\s)(?<!without\sa\s)\bdoubt(?:s|ed|ful)?\b|\b(?:hard|difficult)\s+to\b|\bunlike\b|(?<!rather\s)\bthan\b|"
    r"(?<!normal\s)(?<!unremarkable\s)\b(?:except(?:\s+for)?|other\s+than|apart\s+from)\b|"
    r"\bdisagree\w*|\btoo\s+\w+\s+to\b|\bthere\s+(?:should|would|will)\s+be\b|\b(?:(?<=\()see|versus|vs\.?|if|unless|whether|between)\b|,\s*(?:as|so)\s+(?:is|are|was|were|can|could|may|might|do|does)\b|"
    r"\b(?:differs?|different|distinguish\w*|compared|similar|mimic\w*|resembl\w*|learn|know|less\s+likely)\b"
    r"|\b(?:should|recommend\w*|advis\w*)\b.*\b(?:for|with|of)\b|\b(?:evaluate|screen|test|check|monitor|assess|watch|biopsy)\b"
    r"|\b(?:had|prior|previous|formerly)\b|\b(?:cases?|history|risk|treatment)\s+(?:of|for)\b",
    re.IGNORECASE,
)
_ABANDONED = re.compile(
    r"\b(?:initially|originally|at\s+first|first\s+(?:thought|guess|glance|impression)|(?:first,?\s+i|i\s+(?:first|initially|had))\s+(?:thought|considered|believed|suspected)|thought\s+(?:of|it\s+was)|looked\s+like|"
    r"considered|might\s+have\s+thought|was\s+(?:suspected|thinking))\b",
    re.IGNORECASE,
)
# "not clearly benign" doubts, and denies nothing.
_WEAKENED = re.compile(
    r"\b(?:clearly|definitely|necessarily|entirely|completely|certainly|typically|always|purely)\b", re.IGNORECASE
)
_LIMIT = re.compile(
    r"\b(?:at\s+(?:least|most)|(?:more|less|fewer)\s+than|up\s+to|over|under|around)\s*$", re.IGNORECASE
)
_DOUBT = re.compile(
    r"\b(?:could|may|might|possibly|possible|perhaps|maybe|conceivably|suspicion)\b|可能", re.IGNORECASE
)
_SURE = re.compile(r"\b(?:most|more|very|highly)\s+(?:likely|probably|probable)\b|最可能", re.IGNORECASE)
# "A, B and D can be ruled out": what is said after a list with its "and" or "or" is said of each of it.
_LIST = (
    rf"(?:(?:\s*(?:[,/&{MARK}]|(?:and|or|nor|both|an?|the)\b))*\s*(?:\b(?:and|or|nor)\b|&|/)\s*(?:the\s+|an?\s+)?{MARK}"
    r"(?!\s+(?:is|was|has|does)\b))?"  # "and B is wrong" says it of B alone
)
_VERB = (
    r"\s*(?:is|are|was|were|be|been|seems?|appears?|looks?|can|could|may|might|would|should|has|have|do|does|did|must|will)\b"
    r"(?:\s+(?:is|are|was|were|be|been|have|has|to|also|all|both|each|quite|very|therefore|thus|clearly|rather|still|now|here))*"
)
_SAID = (
    rf"^(?:(?:\s+(?!(?:and|or|but|with|is|are|was|were|can|has|have)\b)[\w\-]+){{0,2}}?{_LIST}{_VERB}|(?:\s+here)?)\s*"
)
_AFTER_NO = re.compile(
    rf"{_SAID}\b(?:(?:the\s+)?least\s+likely|not(?!\s+(?:the\s+|an?\s+)?{MARK})|unlikely|absent|"
    r"excluded|ruled\s+out|incorrect|wrong|false|rejected|eliminated|implausible|"
    r"negative|out\s+of|inconsistent|improbable|excludable|never)\b|^\s*(?:不太可能|不对|错误|"
    r"(?:可以?)?排除|不正确)",
    re.IGNORECASE,
)
_BEST = (
    r"(?:most\s+(?:likely|probable|plausible|appropriate|suitable|consistent)|likely|correct|right|best|leading|preferred|"
    r"recommended|only|answer|diagnosis|one|next)\b"
)
_AFTER_UNSETTLED = re.compile(
    rf"{_SAID}\b(?:(?:not|neither)\s+(?:\w+\s+){{0,3}}(?:excluded|ruled\s+out|exclude|confirmed|assumed|established|proven)|needs?|requires?|would|should|usually|"
    r"typically|often|tends?|commonly|classically|generally|normally|differs?|causes?|refers?|means|less\s+likely|vs\b|versus|"
    r"(?:has|have|had)\s+(?:been\s+)?(?:resolved|treated|removed|drained|healed|cleared)|resolved|expected|considered\b(?!\s+\w)|defined\b|"
    r"one\s+(?:would\s+)?expects?)\b|^[^.;,]*\b(?:would|one\s+expects)\b"
    rf"|^{_LIST}\s+(?:can|may|could|might)\s+(?:also\s+)?(?!be\b|not\b|also\b|have\b)\w+"
    r"|^\s+(?:is|are)\s+(?:an?\s+|the\s+(?!least\s+likely\b)(?!" + _BEST + "))",
    re.IGNORECASE,
)
_AFTER_WAS = re.compile(rf"^{_LIST}\s*(?:was|seemed|looked)\b[^.]*\b(?:but|at\s+first|initially)\b", re.IGNORECASE)
_AFTER_DOUBT = re.compile(
    rf"{_SAID}\b(?:possible|conceivable|a\s+possibility|plausible|in\s+the\s+differential|suspected)\b"
    rf"|^{_LIST}\s*(?:also\s+)?(?:could|may|might)\b",
    re.IGNORECASE,
)
_CROSS, _TICK = "\u274c\u2717\u2718\u2716\u00d7", "\u2705\u2713\u2714\u2611"
_VERDICT_NO = re.compile(
    rf"^\s*(?:[:?=(,|\u2192]|\s-)?\s*(?:[{_CROSS}]|(?:no|not\s+(?:seen|present|visible|found|shown)|none|absent|incorrect|wrong|false|rejected|unlikely)\b(?!\s+\w+\s*$)"
    r"(?=\s*(?:$|[.,;:)|\n\u274c]|-\s)))",
    re.IGNORECASE,
)
_VERDICT_YES = re.compile(
    rf"^\s*(?:[:?=(,|\u2192]|\s-|(?:is|seems|looks)\b)?\s*(?:[{_TICK}]|(?:yes|correct|right|true|present)\b(?=\s*(?:$|[.,;:)|!\n\u2705]|-\s))"
    r"|^\s*[:|]\s*(?:seen|visible|found|shown)\b(?=\s*(?:$|[.,;|\n])))",
    re.IGNORECASE,
)
_DECIDED = re.compile(
    r"(?:\b(?:so|therefore|thus|hence|consequently|accordingly|in\s+conclusion|conclude\w*|(?:must|has\s+to|have\s+to)\s+be)\b"
    rf"[^{MARK}.;]{{0,60}}|(?:\u2192|->|=>|=)\W*|因此[^,.;]{{0,12}}|"
    r"\b(?:choose|chose|pick|select|go(?:ing)?\s+(?:with|for)|opt\s+for|settle\s+on|would\s+say|"
    r"(?:most|more)\s+(?:likely|probably|probable)|(?<!less\s)(?<!un)(?:likely|probably)|"
    r"most\s+(?:consistent|compatible|suggestive|typical|characteristic)\s+(?:with|of)|"
    r"lean(?:s|ing)?\s+to(?:wards?)?|I\s+(?:would\s+)?(?:recommend|advise|suggest|propose)|best\s+(?:fits?|matches|described\s+(?:as|by)|answer\s+is|option\s+is)|"
    r"favou?r(?:s|ed|ing)?|leaves|leaving|diagnosis\s+(?:is|of)|(?:answer|option|choice)\s+(?:is|would\s+be))"
    r"\W*(?:\w+\W+){0,4})$",
    re.IGNORECASE,
)
_BESIDE = re.compile(
    r"\b(?:alongside|(?:adjacent|next|close|anterior|posterior|lateral|medial|superior|inferior)\s+to|near|beside|behind|beneath|"
    r"above|below)\s+(?:the\s+|an?\s+)?(?:\w+\s+)?$",
    re.IGNORECASE,
)
_MAKES = re.compile(r"\b(?:makes?|making)\s+(?:the\s+|an?\s+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """What a sentence does with a mention. decided: it is the sentence's conclusion, choice or verdict."""

    stand: Stand
    decided: bool = False


def reading(before: str, after: str) -> Reading:
    """Return what a sentence does with what stands between `before` and `after`."""
    if _VERDICT_NO.match(after):
        return Reading("denied", True)
    if _VERDICT_YES.match(after):
        return Reading("affirmed", True)
    if before.rstrip().endswith(tuple(_CROSS + _TICK)):
        return Reading("denied" if before.rstrip()[-1] in _CROSS else "affirmed", True)
    before = _IF_CHOOSING.sub("", before)
    own, behind = before[_last_clause(before) :], after[: _clause_end(after)]
    if re.search(
        r"\b(?:if|unless|whether)\b[^,]*$|,\s*(?:as|so)\s+(?:is|are|was|were|can|could|may|might)\s+(?:the\s+|an?\s+)?$",
        before,
        re.IGNORECASE,
    ):
        return Reading("open")
    if after.rstrip().endswith("?"):
        return Reading("open")
    if NOT_TRUE.search(before):
        return Reading("open")
    if re.match(
        rf"^\s+would\s+be\s+(?:my|the)\s+(?:(?:first|best)\s+)?(?:choice|pick|guess|{_BEST})", behind, re.IGNORECASE
    ):
        return Reading("affirmed", True)
    if REPORTED.search(own):
        return Reading("open")
    if _AFTER_UNSETTLED.match(behind) or _AFTER_WAS.match(behind) or _ABANDONED.search(own):
        return Reading("open")
    if _UNSETTLED.search(own) or _LIMIT.search(own):
        return Reading("open")
    denial = _denied_before(own, behind)
    if denial is not None:
        return Reading(denial)
    if _AFTER_NO.match(behind):
        return Reading("denied")
    decided = bool(
        _DECIDED.search(before)
        or re.match(r"^\s+(?:it\s+(?:is|must\s+be)\W*$|(?:fits|matches)\s+(?:\w+\s+)?(?:better|best)\b)", behind)
        or (_MAKES.search(before) and re.match(r"^\s+the\s+(?:most\s+likely|best|correct|leading)\b", behind))
        or re.match(rf"^\s+(?:is|are|seems?)\s+(?:(?:more|most)\s+(?:likely|probable)\b|(?:the|my)\s+{_BEST})", behind)
    )
    if _BESIDE.search(own):
        return Reading("doubted")
    if (_DOUBT.search(own) or _AFTER_DOUBT.match(behind)) and not _SURE.search(own):
        return Reading("doubted")
    return Reading("affirmed", decided)


def _last_clause(before: str) -> int:
    found = list(_CLAUSE.finditer(before))
    return found[-1].end() if found else 0


def _clause_end(after: str) -> int:
    found = _CLAUSE.search(after)
    return found.start() if found else len(after)


def _denied_before(own: str, behind: str) -> Stand | None:
    """Return what a negation before makes of a mention; None where none stands in its clause."""
    if _NO_CJK.search(own):
        return "denied"
    nos = list(_NO.finditer(own))
    if not nos:
        return None
    between = own[nos[-1].end() :]
    if re.search(r"\bbut\b|\bexcept\b", between, re.IGNORECASE):
        return None
    parts = between.split(",")
    anew = re.search(r"(?:,|\band)\s*(?:the\s+|an?\s+)?$", between) and re.match(
        r"\s*(?:is|are|was|were|can|has|have)\b", behind
    )
    if _WEAKENED.search(between):
        return "open"
    if anew:  # "effusion is not seen and pneumonia is present"
        return None if nos[-1].group().lower() == "not" else "open"
    if len(parts) > 1:
        listed = re.search(r"\b(?:or|nor)\b", between + behind, re.IGNORECASE)
        joined = re.search(r"\band\b", between + behind, re.IGNORECASE)
        if not (listed or joined):
            return None
        if any(len(part.split()) > _REACH for part in parts):
            return "open"
        return "denied" if listed or nos[-1].group().lower() != "not" else "open"
    reach = re.split(r"\b(?:or|nor|and)\b", between)[-1]
    return "denied" if len(reach.split()) <= _REACH else "open"
