"""`infimed export`: a checkpoint becomes a bundle. Knows how to ask and how to tell, no format."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runtime.backend import MAX_THREADS
from ..runtime.levels import LEVELS
from ..runtime.levels import level as level_row
from .printable import printable
from .progress import drawn, time_text

if TYPE_CHECKING:
    from ..export.export_bundle import Exported


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A folder in the Hugging Face layout.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", help="The bundle's folder: new, empty, or a bundle to add to.", show_default=False)
    ],
    level: Annotated[
        list[str],
        typer.Option(
            "--level",
            help=f"A level to write; again for more. One of {', '.join(row.name for row in LEVELS)}.",
            show_default=False,
        ),
    ],
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="A dataset; its calibration rows make calibrated levels (+imatrix, static int8) and join the golden "
            "prompts of a new bundle, images and all.",
        ),
    ] = None,
    probes: Annotated[
        int, typer.Option("--probes", min=6, max=10_000, help="Golden prompts drawn, and as many calibration rows.")
    ] = 48,
    license: Annotated[
        str | None, typer.Option("--license", help="The checkpoint's licence, for the manifest; unknown by default.")
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="Hold the graph against torch, and measure each level.")
    ] = True,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=MAX_THREADS, help="Processor threads; default all.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print sizes, disk, memory and about how long it takes; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print sizes and distances as JSON.")] = False,
) -> None:
    """Turn a checkpoint into a bundle of quantised levels.

    Each format's full-precision level is built and held against the torch reference first: pixels, tokens, positions,
    vision, and the logits of the reply. If one differs nothing is written and the exit code is 1. Then every level is
    run on this machine and its distance to the reference is recorded in the bundle.

    Given a bundle of the same checkpoint, the levels that it lacks are added; those it holds are left as they are.
    Broken off, the same command goes on where it was and ends with the same bytes.
    """
    if dry_run:
        _tell_outlook(checkpoint, level, calibration, probes, license, gate, threads, out, as_json)
        return
    from ..export.export_bundle import export_bundle

    with drawn() as on_event:
        made = export_bundle(
            checkpoint,
            out,
            level,
            calibration=calibration,
            probe_count=probes,
            license=license,
            gate=gate,
            threads=threads,
            on_event=on_event,
        )
    if as_json:
        typer.echo(json.dumps(_as_json(made), indent=2))
    else:
        for line in _as_lines(made):
            typer.echo(line)


def _tell_outlook(
    checkpoint: Path,
    levels: list[str],
    calibration: Path | None,
    probes: int,
    license: str | None,
    gate: bool,
    threads: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Print what an export would take."""
    from ..export.outlook import outlook
    from ..runtime.open_engine import default_threads

    found = outlook(
        checkpoint,
        levels,
        probes=probes,
        gate=gate,
        threads=threads or default_threads(),
        calibration=calibration,
        out=out,
        license=license,
    )
    if as_json:
        typer.echo(json.dumps({**asdict(found), "seconds": found.seconds}, indent=2))
        return
    typer.echo(f"{'level':26}{'weights':>13}{'own files':>13}{'about':>12}")
    for row in found.levels:
        remark = "" if row.asked else "   judged, then removed"
        sizes = f"{row.weight_bytes / 1e6:>10,.2f} MB{row.own_bytes / 1e6:>10,.2f} MB"
        typer.echo(f"{row.level:26}{sizes}{time_text(row.seconds):>12}{remark}")
    if gate:
        typer.echo(f"reference, gate and each level's distance: about {time_text(found.gate_seconds)}")
    if any(level_row(row.level).calibrated for row in found.levels):
        typer.echo("the pass of torch over the calibration rows is not counted")
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    typer.echo(f"disk {found.disk_bytes / 1e6:,.1f} MB at its fullest, {free / 1e6:,.0f} MB free")
    typer.echo(
        f"memory about {found.memory_bytes / 1e6:,.0f} MB; all about {time_text(found.seconds)}; nothing written, no "
        "weight checked"
    )


def _as_json(made: Exported) -> dict[str, object]:
    manifest = made.bundle.manifest
    return {
        "pixel_difference": made.pixel_difference,
        "gate": [parity.to_json() for parity in made.gate],
        "written": list(made.written),
        "levels": [
            {
                **parity.to_json(),
                "weight_bytes": made.bundle.entry(parity.level).weight_bytes,
                "digest": manifest.level_digest(parity.level),
            }
            for parity in made.levels
        ],
    }


def _as_lines(made: Exported) -> list[str]:
    from ..runtime.open_engine import computed_as

    lines = [] if made.written else ["the bundle holds every level that was asked for; nothing was written"]
    seeing = bool(made.bundle.manifest.preprocessing)
    if made.gate and seeing:
        difference = f"largest pixel difference {made.pixel_difference:.1g}"
        lines.append(f"pixels, token ids and positions equal transformers ({difference})")
    elif made.gate:
        lines.append("token ids and positions equal transformers; no tower: the model takes no images")
    lines += [
        *(
            f"parity gate  {parity.level:13} mean KL {parity.kl_mean_nats:.1e} nats over {parity.rows} rows"
            f"{f', vision {parity.vision:.1e}' if seeing else ''}: held"
            for parity in made.gate
        ),
        f"{'level':26}{'weights':>12}{'mean KL':>12}{'max KL':>12}{'top-1':>8}",
    ]
    measured = {parity.level: parity for parity in made.levels}
    for entry in made.bundle.manifest.levels:
        line = f"{entry.name:26}{entry.weight_bytes / 1e6:>9.2f} MB"
        if parity := measured.get(entry.name):
            line += f"{parity.kl_mean_nats:>12.2e}{parity.kl_max_nats:>12.2e}{parity.top1:>8.1%}"
            line += f"  {computed}" if (computed := computed_as(entry.name)) else ""
        else:
            line += "   held already" if entry.name not in made.written else "   written and not measured (--no-gate)"
        lines.append(line)
    lines.append(f"bundle: {printable(str(made.bundle.folder))}")
    return lines
