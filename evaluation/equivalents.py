"""Names for one and the same thing on the axes of this house: modality, plane, projection, weighting, side.

A closed table of names, no medicine: members of one axis exclude each other, names of one member are the same. Knows
no reply and no question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# axis -> member -> its names, as words of reply_text.words
AXES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "modality": {
        "xray": ("x-ray", "xray", "x ray", "x-rays", "radiograph", "radiography", "plain film", "plain radiograph"),
        "ct": ("ct", "ct scan", "computed tomography", "computerized tomography", "cat scan"),
        "mri": ("mri", "mr", "mri scan", "mr imaging", "magnetic resonance imaging", "magnetic resonance"),
        "ultrasound": ("ultrasound", "ultrasonography", "sonography", "sonogram", "echography"),
        "oct": ("oct", "optical coherence tomography"),
        "fundus": ("fundus photograph", "fundus photography", "fundus photo"),
        "pet": ("pet", "pet scan", "positron emission tomography"),
        "mammography": ("mammogram", "mammography"),
    },
    "plane": {
        "axial": ("axial", "transverse", "transaxial"),
        "sagittal": ("sagittal",),
        "coronal": ("coronal",),
    },
    "projection": {
        "pa": ("pa", "posteroanterior", "postero-anterior"),
        "ap": ("ap", "anteroposterior", "antero-posterior"),
        "lateral": ("lateral",),
    },
    "weighting": {
        "t1": ("t1", "t1-weighted", "t1w", "t1 weighted"),
        "t2": ("t2", "t2-weighted", "t2w", "t2 weighted"),
        "flair": ("flair",),
        "dwi": ("dwi", "diffusion-weighted", "diffusion weighted"),
    },
}
_WHOLE = {"both": ("bilateral", "bilaterally"), "bilateral": ("both",)}


def _spellings(names: Sequence[str]) -> list[list[str]]:
    return [name.split() for name in names]


def other_names(wanted: Sequence[str]) -> list[list[str]]:
    """Return the other names of what the words of an option name as a whole; "both lungs" is "bilateral"."""
    if wanted and wanted[0] in _WHOLE and len(wanted) <= 2:
        return _spellings(_WHOLE[wanted[0]])
    for members in AXES.values():
        for names in members.values():
            spelt = _spellings(names)
            if list(wanted) in spelt:
                return [name for name in spelt if name != list(wanted)]
    return []


def named_members(said: Sequence[str], axis: str) -> list[tuple[str, int]]:
    """Return (member, place of its first word) for every name of an axis in a text's words, the longest at a place."""
    found: list[tuple[str, int]] = []
    at = 0
    while at < len(said):
        best = max(
            (
                (len(spelt), member)
                for member, names in AXES[axis].items()
                for spelt in _spellings(names)
                if list(said[at : at + len(spelt)]) == spelt
            ),
            default=None,
        )
        if best is None:
            at += 1
            continue
        found.append((best[1], at))
        at += best[0]
    return found
