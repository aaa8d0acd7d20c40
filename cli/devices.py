"""`infimed devices` and `infimed plan`: tables of what devices are and of what fits them. Computes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..devices.memory import Use
from ..devices.plan import Fit, advice, best, bounded
from ..devices.plan import plan as plan_levels
from ..devices.profiles import GB, PROFILES, DeviceProfile, device
from ..devices.weights import read_planned
from ..runtime.events import Event
from .progress import drawn

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="Look at the devices that can be planned for.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _marked(row: DeviceProfile, field: str, text: str) -> str:
    return f"{text}*" if field in row.unverified else text


def _figures(row: DeviceProfile) -> dict[str, str]:
    """Return a device's figures for a person, unverified ones marked with a star."""
    tops = f"{row.int8_dense_tops:g}" if row.int8_dense_tops is not None else "-"
    return {
        "memory GB": f"{row.memory_bytes / GB:g}",
        "for programs GB": f"{row.available_bytes / GB:g}",
        "GB/s": _marked(row, "bandwidth_bytes_per_s", f"{row.bandwidth_bytes_per_s / GB:g}"),
        "GPU sm": row.gpu_sm or "-",
        "INT8 TOPS dense": _marked(row, "int8_dense_tops", tops),
        "power": _marked(row, "power_modes", " ".join(row.power_modes)),
        "JetPack": row.jetpack or "-",
    }


def _as_json(row: DeviceProfile) -> dict[str, Any]:
    return {**asdict(row), "unverified": sorted(row.unverified), "available_bytes": row.available_bytes}


