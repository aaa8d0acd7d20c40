"""Does a bundle of the real size load, answer about an image and stay within its plan, on both engines?

A bundle is exported without its gate (no torch model is built), verified by `infimed verify`, and each level is opened
in a process of its own: how long opening takes, its memory against what `infimed plan` predicts, the time to the first
token of a question about an image, and tokens per second after it. With --gate N the export passes its gate on N golden
prompts, for which torch holds the model in float32, and two of them are asked again for the parity certificate.
Everything written is removed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from infimed.benchmarks.anon_memory import Metered, end_tidily, metered
from infimed.benchmarks.checkpoint_3b import SMALL, Size, write_base
from infimed.benchmarks.scale_table import conditions
from infimed.devices.memory import Use, memory_need
from infimed.devices.weights import read_planned
from infimed.runtime.bundle import Bundle
from infimed.runtime.engine import Sampling
from infimed.runtime.messages import ImagePart, user
from infimed.runtime.open_engine import default_threads, open_engine

LEVELS = ("gguf-f16", "gguf-q4_k_m", "onnx-int4")
USE = Use(context_tokens=1024, image_pixels=448 * 448)
REPLY_TOKENS = 32
_CLI = "from infimed.cli.app import main; main()"


@dataclass(frozen=True)
class Answered:
    """What one level did. first_s: from the question with its image to the first token; the image is encoded in it.

    tokens_per_s: of the further tokens, None where the reply ended at once. predicted_bytes: by the plan, of the whole
    process; resident_bytes: its peak, pages of mapped weights among it; anon_bytes: those that cannot be dropped.
    """

    level: str
    open_s: float
    first_s: float
    tokens_per_s: float | None
    predicted_bytes: int
    resident_bytes: int
    anon_bytes: int
    weight_bytes: int
    text: str


def answer(bundle: Path, level: str, threads: int) -> None:
    """Open a level, ask it about an image, and print what it took as JSON; to be run alone in its process."""
    opened = Bundle.open(bundle)
    start = time.perf_counter()
    engine = open_engine(opened, level, threads=threads, context_tokens=USE.context_tokens)
    open_s = time.perf_counter() - start
    side = math.isqrt(USE.image_pixels)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    question = [user(ImagePart(noise), "Is there a lesion, and on which side?")]
    start = time.perf_counter()
    first = engine.generate(question, Sampling(max_tokens=1))
    first_s = time.perf_counter() - start
    # The same question again: its prefix is held, so what is new are the further tokens.
    start = time.perf_counter()
    once_more = engine.generate(question, Sampling(max_tokens=1))
    again_s = time.perf_counter() - start
    start = time.perf_counter()
    reply = engine.generate(question, Sampling(max_tokens=1 + REPLY_TOKENS))
    reply_s = time.perf_counter() - start
    engine.close()
    if not first.token_ids == once_more.token_ids == reply.token_ids[:1]:
        raise SystemExit(f"{level}: one question began with {first.token_ids}, then with {reply.token_ids[:1]}")
    further = len(reply.token_ids) - 1
    told = {
        "open_s": open_s,
        "first_s": first_s,
        "tokens_per_s": further / (reply_s - again_s) if further and reply_s > again_s else None,
        "text": reply.text,
    }
    print(json.dumps(told))


def measure(bundle: Path, level: str, threads: int) -> Answered:
    """Answer in a process of its own under the meter, and predict the same from the bundle."""
    found = _run([sys.executable, __file__, "--child", str(bundle), level, str(threads)])
    planned = read_planned(bundle)
    weights = next(row for row in planned.levels if row.level.name == level)
    predicted = memory_need(planned.shape, weights, USE).total_bytes
    told = json.loads(found.output.splitlines()[-1])
    return Answered(
        level=level,
        predicted_bytes=predicted,
        resident_bytes=found.resident_bytes,
        anon_bytes=found.anon_bytes,
        weight_bytes=weights.total_bytes,
        **told,
    )


def table(rows: list[Answered]) -> str:
    """Return the rows as Markdown; an error above zero means that the plan asks for more than was used."""
    columns = (
        "level", "weights GB", "open s", "planned GB", "resident GB", "error", "anonymous GB", "first token s",
        "tokens/s",
    )  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = (
            row.level,
            f"{row.weight_bytes / 1e9:.2f}",
            f"{row.open_s:.1f}",
            f"{row.predicted_bytes / 1e9:.2f}",
            f"{row.resident_bytes / 1e9:.2f}",
            f"{row.predicted_bytes / row.resident_bytes - 1:+.0%}",
            f"{row.anon_bytes / 1e9:.2f}",
            f"{row.first_s:.1f}",
            "-" if row.tokens_per_s is None else f"{row.tokens_per_s:.1f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _run(command: list[str]) -> Metered:
    found = metered(command)
    if found.code:
        raise SystemExit(f"{' '.join(command)[:300]} ended with {found.code}:\n{found.errors}")
    return found


def main() -> None:
    """Export, verify, run each level, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tiny relative: that it runs, not what it shows")
    parser.add_argument("--layers", type=int, help="of the text model; default 36")
    parser.add_argument("--level", action="append", help=f"only these; default {', '.join(LEVELS)}")
    parser.add_argument("--gate", type=int, help="golden prompts of a gated export; default: no gate, no certificate")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--folder", type=Path, help="where to work; default the system's temporary folder")
    parser.add_argument("--json", type=Path, help="write conditions and rows here as well")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        answer(Path(given.child[0]), given.child[1], int(given.child[2]))
        return
    size = SMALL if given.small else Size()
    size = replace(size, layers=given.layers or size.layers)
    levels = tuple(given.level or LEVELS)
    told: dict[str, object] = {**conditions(given.threads), "layers": size.layers, "use": asdict(USE)}
    print(json.dumps(told), flush=True)
    end_tidily()
    with tempfile.TemporaryDirectory(prefix="infimed-scale-", dir=given.folder) as name:
        base, bundle = write_base(Path(name) / "base", size), Path(name) / "bundle"
        asked = [part for level in levels for part in ("--level", level)]
        gate = ["--no-gate"] if given.gate is None else ["--probes", str(given.gate)]
        threads = ["--threads", str(given.threads)]
        steps = {
            "export": ["export", str(base), "--out", str(bundle), *asked, *gate, *threads],
            "verify": ["verify", str(bundle)],
        }
        if given.gate is not None:
            steps["parity"] = ["verify", str(bundle), "--parity", "--probes", "2", "--work", name, *threads]
        for what, command in steps.items():
            made = _run([sys.executable, "-c", _CLI, *command])
            told[what] = {"wall_s": made.wall_s, "anon_bytes": made.anon_bytes}
            print(f"{what}: {made.wall_s:.1f} s, {made.anon_bytes / 1e9:.2f} GB of anonymous memory", flush=True)
            if what == "parity":
                print(made.output, flush=True)
        rows: list[Answered] = []
        for level in levels:
            rows.append(measure(bundle, level, given.threads))
            print(f"{level}: opened in {rows[-1].open_s:.1f} s, says {rows[-1].text[:60]!r}", flush=True)
            if given.json:
                value = {**told, "rows": [asdict(row) for row in rows]}
                given.json.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
