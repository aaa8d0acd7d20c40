"""Phantom examples: pictures and questions as a dataset, or as a stream that is never written.

The same kinds, numbers and seed give the same bytes. Knows no model and no role but those it is told to write.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, image_ref, write_dataset
from .example import JSON, Content, Example, ImageRef, Role, TextRef
from .phantom_images import KINDS, Kind, Phantom, PhantomError, generator, kinds_named, phantom
from .phantom_pairs import TASK as CHANGE
from .phantom_pairs import Case, change_case
from .phantom_questions import TASKS, Question, questions
from .phantom_reports import TASK as AGREEMENT
from .phantom_reports import report_case
from .record import PHANTOMS as SOURCE

SINGLE = "single"
CASES: Mapping[str, Callable[[Kind, int, int], Case]] = {CHANGE: change_case, AGREEMENT: report_case}
FAMILIES = (SINGLE, *CASES)
LICENCE = "Apache-2.0"
MOST_IMAGES = 1_000_000


def png_bytes(rgb: NDArray[np.uint8]) -> bytes:
    """Return the picture as a PNG file with fixed settings."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, format="PNG", compress_level=6, optimize=False)
    return stream.getvalue()


def phantoms(kinds: Sequence[Kind], images: int, seed: int) -> Iterator[Phantom]:
    """Yield `images` phantoms, the kinds in turn, number 0 upwards of each kind's series `seed`."""
    if not kinds:
        raise PhantomError(f"no kind of phantom is named; choose among {', '.join(KINDS)}")
    _refuse_number(images)
    for number in range(images):
        yield phantom(kinds[number % len(kinds)], seed, number // len(kinds))


def _refuse_number(images: int) -> None:
    if not 1 <= images <= MOST_IMAGES:
        raise PhantomError(f"{images} images cannot be made; ask for 1 to {MOST_IMAGES}")


def example_of(one: Phantom, question: Question, number: int, ref: ImageRef, role: Role = "") -> Example:
    """Return question `number` about a phantom as an example; its group is the phantom."""
    lesions: list[JSON] = [
        {"x_px": round(at.x_px, 3), "y_px": round(at.y_px, 3), "radius_px": round(at.radius_px, 3),
         "contrast": round(at.contrast, 4)}
        for at in one.lesions
    ]  # fmt: skip
    attributes: Mapping[str, JSON] = {
        "wording": question.wording, "lesions": lesions, "side": one.side, "size": one.size, "half": one.half,
        "finding": one.kind.finding,
    }  # fmt: skip
    return _asked(one, question, number, (ref,), attributes, role)


def _asked(
    one: Phantom | Case,
    question: Question,
    number: int,
    shown: tuple[Content, ...],
    attributes: Mapping[str, JSON],
    role: Role,
) -> Example:
    """Return question `number` about what is shown before it; the group is the phantom or the case."""
    return Example(
        id=f"{one.id}-{number:02d}",
        content=(*shown, TextRef(question.text)),
        answer=question.answer,
        options=question.options,
        answer_type=question.answer_type,
        modality=one.kind.modality,
        task=question.task,
        source=SOURCE,
        license=LICENCE,
        group=one.id,
        role=role,
        attributes=attributes,
    )


def asked_of(one: Phantom, kinds: Sequence[Kind], tasks: Sequence[str], per_image: int | None) -> tuple[Question, ...]:
    """Return the questions about a phantom that are kept: those of `tasks`, at most `per_image`, drawn by its seed."""
    rng = np.random.Generator(np.random.PCG64([one.seed, list(KINDS).index(one.kind.modality), one.index, 2]))
    return _drawn(questions(one, kinds), tasks, per_image, rng)


def _drawn(
    asked: Sequence[Question], tasks: Sequence[str], most: int | None, rng: np.random.Generator
) -> tuple[Question, ...]:
    kept = [question for question in asked if question.task in tasks]
    if most is None or len(kept) <= most:
        return tuple(kept)
    return tuple(kept[int(index)] for index in sorted(rng.permutation(len(kept))[:most]))


def case_examples(
    one: Case, asked: Sequence[Question], refs: Sequence[ImageRef], role: Role = ""
) -> tuple[Example, ...]:
    """Return the questions about a case of several parts as examples; their group is the case."""
    shown = tuple(refs[part] if isinstance(part, int) else TextRef(part) for part in one.parts)
    return tuple(
        _asked(one, question, number, shown, {"wording": question.wording, **one.attributes}, role)
        for number, question in enumerate(asked)
    )


def write_phantoms(
    folder: str | os.PathLike[str],
    images: int,
    seed: int,
    modalities: Sequence[str] = tuple(KINDS),
    *,
    families: Sequence[str] = (SINGLE,),
    named: Sequence[str] | None = None,
    tasks: Sequence[str] = (*TASKS, *CASES),
    per_image: int | None = None,
    roles: Mapping[Role, float] | None = None,
    name: str = "phantoms",
    overwrite: bool = False,
) -> Dataset:
    """Write a dataset of phantoms and open it.

    images: pictures and cases in all, the families in turn, and in each the modalities. families: of FAMILIES, "single"
    pictures or cases of several parts. named: modalities that options may name (default: `modalities`, but never
    fewer than two). tasks: asked about. per_image: at most so many questions each (default: all). roles: role -> share
    of the images, in order of their numbers (default: no role). Raises PhantomError or DatasetError.
    """
    _refuse_number(images)
    kinds = kinds_named(modalities)
    options = kinds_named(named if named is not None else modalities if len(kinds) > 1 else tuple(KINDS))
    for what, given, known in (("task", tasks, (*TASKS, *CASES)), ("family", families, FAMILIES)):
        unknown = [name for name in given if name not in known]
        if unknown or not given:
            raise PhantomError(f"{what} {', '.join(unknown) or '(none)'} is not asked; choose among {', '.join(known)}")
    for what, given in (("modality", modalities), ("family", families)):
        if twice := next((name for number, name in enumerate(given) if name in given[:number]), None):
            raise PhantomError(f"{what} {twice} is named twice; name each once")
    if per_image is not None and per_image < 1:
        raise PhantomError(f"{per_image} questions an image cannot be asked; ask for 1 or more")
    examples: list[Example] = []
    files: dict[str, bytes] = {}
    shares = roles or {"": 1.0}

    def kept(pictures: Sequence[NDArray[np.uint8]]) -> list[ImageRef]:
        refs = []
        for rgb in pictures:
            data = png_bytes(rgb)
            refs.append(image_ref(data))
            files[refs[-1].path] = data
        return refs

    for place, family in enumerate(families):
        own = len(range(place, images, len(families)))
        if own and family == SINGLE:
            for number, one in enumerate(phantoms(kinds, own, seed)):
                role, (ref,) = _role(number, own, shares), kept([one.rgb])
                asked = asked_of(one, options, tasks, per_image)
                examples += [example_of(one, question, index, ref, role) for index, question in enumerate(asked)]
        elif own:
            for number, case in enumerate(_cases(family, kinds, own, seed)):
                draw = generator(seed, case.kind, number // len(kinds), 2)
                questions_kept = _drawn(case.asked, tasks, per_image, draw)
                if questions_kept:
                    role = _role(number, own, shares)
                    examples += case_examples(case, questions_kept, kept(case.pictures), role)
    if not examples:
        raise PhantomError(
            f"{images} images of {', '.join(modalities)} bring no question of {', '.join(tasks)}; ask for more images"
        )
    made_by = f"phantoms seed {seed}, {images} images of {', '.join(modalities)}"
    if tuple(families) != (SINGLE,):
        made_by += f", families {', '.join(families)}"
    return write_dataset(
        folder,
        examples,
        files,
        name=name,
        inputs={"phantoms": hashlib.sha256(made_by.encode()).hexdigest()},
        details={
            "seed": seed, "images": images, "families": list(families), "modalities": list(modalities),
            "tasks": list(tasks), "per_image": per_image,
        },
        overwrite=overwrite,
    )  # fmt: skip


def _cases(family: str, kinds: Sequence[Kind], cases: int, seed: int) -> Iterator[Case]:
    """Yield `cases` cases of a family, the kinds in turn, number 0 upwards of each kind's series `seed`."""
    for number in range(cases):
        yield CASES[family](kinds[number % len(kinds)], seed, number // len(kinds))


def _role(number: int, images: int, roles: Mapping[Role, float]) -> Role:
    """Return the role of image `number`: the first images get the first role, by its share, and so on."""
    total = sum(roles.values())
    if total <= 0 or min(roles.values()) < 0:
        raise PhantomError(f"shares of roles {dict(roles)} must be 0 or more and not all 0")
    reached = 0.0
    for role, share in roles.items():
        reached += share / total
        if number < round(reached * images):
            return role
    return list(roles)[-1]