def _table(columns: Sequence[str], right: Sequence[str] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _print(*parts: Any) -> None:
    """Print on stdout, as wide as the table needs where no terminal sets a width."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    for part in parts:
        console.print(part)


@app.command("list")
def list_devices(as_json: AsJson = False) -> None:
    """List every device with its memory, bandwidth, GPU and power modes."""
    if as_json:
        typer.echo(json.dumps([_as_json(row) for row in PROFILES], indent=2))
        return
    table = _table(["name", *_figures(PROFILES[0])], ["memory GB", "for programs GB", "GB/s", "INT8 TOPS dense"])
    for row in PROFILES:
        table.add_row(row.name, *_figures(row).values())
    _print(table, "* widely quoted, not re-checked. GB = 10^9 bytes.")


@app.command("show")
def show_device(
    name: Annotated[str, typer.Argument(help="A name from `infimed devices list`.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show everything that is known of one device."""
    row = device(name)
    if as_json:
        typer.echo(json.dumps(_as_json(row), indent=2))
        return
    table = _table(["", row.title])
    for title, text in _figures(row).items():
        table.add_row(title, text)
    measured = row.read_bandwidth_bytes_per_s is not None
    read = f"{row.read_bytes_per_s() / GB:.1f}"
    table.add_row("GB/s read by the processor", read if measured else f"{read} (assumed)")
    if row.remark:
        table.add_row("remark", row.remark)
    _print(table, *(["* widely quoted, not re-checked"] if row.unverified else []))


def _fit_row(found: Fit, chosen: bool) -> tuple[str, ...]:
    memory, rate = found.memory, found.rate.tokens_per_s
    verdict = f"yes, {found.spare_bytes / GB:.2f} left" if found.fits else f"no, {-found.spare_bytes / GB:.2f} short"
    parts = (
        memory.weights_bytes,
        memory.vision_weights_bytes,
        memory.kv_cache_bytes,
        memory.vision_activations_bytes,
        memory.working_bytes + memory.libraries_bytes,
        memory.total_bytes,
    )
    return (
        f"[bold]{found.level}[/bold]" if chosen else found.level,
        f"{found.engine}, {'GPU' if found.backend == 'cuda' else 'CPU'}",
        *(f"{part / GB:.2f}" for part in parts),
        f"[green]{verdict}[/green]" if found.fits else f"[red]{verdict}[/red]",
        f"{rate:.1f}" if rate is not None else "-",
        "best" if chosen else "",
    )


def _fit_json(found: Fit) -> dict[str, Any]:
    return {
        **asdict(found),
        "memory": {**asdict(found.memory), "total_bytes": found.memory.total_bytes},
        "spare_bytes": found.spare_bytes,
        "fits": found.fits,
    }


def plan(
    model: Annotated[Path, typer.Argument(help="A checkpoint or a bundle.", show_default=False)],
    device_name: Annotated[str, typer.Option("--device", help="A name from `infimed devices list`.")],
    context: Annotated[
        int, typer.Option(help="Tokens of prompt, images and reply together, at most the model's limit.")
    ] = 4096,
    image_side: Annotated[int, typer.Option(help="Side of the largest image in pixels; 0: none.")] = 448,
    min_rate: Annotated[float, typer.Option(help="Tokens per second that the best level must reach.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what fits on a device, how fast it decodes there, and the best level that does.

    Nothing is exported or loaded. Exit code 1 where no level fits. TensorRT levels are left out: nothing was measured.
    """
    row = device(device_name)
    use = Use(context_tokens=context, image_pixels=image_side * abs(image_side))
    seen_bytes = 0
    with drawn() as on_event:

        def on_file(path: str, size_bytes: int) -> None:
            nonlocal seen_bytes
            seen_bytes += size_bytes
            on_event(Event("verify", seen_bytes, 0, "bytes", path))

        planned = read_planned(model, on_file)
    use = bounded(planned, use)
    fits = plan_levels(planned, row, use)
    chosen = best(fits, min_rate)
    # A level that fits but is too slow needs no advice on memory.
    help_text = "" if any(found.fits for found in fits) else advice(planned, fits, row, use)
    if as_json:
        body = {
            "device": row.name,
            "context_tokens": use.context_tokens,
            "max_context_tokens": planned.max_tokens,
            "image_pixels": use.image_pixels,
            "best": chosen.level if chosen else None,
            "advice": help_text,
            "levels": [_fit_json(found) for found in fits],
        }
        typer.echo(json.dumps(body, indent=2))
    else:
        _show_plan(planned.source, row, use, context > use.context_tokens, fits, chosen, help_text)
    if chosen is None:
        raise typer.Exit(1)


def _show_plan(
    source: str, row: DeviceProfile, use: Use, shortened: bool, fits: Sequence[Fit], chosen: Fit | None, help_text: str
) -> None:
    columns = ["level", "engine", "weights", "vision", "KV cache", "image", "work", "total GB", "fits", "tokens/s", ""]
    table = _table(columns, ["weights", "vision", "KV cache", "image", "work", "total GB", "tokens/s"])
    for found in fits:
        table.add_row(*_fit_row(found, found is chosen))
    side = math.isqrt(use.image_pixels)
    images = f"images up to {side} x {side} pixels" if side else "no images"
    limit = " (the model takes no more)" if shortened else ""
    sizes = "sizes of the bundle's files" if source == "bundle" else "sizes predicted from the checkpoint's shape"
    lines = [
        f"{row.title}: {row.available_bytes / GB:g} of {row.memory_bytes / GB:g} GB are for programs, "
        f"{row.bandwidth_bytes_per_s / GB:g} GB/s",
        f"{use.context_tokens:,} context tokens{limit}, {images}; {sizes}",
        "",
    ]
    bases = {found.engine: found.rate.basis for found in fits if found.rate.tokens_per_s is None}
    notes = [f"no rate for {engine}: {basis}" for engine, basis in bases.items()]
    if chosen:
        layers = f", {chosen.gpu_layers} layers on the GPU" if chosen.gpu_layers else ""
        notes.append(f"best: {chosen.level} ({chosen.engine}{layers})")
        if chosen.rate.tokens_per_s is not None:
            notes.append(f"its rate rests on this: {chosen.rate.basis}")
    elif help_text:
        notes.append(help_text)
    else:
        notes.append("levels fit, but none is predicted to decode as fast as asked")
    _print(*lines, table, "", *notes)
