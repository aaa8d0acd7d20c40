"""Dense supervision of the vision tower: what each image token covers, and what the whole image holds.

A model that only answers questions does not learn to see in an hour of two cores; told token by token where the lesions
are, it does in minutes. The heads are thrown away afterwards. Knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .. import MissingExtra
from ..evaluation.phantom_canvas import SIZE_PX
from ..evaluation.phantom_images import Phantom

if TYPE_CHECKING:
    import torch

COVERED = 0.08  # share of a token's area that lesions cover at least where the token counts as showing one
PATCH_COVERED = 0.12  # the same for a patch
PATCH_WEIGHT = 2.0  # of the patches' loss among the others
PATCH_CLASSES = ("nothing", "small lesion", "large lesion", "decoy", "line")
SIZES = {None: 0, "small": 1, "large": 2}
SIDES = {None: 0, "left": 1, "right": 2}
HALVES = {None: 0, "upper": 1, "lower": 2}
POOLED = ("kind", "count", "size", "side", "half")  # what the mean of the tokens must tell


@dataclass(frozen=True)
class DenseTargets:
    """What is true of a batch of images; p patches and t tokens each. All int64.

    patches: (images, p), what a patch mostly shows, a number of PATCH_CLASSES; p in the vision tower's order.
    shows: (images, t), 1 where lesions cover a token. centres: (images, t), how many centres lie in it, at most 2.
    token_size: (images, t), size of what it shows. kind, count, size, side, half: (images,).
    """

    patches: NDArray[np.int64]
    shows: NDArray[np.int64]
    centres: NDArray[np.int64]
    token_size: NDArray[np.int64]
    kind: NDArray[np.int64]
    count: NDArray[np.int64]
    size: NDArray[np.int64]
    side: NDArray[np.int64]
    half: NDArray[np.int64]


def dense_targets(phantoms: Sequence[Phantom], kinds: Sequence[str], patch_px: int, merge: int) -> DenseTargets:
    """Return the targets of these phantoms. kinds: modalities by number. merge: patches to a token's side."""
    token_px = patch_px * merge
    shows, centres, token_size = [], [], []
    for one in phantoms:
        covered, centred = _cover(one, token_px)
        shows.append((covered >= COVERED) | (centred > 0))
        centres.append(np.minimum(centred, 2))
        token_size.append(shows[-1] * SIZES[one.size])
    return DenseTargets(
        np.array([_patches(one, patch_px, merge) for one in phantoms], dtype=np.int64),
        np.array(shows, dtype=np.int64),
        np.array(centres, dtype=np.int64),
        np.array(token_size, dtype=np.int64),
        np.array([kinds.index(one.kind.modality) for one in phantoms], dtype=np.int64),
        np.array([len(one.lesions) for one in phantoms], dtype=np.int64),
        np.array([SIZES[one.size] for one in phantoms], dtype=np.int64),
        np.array([SIDES[one.side] for one in phantoms], dtype=np.int64),
        np.array([HALVES[one.half] for one in phantoms], dtype=np.int64),
    )


def _patches(phantom: Phantom, patch_px: int, merge: int) -> NDArray[np.int64]:
    """Return what each patch shows, the patches of a token following each other; lesions go before decoys and lines."""
    side = SIZE_PX // patch_px
    found = np.zeros((side, side), dtype=np.int64)
    for mask, least, number in (
        (phantom.marks.lines > 0.5, 0.06, PATCH_CLASSES.index("line")),
        (phantom.marks.decoys > 0.02, PATCH_COVERED, PATCH_CLASSES.index("decoy")),
        (phantom.marks.lesions > 0.02, PATCH_COVERED, SIZES[phantom.size]),
    ):
        found[mask.reshape(side, patch_px, side, patch_px).mean(axis=(1, 3)) >= least] = number
    return found.reshape(side // merge, merge, side // merge, merge).transpose(0, 2, 1, 3).reshape(-1)


def _cover(phantom: Phantom, token_px: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return, per token in row order, the share of its area that lesions cover, and how many centres lie in it."""
    side = SIZE_PX // token_px
    at = np.arange(SIZE_PX) + 0.5
    covered = np.zeros((SIZE_PX, SIZE_PX), dtype=bool)
    centred = np.zeros((side, side), dtype=np.int64)
    for lesion in phantom.lesions:
        covered |= (at[None, :] - lesion.x_px) ** 2 + (at[:, None] - lesion.y_px) ** 2 <= lesion.radius_px**2
        centred[int(lesion.y_px) // token_px, int(lesion.x_px) // token_px] += 1
    share = covered.reshape(side, token_px, side, token_px).mean(axis=(1, 3))
    return share.reshape(-1), centred.reshape(-1)


def dense_heads(width: int, patch_width: int, kinds: int, tokens: int, seed: int) -> torch.nn.ModuleDict:
    """Return the linear heads: "patch" reads the last layer's patches, token_* every token, image_* their mean."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra("train", "torch") from error
    side = int(tokens**0.5)
    classes = {
        "token_shows": 2, "token_centres": 3, "token_size": 3, "token_row": side, "token_column": side,
        "image_kind": kinds, "image_count": 4, "image_size": 3, "image_side": 3, "image_half": 3,
    }  # fmt: skip
    torch.manual_seed(seed)
    heads = {name: torch.nn.Linear(width, number) for name, number in classes.items()}
    return torch.nn.ModuleDict(heads | {"patch": torch.nn.Linear(patch_width, len(PATCH_CLASSES))})


def dense_loss(
    heads: torch.nn.ModuleDict, patches: torch.Tensor, features: torch.Tensor, targets: DenseTargets
) -> torch.Tensor:
    """Return the sum of the heads' cross-entropies.

    patches: (images, patches, patch width), of the last layer. features: (images, tokens, width). Both float32.
    """
    import torch

    images, tokens, _ = features.shape
    side = int(tokens**0.5)
    index = np.arange(tokens)
    wanted = {
        "token_shows": targets.shows,
        "token_centres": targets.centres,
        "token_size": targets.token_size,
        "token_row": np.tile(index // side, (images, 1)),
        "token_column": np.tile(index % side, (images, 1)),
    }
    said = heads["patch"](torch.nn.functional.layer_norm(patches, patches.shape[-1:]))
    loss = PATCH_WEIGHT * torch.nn.functional.cross_entropy(
        said.reshape(-1, len(PATCH_CLASSES)), torch.from_numpy(targets.patches.reshape(-1))
    )
    for name, target in wanted.items():
        logits = heads[name](features).reshape(images * tokens, -1)
        loss = loss + torch.nn.functional.cross_entropy(logits, torch.from_numpy(target.reshape(-1)))
    mean = features.mean(dim=1)
    for name in POOLED:
        known = torch.from_numpy(getattr(targets, name))
        loss = loss + torch.nn.functional.cross_entropy(heads[f"image_{name}"](mean), known)
    return loss
