"""The probes that change the picture alone: corruptions, and the picture of somebody else. The words stay as they are.

Each is one function of the table in probes.py. Knows no pixels: a row names the change, corruptions.py makes it.
"""

from __future__ import annotations

from .example import Example, ImageRef
from .probe import Ask, LeftOut, Outcome, Picture, Setting, variant

NO_PICTURE = "shows no picture"


def corruption(change: str) -> Ask:
    """Return the probe that shows every image of an example with this change, in the setting's severity.

    All questions about one image see the same changed image. The grain and the direction of a change are the image's
    own, the same in every severity.
    """

    def corrupted(example: Example, setting: Setting) -> Outcome:
        """Show the images changed; the key stays."""
        if not example.images:
            return LeftOut(NO_PICTURE)
        seed = setting.number(1 << 32, change, *(ref.sha256 for ref in example.images))
        return (variant(example, "changed", picture=Picture(change, setting.severity, seed)),)

    return corrupted


def swapped(example: Example, setting: Setting) -> Outcome:
    """Show the images of another group, of another modality where the pool has one; all questions of an image the same.

    The key is kept to count answers that are given all the same.
    """
    own = example.images
    if not own:
        return LeftOut(NO_PICTURE)
    start = setting.number(max(1, len(setting.shown)), "swap", example.group, *(ref.sha256 for ref in own))
    turned = (*setting.shown[start:], *setting.shown[:start])
    fit = [
        shown
        for shown in turned
        if len(shown.images) == len(own) and shown.group != example.group and not set(shown.images) & set(own)
    ]
    if not fit:
        return LeftOut("the data hold no picture of another patient to show in its place")
    chosen = next((shown for shown in fit if shown.modality != example.modality), fit[0])
    other = iter(chosen.images)
    content = tuple(next(other) if isinstance(part, ImageRef) else part for part in example.content)
    return (variant(example, "swapped", "abstain", content=content),)
