"""A bundle that is there already gets further levels: its files join the new ones, unchanged, under the same digests.

Files are linked, not copied, where the file system can, in the last moment before the two folders change their names:
a bundle whose files have a second name does not verify. Knows files and manifests, no format.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import InfimedError
from ..runtime.bundle import Bundle
from ..runtime.manifest import ATTESTATIONS, MANIFEST, MANIFEST_SHA256, SHARED, FileEntry
from ..runtime.prompt import Prompter
from ..training.checkpoint import Checkpoint


class ExtendError(InfimedError):
    """The bundle that is there was made from something else; levels cannot be added to it."""


def is_bundle(folder: Path) -> bool:
    """Return whether a folder holds a bundle, verified or not."""
    return (folder / MANIFEST).is_file() and (folder / MANIFEST_SHA256).is_file()  # a dataset has a manifest as well


def made_from(checkpoint: Checkpoint, prompter: Prompter) -> dict[str, Any]:
    """Return what a bundle must have been made from so that levels of a checkpoint can join it."""
    return {
        "family": prompter.family.name,
        "preprocessing": prompter.preprocessing,
        "checkpoint_sha256": checkpoint.sha256,
    }


def check_extends(bundle: Bundle, wanted: Mapping[str, Any], license: str | None) -> None:
    """Raise ExtendError unless the bundle was made from the same: family, preprocessing, checkpoint, licence.

    wanted: what `made_from` says of the checkpoint that is to be exported.
    """
    manifest = bundle.manifest
    held: dict[str, Any] = {
        "family": manifest.family,
        "preprocessing": dict(manifest.preprocessing),
        "checkpoint_sha256": manifest.provenance.get("checkpoint_sha256"),
    }
    different = [key for key, value in wanted.items() if held[key] != value]
    if different:
        raise ExtendError(
            f"{bundle.folder} is a bundle of another checkpoint ({', '.join(different)} differ); name a new folder"
        )
    if license is not None and license != manifest.license:
        raise ExtendError(
            f"{bundle.folder} states the licence {manifest.license!r}, not {license!r}; name a new folder"
        )


def release(bundle_folder: Path, draft: Path) -> None:
    """Remove from a draft what an earlier, killed run linked from the bundle, so that the bundle verifies again."""
    for place, _, names in os.walk(draft):
        for name in names:
            linked = Path(place) / name
            original = bundle_folder / linked.relative_to(draft)
            if original.is_file() and os.path.samestat(linked.lstat(), original.lstat()):
                linked.unlink()


def adopt(bundle: Bundle, draft: Path, own: Mapping[str, FileEntry]) -> None:
    """Put every file of the bundle into the draft, attestations too, but for the manifest.

    own: the draft's files, described before this: nothing long is done while the bundle's have a second name. A shared
    file that the draft has made anew must have the same bytes: other levels depend on it. Raises ExtendError.
    """
    shutil.rmtree(draft / ATTESTATIONS, ignore_errors=True)
    attested = (bundle.folder / ATTESTATIONS).glob("*.json")
    for path in (*bundle.manifest.files, *(f"{ATTESTATIONS}/{file.name}" for file in attested)):
        original, place = bundle.folder / path, draft / path
        if place.is_file():
            if own[path] == bundle.manifest.files[path]:
                continue  # the draft's own, so that a kill after this takes nothing from it
            if path.startswith(f"{SHARED}/"):
                raise ExtendError(
                    f"{path} comes out otherwise than in {bundle.folder}, which another version of infimed or of a "
                    "library wrote; export to a new folder"
                )
            place.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(original, place)
        except OSError:  # a file system without hard links
            shutil.copyfile(original, place)
