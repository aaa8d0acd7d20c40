"""`infimed verify`: every file of a bundle against its manifest. Knows how to ask and how to tell, no hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..runtime.bundle import Bundle
from ..runtime.events import Event
from .printable import printable
from .progress import drawn


def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder that `infimed export` wrote.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the levels and their digests as JSON.")] = False,
) -> None:
    """Check every file of a bundle against its manifest, before any parser sees a byte of it.

    A changed, missing or extra file, or a link, is refused with exit code 1.
    """
    seen_bytes = 0
    with drawn() as on_event:

        def on_file(path: str, size_bytes: int) -> None:
            nonlocal seen_bytes
            seen_bytes += size_bytes
            on_event(Event("verify", seen_bytes, 0, "bytes", path))

        opened = Bundle.open(bundle, on_file)
    manifest = opened.manifest
    digests = {entry.name: manifest.level_digest(entry.name) for entry in manifest.levels}
    if as_json:
        typer.echo(json.dumps({"verified": True, "files": len(manifest.files), "levels": digests}, indent=2))
        return
    typer.echo(f"{printable(str(bundle))}: {len(manifest.files)} files, {seen_bytes:,} bytes, as the manifest says")
    for name, digest in digests.items():
        typer.echo(f"  {name:16} {digest}")
