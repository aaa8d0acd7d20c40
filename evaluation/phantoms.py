"""Phantom examples: pictures and questions as a dataset, or as a stream that is never written.

The same kinds, numbers and seed give the same bytes. Knows no model and no role but those it is told to write.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, image_ref, write_dataset
from .example import JSON, Example, ImageRef, Role, TextRef
from .phantom_images import KINDS, Kind, Phantom, PhantomError, kinds_named, phantom
from .phantom_questions import TASKS, Question, questions

SOURCE = "infimed-phantoms"
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
    if not 1 <= images <= MOST_IMAGES:
        raise PhantomError(f"{images} images cannot be made; ask for 1 to {MOST_IMAGES}")
    for number in range(images):
        yield phantom(kinds[number % len(kinds)], seed, number // len(kinds))


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
    return Example(
        id=f"{one.id}-{number:02d}",
        content=(ref, TextRef(question.text)),
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
    kept = [question for question in questions(one, kinds) if question.task in tasks]
    if per_image is None or len(kept) <= per_image:
        return tuple(kept)
    rng = np.random.Generator(np.random.PCG64([one.seed, list(KINDS).index(one.kind.modality), one.index, 2]))
    return tuple(kept[int(index)] for index in sorted(rng.permutation(len(kept))[:per_image]))


def write_phantoms(
    folder: str | os.PathLike[str],
    images: int,
    seed: int,
    modalities: Sequence[str] = tuple(KINDS),
    *,
    named: Sequence[str] | None = None,
    tasks: Sequence[str] = TASKS,
    per_image: int | None = None,
    roles: Mapping[Role, float] | None = None,
    name: str = "phantoms",
    overwrite: bool = False,
) -> Dataset:
    """Write a dataset of phantoms and open it.

    images: in all, the modalities in turn. named: modalities that options may name (default: `modalities`, but never
    fewer than two). tasks: asked about. per_image: at most so many questions each (default: all). roles: role -> share
    of the images, in order of their numbers (default: no role). Raises PhantomError or DatasetError.
    """
    kinds = kinds_named(modalities)
    options = kinds_named(named if named is not None else modalities if len(kinds) > 1 else tuple(KINDS))
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise PhantomError(f"task {', '.join(unknown) or '(none)'} is not asked; choose among {', '.join(TASKS)}")
    if twice := next((name for number, name in enumerate(modalities) if name in modalities[:number]), None):
        raise PhantomError(f"modality {twice} is named twice; name each once")
    if per_image is not None and per_image < 1:
        raise PhantomError(f"{per_image} questions an image cannot be asked; ask for 1 or more")
    examples: list[Example] = []
    files: dict[str, bytes] = {}
    for number, one in enumerate(phantoms(kinds, images, seed)):
        data = png_bytes(one.rgb)
        ref = image_ref(data)
        files[ref.path] = data
        role = _role(number, images, roles or {"": 1.0})
        kept = asked_of(one, options, tasks, per_image)
        examples += [example_of(one, question, index, ref, role) for index, question in enumerate(kept)]
    if not examples:
        raise PhantomError(
            f"{images} images of {', '.join(modalities)} bring no question of {', '.join(tasks)}; ask for more images"
        )
    made_by = f"phantoms seed {seed}, {images} images of {', '.join(modalities)}"
    return write_dataset(
        folder,
        examples,
        files,
        name=name,
        inputs={"phantoms": hashlib.sha256(made_by.encode()).hexdigest()},
        details={
            "seed": seed, "images": images, "modalities": list(modalities), "tasks": list(tasks),
            "per_image": per_image,
        },
        overwrite=overwrite,
    )  # fmt: skip


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
