"""`infimed verify`: a bundle's files against its manifest, and its levels against the model they were made of.

Knows how to ask and how to tell; no hash and no engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runtime.backend import MAX_THREADS
from ..runtime.bundle import Bundle
from ..runtime.events import Event, OnEvent
from .printable import printable
from .progress import drawn

if TYPE_CHECKING:
    from ..export.certificate import Certificate, Finding

ATTESTATION = "certificate"


def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder that `infimed export` wrote.", show_default=False)],
    parity: Annotated[
        bool, typer.Option("--parity", help="Also run the golden prompts and certify graph, kernels and drift.")
    ] = False,
    level: Annotated[
        list[str] | None, typer.Option("--level", help="Certify this level; again for more. Default all.")
    ] = None,
    probes: Annotated[
        int | None,
        typer.Option("--probes", min=1, help="Golden prompts to take, spread over their kinds; default all."),
    ] = None,
    drift_limit: Annotated[
        float | None, typer.Option("--drift-limit", min=0.0, help="Fail a level whose mean KL exceeds this, in nats.")
    ] = None,
    attest: Annotated[bool, typer.Option("--attest", help="Write each certificate into the bundle.")] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=MAX_THREADS, help="Processor threads; default all.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Where dequantised weights are written and removed: 8 bytes per weight."),
    ] = None,
    silence: Annotated[
        float, typer.Option("--silence", min=1.0, help="Seconds without a sign of life after which a level has failed.")
    ] = 1800.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check every file of a bundle against its manifest, before any parser sees a byte of it.

    A changed, missing or extra file, or a link, is refused with exit code 1. With --parity each level is then run on
    this machine, in a process of its own, and three statements are made: is its graph the model's, do its kernels round
    no more than clean models show, and how far does it drift from unquantised torch. Exit code 1 if one fails.
    """
    if not parity and (given := [name for name, value in _for_parity(level, probes, drift_limit, attest) if value]):
        raise typer.BadParameter(f"{given[0]} is for certificates; give --parity too")
    seen_bytes = 0
    with drawn() as on_event:

        def on_file(path: str, size_bytes: int) -> None:
            nonlocal seen_bytes
            seen_bytes += size_bytes
            on_event(Event("verify", seen_bytes, 0, "bytes", path))

        opened = Bundle.open(bundle, on_file)
        names = [opened.entry(name).name for name in dict.fromkeys(level or [])]
        found = []
        for name in (names or [entry.name for entry in opened.manifest.levels]) if parity else []:
            found.append(_certify(opened, name, probes, threads, drift_limit, work, silence, on_event))
            if attest:
                opened.attest(ATTESTATION, name, found[-1].to_json())
    manifest = opened.manifest
    digests = {entry.name: manifest.level_digest(entry.name) for entry in manifest.levels}
    if as_json:
        told: dict[str, object] = {"verified": True, "files": len(manifest.files), "levels": digests}
        if parity:
            told["certificates"] = [certificate.to_json() for certificate in found]
        typer.echo(json.dumps(told, indent=2))
    else:
        typer.echo(f"{printable(str(bundle))}: {len(manifest.files)} files, {seen_bytes:,} bytes, as the manifest says")
        width = max(16, *map(len, digests))
        for name, digest in digests.items():
            typer.echo(f"  {name:{width}} {digest}")
        for certificate in found:
            for line in certificate_lines(certificate):
                typer.echo(printable(line))
    if not all(certificate.held for certificate in found):
        raise typer.Exit(1)


def _for_parity(
    level: list[str] | None, probes: int | None, drift_limit: float | None, attest: bool
) -> list[tuple[str, bool]]:
    return [
        ("--level", bool(level)),
        ("--probes", probes is not None),
        ("--drift-limit", drift_limit is not None),
        ("--attest", attest),
    ]


def _certify(
    bundle: Bundle,
    name: str,
    probes: int | None,
    threads: int | None,
    drift_limit: float | None,
    work: Path | None,
    silence: float,
    on_event: OnEvent,
) -> Certificate:
    from ..export.certify import certify

    return certify(
        bundle,
        name,
        probes=probes,
        threads=threads,
        drift_limit_nats=drift_limit,
        work=work,
        silence_s=silence,
        on_event=on_event,
    )


def certificate_lines(certificate: Certificate) -> list[str]:
    """Return a certificate as a table for a person: a line per statement, and one per finding under it."""
    prompts = ", ".join(f"{count} {kind}" for kind, count in certificate.probes.items())
    note = f" ({certificate.computed_as})" if certificate.computed_as else ""
    lines = ["", f"{certificate.level}{note}   {sum(certificate.probes.values())} golden prompts ({prompts})"]
    lines.append(f"  {'':8}{'stage':16}{'value':>10}{'limit':>10}  verdict")
    for statement in certificate.statements:
        for place, finding in enumerate(statement.findings):
            lines.append(f"  {statement.kind if not place else '':8}{_row(finding)}")
    failure = certificate.failure
    verdict = "held" if failure is None else f"FAILED at {failure[0]}: {failure[1].stage}"
    lines.append(f"  certificate{note}: {verdict}")
    return lines


def _row(finding: Finding) -> str:
    value = "" if finding.value is None else f"{finding.value:.2g}"
    limit = "" if finding.limit is None else f"{finding.limit:.2g}"
    verdict = finding.verdict.upper() if finding.verdict in ("failed", "not run") else finding.verdict
    said = "; ".join(part for part in (finding.unit, finding.said) if part)
    return f"{finding.stage:16}{value:>10}{limit:>10}  {verdict:8} {said}".rstrip()
