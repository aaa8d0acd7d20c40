"""The table of wordings that ask the same: a row is a family, its forms are exchanged for one another.

A new wording is a form of a row; a new meaning is a row. The grammar of the forms is wordings.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .wording_forms import Family

PRESENCE = (
    Family(
        "presence of one",
        (
            "Is there {one}?",
            "Is there {one} in this image?",
            "Is there {one} in the image?",
            "Is {one} present?",
            "Is {one} present in this image?",
            "Does this image show {one}?",
            "Does the image show {one}?",
        ),
    ),
    Family(
        "presence of a mass",
        (
            "Is there {mass}?",
            "Is there {mass} in this image?",
            "Is there {mass} in the image?",
            "Is {mass} present?",
            "Is {mass} present in this image?",
        ),
    ),
    Family(
        "presence of many",
        (
            "Are there {many}?",
            "Are there {many} in this image?",
            "Are there {many} in the image?",
            "Are {many} present?",
            "Are {many} present in this image?",
        ),
    ),
)
FAMILIES = (
    *PRESENCE,
    Family(
        "presence of the", ("Is {the} present?", "Is {the} present in this image?", "Is {the} visible in this image?")
    ),
    Family(
        "presence somewhere",
        ("Is there {one} {where}?", "Does this image show {one} {where}?", "Can {one} be seen {where}?"),
    ),
    Family(
        "what it shows",
        (
            "Does this image show {any}?",
            "Does the image show {any}?",
            "Can {any} be seen in this image?",
            "Is it true that this image shows {any}?",
        ),
    ),
    Family(
        "which",
        (
            "Which {what} is shown?",
            "What {what} is shown?",
            "Which {what} is shown in this image?",
            "Which {what} is shown in the image?",
            "What {what} does this image show?",
            "What {what} does this image depict?",
            "Which {what} can be seen in this image?",
        ),
    ),
    Family(
        "which was imaged",
        ("Which {what} was imaged?", "What {what} was imaged?", "Of which {what} was this image taken?"),
    ),
    Family(
        "modality",
        (
            "Which imaging modality was used to acquire this image?",
            "What imaging modality was used to acquire this image?",
            "Which imaging modality is this?",
            "With which imaging modality was this image acquired?",
        ),
    ),
    Family(
        "kind of image",
        ("What kind of image is this?", "What type of image is this?", "Which kind of image is this?"),
        ("modality",),
    ),
    Family(
        "kind of imaging",
        (
            "What type of imaging is shown?",
            "What kind of imaging is shown?",
            "Which type of imaging is this?",
        ),
        ("modality",),
    ),
    Family(
        "how it was made",
        (
            "How was this image made?",
            "How was this image obtained?",
            "How was this image acquired?",
        ),
        ("modality",),
    ),
    Family(
        "what is shown", ("What does the image show?", "What does this image show?", "What is shown in this image?")
    ),
    Family(
        "count",
        (
            "How many {many} are there?",
            "How many {many} are there in this image?",
            "What is the number of {many} in this image?",
            "How many {many} does this image show?",
            "How many {many} can be seen in this image?",
        ),
    ),
    Family(
        "estimate",
        (
            "Roughly how many {many} are visible?",
            "About how many {many} are visible?",
            "Estimate the number of {many}.",
        ),
    ),
    Family("size of one", ("How large is {the}?", "How big is {the}?")),
    Family("size of many", ("How large are {the}?", "How big are {the}?")),
    Family("size", ("What is the size of {the}?", "Which size best describes {the}?")),
    Family(
        "side",
        (
            "On which side of the image {be} {the}?",
            "On what side of the image {be} {the}?",
            "Which side of the image {be} {the} on?",
        ),
    ),
    Family(
        "side affected",
        (
            "Which side of the image is affected?",
            "What side of the image is affected?",
            "On which side is the image affected?",
        ),
    ),
    Family("place of one", ("Is {the} {half}?", "Does {the} lie {half}?")),
    Family("place of many", ("Are {the} {half}?", "Do {the} lie {half}?")),
    Family(
        "part",
        (
            "In which part of the image {be} {the}?",
            "In what part of the image {be} {the}?",
            "Which part of the image {be} {the} in?",
        ),
    ),
    Family("where", ("Where {be} {the} located?", "Where {be} {the}?")),
    Family("where in the image", ("Where in the image {be} {the} located?", "Where in the image {be} {the}?")),
    Family(
        "quadrant",
        (
            "In which quadrant of the image does {the} lie?",
            "Which image quadrant contains {the}?",
            "Which quadrant of the image contains {the}?",
        ),
    ),
    Family(
        "likely diagnosis",
        (
            "What is the most likely diagnosis?",
            "Which diagnosis is the most likely?",
            "What is the most probable diagnosis?",
        ),
    ),
    Family(
        "fitting diagnosis",
        (
            "Which diagnosis best fits this image?",
            "Which diagnosis fits this image best?",
            "What diagnosis best fits this image?",
        ),
    ),
    Family("abnormality", ("What abnormality is seen?", "Which abnormality is seen?", "What abnormality can be seen?")),
    Family("main finding", ("Name the main finding.", "What is the main finding?", "State the main finding.")),
    Family("abnormal", ("Is the image abnormal?", "Is this image abnormal?", "Does the image look abnormal?")),
    Family(
        "projection",
        (
            "In which projection was the film taken?",
            "In what projection was the film taken?",
            "Which projection was used for the film?",
        ),
    ),
    Family(
        "projection of a radiograph",
        (
            "Which projection was used for this radiograph?",
            "What projection was used for this radiograph?",
            "In which projection was this radiograph taken?",
        ),
    ),
    Family(
        "view of a chest",
        (
            "What is the view of this chest radiograph?",
            "Which view of the chest does this radiograph show?",
        ),
    ),
    Family(
        "plane of a slice",
        (
            "In which anatomical plane is this slice?",
            "In what anatomical plane is this slice?",
            "Which anatomical plane is this slice in?",
        ),
    ),
    Family(
        "orientation of a slice",
        (
            "What is the orientation of this slice?",
            "Which orientation does this slice have?",
        ),
    ),
    Family("eye", ("Which eye is shown in this fundus photograph?", "Which eye does this fundus photograph show?")),
    Family("eye of two", ("Is this the left or the right eye?", "Which eye is this, the left or the right?")),
    Family("side of a retina", ("Which side does this retina belong to?", "To which side does this retina belong?")),
)


def family_of(question: str, task: str) -> tuple[Family, int, Mapping[str, str]] | None:
    """Return the first family that covers a question, the number of its form and what fills its slots."""
    for family in FAMILIES:
        if (not family.tasks or task in family.tasks) and (found := family.parse(question)):
            return family, *found
    return None


def other_wordings(question: str, task: str) -> tuple[str, ...]:
    """Return every other wording of a question, in the family's order; none where no form covers it."""
    found = family_of(question.strip(), task)
    if found is None:
        return ()
    family, number, slots = found
    return tuple(form.format(**slots) for index, form in enumerate(family.forms) if index != number)


def asked_presence(question: str) -> str | None:
    """Return what a question asks the presence of, without article: "nodule"; None where it asks something else."""
    for family in PRESENCE:
        if found := family.parse(question.strip()):
            thing = next(iter(found[1].values()))
            return re.sub(r"^(?:evidence of |an? signs? of )?(?:(?:an?|any|the) )?", "", thing)
    return None


def are_many(question: str) -> bool:
    """Return whether a presence question asks after several things."""
    return question.strip().startswith("Are ")
