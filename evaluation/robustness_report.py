"""What the probes found, as frozen records with a JSON round trip. docs/robustness.md defines every figure.

Knows no statistics and no layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..runtime.files import canonical_json
from .drift_figures import Share
from .drift_report import ReportError
from .jsonform import FormError, from_json, parse, to_json
from .verdict import Verdict

SCHEMA = "infimed.robustness/1"


def label_of(probe: str, severity: int) -> str:
    """Return a probe's name with its severity: "shuffle", "blur-3"."""
    return f"{probe}-{severity}" if severity else probe


@dataclass(frozen=True)
class Reason:
    """Why a probe leaves examples out, and how many. text: the reason. examples: left out for it."""

    text: str
    examples: int


@dataclass(frozen=True)
class Named:
    """A figure that one probe alone has. name: such as "takes up a wrong hint". share: of the rows it speaks of."""

    name: str
    share: Share


@dataclass(frozen=True)
class Quadrants:
    """Items by whether all variants agree (stable) and whether the grey image changes the answer (sees the image).

    stable_seeing, unstable_seeing, unstable_blind: items. stable_blind: the dangerous corner, with its interval.
    """

    stable_seeing: int
    unstable_seeing: int
    unstable_blind: int
    stable_blind: Share


@dataclass(frozen=True)
class ProbeFigures:
    """One run under one probe. key: "same", "mirrored", "abstain" or "other".

    items: examples covered; rows: questions asked of them. clean: right answers to these examples without the probe;
    probed: right answers to the rows. robust: examples with every variant right (and the clean one, where the key is
    the same or mirrored). consistency: examples whose variants all say the same as the clean run, by content (or its
    mirror image); flips: rows that say something else. quadrants: of these examples. missing: why consistency is not
    told. named: further figures.
    """

    run: str
    probe: str
    severity: int
    key: str
    items: int
    clusters: int
    rows: int
    clean: Share
    probed: Share
    robust: Share | None
    consistency: Share | None
    flips: Share | None
    quadrants: Quadrants | None
    missing: str
    named: tuple[Named, ...]

    @property
    def label(self) -> str:
        """The probe with its severity."""
        return label_of(self.probe, self.severity)


@dataclass(frozen=True)
class Measured:
    """A figure of one run with a two-sided 95 % cluster-robust interval.

    name: of the figure. items: what it is measured on. value: the figure. lower, upper: the interval.
    """

    run: str
    name: str
    items: int
    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Contrast:
    """Level x probe: does the level lose more under the probe than the reference does?

    reference: the run that it is held against. reference_clean, reference_probed, level_clean, level_probed: the four
    accuracies, 0..1. excess: (level under the probe - level clean) - (reference under the probe - reference clean),
    accuracies over the same examples; negative: the level loses more. lower, upper: its one-sided 95 % cluster-robust
    bounds, which decide. p_more: against "the excess loss is at most the margin"; p_more_holm: adjusted over the
    level's judged probes.
    """

    run: str
    reference: str
    probe: str
    severity: int
    margin: float
    items: int
    clusters: int
    reference_clean: float
    reference_probed: float
    level_clean: float
    level_probed: float
    excess: float
    lower: float
    upper: float
    verdict: Verdict
    reason: str
    p_more: float
    p_more_holm: float | None = None

    @property
    def label(self) -> str:
        """The probe with its severity."""
        return label_of(self.probe, self.severity)


@dataclass(frozen=True)
class Asked:
    """What a probe asked: the same for every run.

    says: what the probe does. examples: of the dataset. items: those it covers. rows: questions asked of them.
    left_out: why the others are not covered.
    """

    probe: str
    severity: int
    key: str
    says: str
    examples: int
    items: int
    rows: int
    left_out: tuple[Reason, ...]

    @property
    def label(self) -> str:
        """The probe with its severity."""
        return label_of(self.probe, self.severity)


@dataclass(frozen=True)
class Robustness:
    """Everything the probes found in a folder of runs.

    reference: the run that levels are held against. asked: what each probe asked. figures: each run under each probe.
    contrasts: each level under each probe against the reference.
    reliance: accuracy with the image minus accuracy with mid grey. relative: mean over severities of accuracy under a
    corruption over clean accuracy, by corruption. position_bias: total variation between the places of the answers
    given and of the keys. not_read: runs of probes without their clean run, and why they are not told.
    """

    dataset: str
    dataset_sha256: str
    reference: str
    asked: tuple[Asked, ...]
    figures: tuple[ProbeFigures, ...]
    reliance: tuple[Measured, ...]
    relative: tuple[Measured, ...]
    position_bias: tuple[Measured, ...]
    contrasts: tuple[Contrast, ...]
    not_read: tuple[str, ...]
    schema: str = SCHEMA

    def to_bytes(self) -> bytes:
        """Return the findings as JSON: same findings, same bytes."""
        return canonical_json(to_json(self))

    @classmethod
    def read(cls, path: Path) -> Robustness:
        """Read robustness.json. Raises ReportError."""
        try:
            return from_json(cls, parse(path.read_bytes(), path.name), path.name)
        except (OSError, FormError) as error:
            raise ReportError(f"{path} holds no findings of probes ({error}); make them with infimed drift") from None
