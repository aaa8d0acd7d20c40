"""What is said to a model: messages made of texts and images, in their order.

Knows nothing of templates, tokens or files. All types pickle, so that an engine may live in another process.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class TextPart:
    """A piece of text, as the user wrote it."""

    text: str


@dataclass(frozen=True, eq=False)
class ImagePart:
    """An upright RGB image before any resizing.

    rgb: (height, width, 3), uint8; a copy that cannot be written to, unless the array given is such already.
    """

    rgb: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise ValueError(f"an image is uint8 (height, width, 3), not {self.rgb.dtype} {self.rgb.shape}")
        if _writable(self.rgb):
            frozen = self.rgb.copy()
            frozen.setflags(write=False)
            object.__setattr__(self, "rgb", frozen)

    def __reduce__(self) -> tuple[type[ImagePart], tuple[NDArray[np.uint8]]]:
        return ImagePart, (self.rgb,)

    @cached_property
    def key(self) -> str:
        """sha256 over the size and the pixels: equal keys are equal images."""
        digest = hashlib.sha256(repr(self.rgb.shape).encode())
        digest.update(np.ascontiguousarray(self.rgb).tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImagePart) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _writable(array: NDArray[np.uint8]) -> bool:
    """Return whether anybody can still change the values, through this array or through one that it is a view of."""
    link: object = array
    while isinstance(link, np.ndarray):
        if link.flags.writeable:
            return True
        link = link.base
    return not isinstance(link, (bytes, type(None)))


Part = TextPart | ImagePart


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, and the texts and images in their order."""

    role: Role
    parts: tuple[Part, ...]


def user(*parts: str | Part) -> Message:
    """Return a user's message; plain strings become text parts."""
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def assistant(text: str) -> Message:
    """Return an assistant's message of one text."""
    return Message("assistant", (TextPart(text),))
