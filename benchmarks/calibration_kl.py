"""One question: does an importance matrix from a site's own images bring a quantised level closer to the reference?

Every level is made without one, with one from the texts of the calibration rows alone, and with one from their images
and texts, and its answers to held-out questions are compared with those of torch in fp32: KL(torch || level) in nats
over the rows that predict the tokens of torch's own greedy answer and the end after it. Calibration and test rows
share no patient. Intervals are 95 %, by a bootstrap over the groups (patients) of the test rows; differences are
paired. They say how far other patients would have moved the figures of these very files. How far other calibration
rows would have is shown by matrices from random halves of them (of the groups). Prints a Markdown table; the seed fixes
every figure.

    python benchmarks/calibration_kl.py                                   # the embedded base model, phantoms
    python benchmarks/calibration_kl.py --model merged --data licensed    # a checkpoint and a curated dataset
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infimed.evaluation.dataset import Dataset, write_dataset
from infimed.evaluation.example import Example, Role
from infimed.evaluation.phantoms import write_phantoms
from infimed.evaluation.prompting import messages_for
from infimed.export.activations import Activations
from infimed.export.calibration import calibration_rows
from infimed.export.calibration_run import calibrate
from infimed.export.gguf_export import export_gguf
from infimed.export.onnx_export import export_onnx
from infimed.export.tensorrt_export import export_tensorrt
from infimed.runtime.distance import compare_rows
from infimed.runtime.engine import Engine, Sampling
from infimed.runtime.events import ignore
from infimed.runtime.levels import Format, level
from infimed.runtime.manifest import SHARED, LevelEntry
from infimed.runtime.messages import ImagePart, Message
from infimed.runtime.open_engine import open_level
from infimed.runtime.prompt import PROMPT_FILES
from infimed.training.reference import open_reference

BASE = Path(__file__).resolve().parent.parent / "training" / "base"
KINDS = ("ct", "mri", "xray", "fundus", "histopathology")  # those that the base model was trained on
PHANTOM_SEED = 90_417  # of no stage of its training
BARE = ("gguf-f16", "gguf-q4_k_m", "gguf-q3_k_m", "gguf-q2_k")
WEIGHED = ("gguf-q4_k_m+imatrix", "gguf-q3_k_m+imatrix", "gguf-q2_k+imatrix", "gguf-iq3_xxs+imatrix")
NONE, TEXTS, IMAGES = "none", "texts", "images and texts"
REPLY_TOKENS = 16
WRITERS: Mapping[Format, Any] = {"gguf": export_gguf, "onnx": export_onnx, "tensorrt": export_tensorrt}


@dataclass(frozen=True, eq=False)
class Item:
    """One held-out question: its group, what torch answers, and torch's logits there, (1 + tokens, vocab)."""

    group: str
    messages: tuple[Message, ...]
    reply: tuple[int, ...]
    rows: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Measured:
    """One level over the items. kl: (items,), sum over an item's rows, nats. same: (items,), rows of equal top-1."""

    kl: NDArray[np.float64]
    same: NDArray[np.float64]


def items_of(dataset: Dataset, engine: Engine, rows: int, seed: int) -> list[Item]:
    """Return the test questions that show an image, whole groups drawn by `seed` until `rows` are reached."""
    by_group: dict[str, list[Example]] = {}
    for example in dataset.in_role("test"):
        if example.images:
            by_group.setdefault(example.group, []).append(example)
    groups, taken = list(by_group), list[Example]()
    for index in np.random.default_rng(seed).permutation(len(groups)):
        if len(taken) >= rows:
            break
        taken += by_group[groups[index]]
    items = []
    for example in taken:
        messages = messages_for(example, [ImagePart(image) for image in dataset.images(example)])
        reply = engine.generate(messages, Sampling(max_tokens=REPLY_TOKENS)).token_ids
        items.append(Item(example.group, messages, reply, engine.logits(messages, reply)))
    return items


def measure(engine: Engine, items: Sequence[Item]) -> Measured:
    """Return how far an engine lies from torch on each item."""
    kl, same = [], []
    for item in items:
        made = engine.logits(item.messages, item.reply)[:, : item.rows.shape[1]]
        compared = compare_rows(item.rows, made, 0.0)
        kl.append(compared.kl_nats.sum())
        same.append(float(compared.same.sum()))
    return Measured(np.array(kl), np.array(same))


class Bootstrap:
    """Means over rows with intervals from drawing whole groups with replacement (percentiles of `draws` draws)."""

    def __init__(self, groups: Sequence[str], rows: NDArray[np.float64], draws: int, seed: int) -> None:
        names = sorted(set(groups))
        place = {name: number for number, name in enumerate(names)}
        self._member = np.zeros((len(groups), len(names)))
        self._member[np.arange(len(groups)), [place[group] for group in groups]] = 1.0
        self.groups = len(names)
        self._rows = rows
        shares = np.full(len(names), 1 / len(names))
        self._drawn = np.random.default_rng(seed).multinomial(len(names), shares, size=draws).astype(np.float64)

    def mean(self, sums: NDArray[np.float64]) -> tuple[float, float, float]:
        """Return mean and 95 % interval of (items,) sums over the items' rows."""
        totals, rows = sums @ self._member, self._rows @ self._member
        lower, upper = np.quantile((self._drawn @ totals) / (self._drawn @ rows), [0.025, 0.975])
        return float(sums.sum() / self._rows.sum()), float(lower), float(upper)


