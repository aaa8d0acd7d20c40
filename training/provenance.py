"""Where a product comes from: sha256 digests of the recipe and of every input, kept beside it in `infimed.json`.

Knows no time, no path and no host name, so that the same inputs give the same bytes anywhere.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import InfimedError, __version__
from ..runtime.files import canonical_json, sha256_file, write_bytes

PROVENANCE_FILE = "infimed.json"


class ProvenanceError(InfimedError):
    """A provenance file that is missing or says nothing that can be used."""


@dataclass(frozen=True)
class Provenance:
    """One step of the chain.

    step: "base", "sft", "merge". inputs: what it was made from -> sha256, such as {"base": ..., "dataset": ...}.
    recipe_sha256: of the recipe's exact bytes, "" for a step without one. libraries: those whose version can change
    the bytes. licences: of the rows it was trained on, licence -> rows. attest: what was measured when it was made.
    """

    step: str
    inputs: Mapping[str, str]
    recipe_sha256: str = ""
    seed: int | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, int] = field(default_factory=dict)
    attest: Mapping[str, Any] = field(default_factory=dict)
    infimed: str = __version__

    def write(self, folder: Path) -> None:
        """Write `infimed.json` into `folder`."""
        write_bytes(folder / PROVENANCE_FILE, canonical_json({"schema": 1, **asdict(self)}))

    @staticmethod
    def read(folder: Path) -> Provenance:
        """Return the provenance of the product in `folder`."""
        path = folder / PROVENANCE_FILE
        try:
            raw = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ProvenanceError(f"{path}: no readable provenance ({error}); make the product again") from None
        if not isinstance(raw, dict) or raw.pop("schema", None) != 1:
            raise ProvenanceError(f"{path}: not a provenance file of schema 1; make the product again")
        try:
            return Provenance(**raw)
        except TypeError as error:
            raise ProvenanceError(f"{path}: {error}; make the product again") from None


def sha256_files(paths: Iterable[Path]) -> str:
    """Return one digest over several files of a folder: sha256 of the sorted lines `<sha256>  <name>`, each with LF."""
    lines = sorted((path.name, sha256_file(path)) for path in paths)
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in lines).encode("utf-8")).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of `packages`."""
    return {name: importlib.metadata.version(name) for name in packages}
