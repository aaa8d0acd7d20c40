"""The table of probes: one row each, its function, what it does and which key its rows have.

A new probe is one function and one row. The grey image is a probe too, but its run is the `.grey` run that drift needs
anyway. Knows no engine.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from .corruptions import CHANGES, SEVERITIES
from .example import JSON, Example, ImageRef
from .mirror import mirrored
from .probe import Ask, KeyKind, LeftOut, Picture, Probed, ProbeError, Setting, all_shown, variant
from .probe_parts import LEAVE_OUT, left_out
from .probe_pictures import NO_PICTURE, corruption, swapped
from .probe_texts import attribute_pair, false_premise, none_of_the_above, paraphrased, shuffled, sycophancy

GREY_PROBE = "grey"
ALL = "all"


@dataclass(frozen=True)
class Probe:
    """One row of the table. graded: it has severities 1 to 5. changes_picture: its rows show made pictures."""

    ask: Ask
    key: KeyKind
    says: str
    graded: bool = False
    changes_picture: bool = False


def _grey(example: Example, setting: Setting) -> tuple[Probed, ...] | LeftOut:
    """Show mid grey of the image's size."""
    if not example.images:
        return LeftOut(NO_PICTURE)
    return (variant(example, "grey", "abstain", picture=Picture("grey", 0, 0)),)


PROBES: dict[str, Probe] = {
    "shuffle": Probe(shuffled, "same", "the options in every other order of a circle"),
    "paraphrase": Probe(paraphrased, "same", "the question in up to two other wordings that mean the same"),
    "sycophancy": Probe(sycophancy, "same", '"I think the answer is X.", with a wrong X and with the right one'),
    "attribute-pair": Probe(attribute_pair, "other", "yes or no for the right option and for a wrong one"),
    "none-of-the-above": Probe(none_of_the_above, "other", "that option in place of the right one, and of a wrong one"),
    "false-premise": Probe(false_premise, "other", 'the side of what is not there; "there is none" is offered'),
    GREY_PROBE: Probe(_grey, "abstain", "no picture: mid grey of its size", changes_picture=True),
    "swap": Probe(swapped, "abstain", "the picture of another patient and modality"),
    LEAVE_OUT: Probe(left_out, "abstain", "one part (an image, a report) is left out, each in turn"),
    "mirror": Probe(mirrored, "mirrored", "picture and words with left and right exchanged", changes_picture=True),
    **{
        name: Probe(corruption(name), "same", change.says, graded=True, changes_picture=True)
        for name, change in CHANGES.items()
        if change.graded
    },
}


@dataclass(frozen=True)
class ProbeSpec:
    """A probe as it is asked for. severity: 1 to 5 for graded ones, else 0."""

    name: str
    severity: int = 0
    seed: int = 0

    @property
    def label(self) -> str:
        """The name that runs and files carry: "shuffle", "blur-3"."""
        return f"{self.name}-{self.severity}" if self.severity else self.name

    @property
    def row(self) -> Probe:
        """The row of the table."""
        return PROBES[self.name]


def parse_probes(texts: Sequence[str], seed: int = 0) -> tuple[ProbeSpec, ...]:
    """Return the probes of NAME or NAME:SEVERITY, each once, in the table's order.

    A graded probe without a severity is asked in all five; "all" is every probe of the table. Raises ProbeError.
    """
    wanted: set[tuple[str, int]] = set()
    for text in texts:
        name, colon, severity = text.partition(":")
        if text == ALL:
            wanted |= {(each, step) for each, row in PROBES.items() for step in (SEVERITIES if row.graded else (0,))}
            continue
        if name not in PROBES:
            raise ProbeError(f"there is no probe {name!r}; choose among {ALL}, {', '.join(PROBES)}")
        steps = {str(step): step for step in SEVERITIES}
        if colon and not PROBES[name].graded:
            graded = ", ".join(each for each, row in PROBES.items() if row.graded)
            raise ProbeError(f"{text}: {name} has no severities; {graded} have, 1 to 5")
        if colon and severity not in steps:
            raise ProbeError(f"{text}: the severity is 1, 2, 3, 4 or 5, not {severity!r}")
        wanted |= {
            (name, step) for step in ((steps[severity],) if colon else SEVERITIES if PROBES[name].graded else (0,))
        }
    order = list(PROBES)
    return tuple(ProbeSpec(*one, seed) for one in sorted(wanted, key=lambda one: (order.index(one[0]), one[1])))


@dataclass(frozen=True)
class ProbedItems:
    """What a probe makes of examples. left_out: how many it does not cover, by reason. shown_by: images by example."""

    spec: ProbeSpec
    rows: tuple[Probed, ...]
    left_out: Mapping[str, int]
    shown_by: Mapping[str, tuple[ImageRef, ...]]

    @property
    def items(self) -> int:
        """How many examples the probe covers."""
        return len({row.of for row in self.rows})

    @property
    def sha256(self) -> str:
        """One sha256 over all rows: words, keys, names of images and how they are changed."""
        digest = hashlib.sha256()
        for row in self.rows:
            made: JSON = asdict(row.picture) if row.picture else None
            parts = (row.of, row.variant, row.key, row.example.to_json(), made)
            digest.update((json.dumps(parts, sort_keys=True, ensure_ascii=False) + "\n").encode())
        return digest.hexdigest()


def probed_items(spec: ProbeSpec, examples: Sequence[Example]) -> ProbedItems:
    """Apply a probe to examples, in their order; other pictures are taken from among them."""
    rows: list[Probed] = []
    left_out: Counter[str] = Counter()
    setting = Setting(spec.seed, spec.severity, all_shown(examples))
    for example in examples:
        found = spec.row.ask(example, setting)
        if isinstance(found, LeftOut):
            left_out[found.reason] += 1
        else:
            rows += found
    shown_by = {example.id: example.images for example in examples}
    return ProbedItems(spec, tuple(rows), dict(sorted(left_out.items())), shown_by)