def levels_of(
    checkpoint: Path, work: Path, names: Sequence[str], activations: Activations | None
) -> Iterator[tuple[LevelEntry, Engine]]:
    """Export levels of one format and yield each, opened; the files go away afterwards."""
    bundle = work / "bundle"
    (bundle / SHARED).mkdir(parents=True)
    for name in PROMPT_FILES:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(checkpoint / name, bundle / SHARED / name)
    writer = WRITERS[level(names[0]).format]
    made: Mapping[str, LevelEntry] = writer(checkpoint, bundle, names, ignore, threads=1, activations=activations)
    for name in names:
        engine = open_level(bundle, made[name], threads=1)
        try:
            yield made[name], engine
        finally:
            engine.close()
    shutil.rmtree(bundle)


def half_of(dataset: Dataset, folder: Path, random: np.random.Generator) -> Path:
    """Write a dataset of the calibration rows of a random half of their groups."""
    rows = dataset.in_role("calibration")
    groups = sorted({row.group for row in rows})
    kept = {groups[index] for index in random.permutation(len(groups))[: (len(groups) + 1) // 2].tolist()}
    return write_dataset(
        folder, [row for row in rows if row.group in kept], dataset.all_image_bytes(), name="half"
    ).folder


@dataclass(frozen=True)
class Plan:
    """What is compared. bare, weighed: levels without and with an importance matrix. halves: random halves drawn."""

    bare: Sequence[str]
    weighed: Sequence[str]
    rows: int
    halves: int
    seed: int


Found = dict[tuple[str, str], list[Measured]]


def compare(
    checkpoint: Path, data: Path, work: Path, plan: Plan, tell: Callable[[str], None]
) -> tuple[list[Item], Found]:
    """Return the items, and what was measured of each (level's row, calibration): by all rows, then by each half."""
    dataset = Dataset.open(data)
    reference = open_reference(checkpoint, threads=1)
    items = items_of(dataset, reference, plan.rows, plan.seed)
    reference.close()
    found: Found = {}
    random = np.random.default_rng((plan.seed, 1))
    parts = [data, *(half_of(dataset, work / f"half-{number}", random) for number in range(plan.halves))]
    for number, part in enumerate(parts):
        for kind, names in ((NONE, plan.bare), (TEXTS, plan.weighed), (IMAGES, plan.weighed)):
            if kind == NONE and number:
                continue
            activations = None
            if kind != NONE:
                activations = calibrate(checkpoint, Dataset.open(part), cache=work / "cache", images=kind == IMAGES)
            for entry, engine in levels_of(checkpoint, work, names, activations):
                tell(f"{entry.name}, calibration: {kind}{f', half {number}' if number else ''}")
                found.setdefault((level(entry.name).base, kind), []).append(measure(engine, items))
    return items, found


def table(items: Sequence[Item], found: Found, draws: int, seed: int) -> str:
    """Return the Markdown table: a line for each level and calibration."""
    rows = np.array([len(item.rows) for item in items], np.float64)
    bootstrap = Bootstrap([item.group for item in items], rows, draws, seed)
    lines = [
        f"{len(items)} questions in {bootstrap.groups} groups, {int(rows.sum())} rows; KL in 1e-3 nats\n",
        "| level | calibration | mean KL [95 %] | less none [95 %] | less texts [95 %] | same top-1 | KL by halves |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for base in dict.fromkeys(base for base, _ in found):
        for kind in (NONE, TEXTS, IMAGES):
            if (base, kind) not in found:
                continue
            one, *halves = found[base, kind]
            cells = [_figure(bootstrap.mean(one.kl))]
            for other in (NONE, TEXTS):
                paired = found.get((base, other)) if other != kind and kind != NONE else None
                cells.append(_figure(bootstrap.mean(one.kl - paired[0].kl), signed=True) if paired else "")
            cells.append(f"{one.same.sum() / rows.sum():.1%}")
            cells.append(_spread([float(half.kl.sum() / rows.sum()) for half in halves]) if halves else "")
            lines.append(f"| {base} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(means: Sequence[float]) -> str:
    low, middle, high = (f"{value * 1e3:.3g}" for value in (min(means), float(np.median(means)), max(means)))
    return f"{low} .. {middle} .. {high}"


def _figure(found: tuple[float, float, float], signed: bool = False) -> str:
    mean, lower, upper = (f"{value * 1e3:{'+' if signed else ''}.3g}".replace("-", "\u2212") for value in found)
    return f"{mean} [{lower}, {upper}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BASE, help="a checkpoint (default: the embedded base model)")
    parser.add_argument("--data", type=Path, help="a dataset with the roles calibration and test (default: phantoms)")
    parser.add_argument("--images", type=int, default=120, help="phantoms to draw without --data (default 120)")
    parser.add_argument("--rows", type=int, default=200, help="test questions, in whole groups (default 200)")
    parser.add_argument("--draws", type=int, default=10_000, help="of the bootstrap (default 10,000)")
    parser.add_argument("--halves", type=int, default=5, help="random halves of the calibration rows (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two levels only")
    arguments = parser.parse_args()
    few, seed = arguments.quick, arguments.seed
    plan = Plan(BARE[1:2] if few else BARE, WEIGHED[:1] if few else WEIGHED, arguments.rows, arguments.halves, seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = arguments.data or work / "phantoms"
        if arguments.data is None:
            roles: dict[Role, float] = {"calibration": 0.5, "test": 0.5}
            write_phantoms(data, arguments.images, PHANTOM_SEED, KINDS, per_image=3, roles=roles)
        tell = partial(print, file=sys.stderr, flush=True)
        items, found = compare(arguments.model, data, work, plan, tell)
        used = calibration_rows(Dataset.open(data))
        cells = len({row.example.cell for row in used})
        print(
            f"calibrated on {len(used)} rows of {cells} cells; seed {arguments.seed}, {arguments.draws:,} draws; ",
            end="",
        )
        print(table(items, found, arguments.draws, seed))


if __name__ == "__main__":
    main()
