"""How much faster is `infimed evaluate` than generating replies, and than lm-evaluation-harness, on the same questions?

Against generation: some levels of one model are asked the questions about some images. Ours is the run as the command
makes it: options by likelihood, an image encoded once for all its questions and all levels with its vision tower. The
peer is the same engine with nothing kept from one item to the next: for each item and level the image is read, encoded
and prefilled with the prompt, and eight tokens are generated greedily (an end of turn does not stop it; beside it the
time with the tokens after that end not counted). Opening a level is in neither time. A reply is no choice, so the
peer also scores the options from an empty engine, outside its time: its choices must be ours, and so must every
log-likelihood to the last bit; a difference ends the run with an error.

Against the harness (with --harness): its scoring of our prompts with our options, float32 in torch, against our runs of
the same checkpoint in torch and exported to gguf-f32, on as many threads; only scoring is timed on its side; on
ours all but the opening.

    python benchmarks/evaluate_speed.py [--data DATASET] [--images 20] [--levels ...] [--probe shuffle] [--harness]
    python benchmarks/evaluate_speed.py --size 3b --images 1 --levels gguf-q4_k_m gguf-q4_0

The model is training/base with training/adapters/real_images, merged; with --size 3b the random one of
checkpoint_3b.py. Without --data phantoms are asked about. Asked are questions with options; with --probe the probes'
rows are items too, on both sides.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infimed.benchmarks.anon_memory import end_tidily
from infimed.benchmarks.checkpoint_3b import SMALL, Size, write_base
from infimed.benchmarks.scale_table import conditions
from infimed.evaluation.dataset import Dataset, write_dataset
from infimed.evaluation.example import Example
from infimed.evaluation.phantoms import write_phantoms
from infimed.evaluation.predict import by_image
from infimed.evaluation.predict_probes import Row, made_images, predict_probes, works_of
from infimed.evaluation.prediction import Prediction, read_run
from infimed.evaluation.probes import ProbeSpec, parse_probes
from infimed.evaluation.prompting import messages_for
from infimed.export.export_bundle import export_bundle
from infimed.runtime.bundle import Bundle
from infimed.runtime.decoding import Decoder
from infimed.runtime.engine import Sampling
from infimed.runtime.image_store import SharedImages
from infimed.runtime.messages import Message
from infimed.runtime.open_engine import default_threads
from infimed.training.adapter import embedded_base
from infimed.training.merge import merge_adapter
from infimed.training.targets import Target, bundle_target, torch_target

LEVELS = ("gguf-f16", "gguf-q8_0", "gguf-q4_k_m")
TOKENS = 8
TEXT_LEVEL = "gguf-f32"
GOAL, HARNESS_GOAL = 10, 3
ADAPTER = embedded_base().parent / "adapters" / "real_images"


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and of all processors together: the second hardly depends on what else runs."""

    wall_s: float = 0.0
    processor_s: float = 0.0

    @classmethod
    def now(cls) -> Spent:
        """Return both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.wall_s - other.wall_s, self.processor_s - other.processor_s)

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall_s + other.wall_s, self.processor_s + other.processor_s)


@dataclass(frozen=True)
class Speed:
    """One comparison. items: questions (and probes' rows) times levels. encoded: images, ours and the peer's.

    stopped: what the peer spent without the tokens after a turn's end; None where that is not asked.
    """

    what: str
    items: int
    images: int
    ours: Spent
    peer: Spent
    stopped: Spent | None
    goal: float
    encoded: tuple[int, int] = (0, 0)

    @property
    def ratio(self) -> float:
        """How many times the peer's items per second ours are."""
        return self.peer.wall_s / self.ours.wall_s


class Counted:
    """Opens a target once, and counts the images that its engine encodes. opened: what opening took."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.images = 0
        self.opened = Spent()

    def open(self, shared: SharedImages, place: int) -> Decoder:
        """Return the target's engine, counting."""
        began = Spent.now()
        engine = self.target.open(shared.open(place))
        self.opened = Spent.now() - began
        assert isinstance(engine, Decoder)
        encode = engine.backend.encode_image

        def counted(image: Any) -> Any:
            self.images += 1
            return encode(image)

        engine.backend.encode_image = counted  # type: ignore[method-assign]
        return engine


def first_images(dataset: Dataset, count: int) -> Sequence[Example]:
    """Return the test questions with options about the first `count` images that have any."""
    rows = [row for row in by_image(dataset.in_role("test")) if row.options]
    shown = list(dict.fromkeys(row.images for row in rows if row.images))[:count]
    return [row for row in rows if row.images in shown]


def ask_ours(
    targets: Sequence[Target], dataset: Dataset, out: Path, specs: Sequence[ProbeSpec]
) -> tuple[Spent, int, dict[str, dict[str, Prediction]]]:
    """Return what was spent, images encoded, and by level the rows by their ids, of the run as the command makes it."""
    counted = [Counted(target) for target in targets]
    rows: dict[str, dict[str, Prediction]] = {}
    began = Spent.now()
    with SharedImages(out, [target.tower for target in targets]) as shared:
        made = [
            predict_probes(
                partial(one.open, shared, place), dataset, out, one.target.run, specs,
                subject=one.target.subject, computed_by=one.target.computed_by,
            )
            for place, one in enumerate(counted)
        ]  # fmt: skip
    spent = Spent.now() - began - sum((one.opened for one in counted), Spent())
    for one, files in zip(counted, made, strict=True):
        found = [row for name, folder in files.files.items() for row in read_run(folder, name).predictions]
        rows[one.target.run] = {row.example_id: row for row in found}
    return spent, sum(one.images for one in counted), rows


def ask_peer(
    target: Target, dataset: Dataset, asked: Sequence[Row], rows: Mapping[str, Prediction]
) -> tuple[Spent, Spent]:
    """Generate for every item from nothing; return what all tokens took, and those up to a turn's end.

    rows: ours, whose choices and log-likelihoods must be those of an engine that kept nothing. SystemExit where not.
    """
    engine = target.open()
    every = stopped = Spent()
    assert isinstance(engine, Decoder)
    ends = engine.prompter.end_ids
    for row in asked:
        began = Spent.now()
        messages = messages_for(row.example, made_images(dataset, row.example, row.picture))
        engine.prompter.end_ids = frozenset()
        ticks: list[Spent] = []
        reply = _fresh(engine, ticks.append).generate(messages, Sampling(max_tokens=TOKENS))
        spent = Spent.now() - began
        engine.prompter.end_ids = ends
        if len(reply.token_ids) != TOKENS:
            raise SystemExit(f"{target.run}: {len(reply.token_ids)} tokens were generated, not {TOKENS}")
        every += spent
        end = next((at for at, token in enumerate(reply.token_ids) if token in ends), TOKENS - 1)
        stopped += spent - sum(ticks[-(TOKENS - 1) :][end:], Spent())
        if row.example.options:
            _same(target.run, engine, row.example, messages, rows[row.example.id])
    engine.close()
    return every, stopped


def _fresh(engine: Decoder, tick: Callable[[Spent], None] = lambda spent: None) -> Decoder:
    """Return an engine over the same model that holds nothing. tick: told what each step of one token took."""
    fresh = Decoder(engine.backend, engine.prompter, engine.level, image_cache_bytes=0)
    backend = fresh.backend

    class Timed:
        def __getattr__(self, name: str) -> Any:
            return getattr(backend, name)

        def extend(self, token_ids: Any, positions: Any, images: Any, want: int) -> Any:
            began = Spent.now()
            made = backend.extend(token_ids, positions, images, want)
            if len(token_ids) == 1:
                tick(Spent.now() - began)
            return made

    fresh.backend = Timed()
    return fresh


def _same(level: str, engine: Decoder, example: Example, messages: tuple[Message, ...], ours: Prediction) -> None:
    scores = _fresh(engine).score(messages, example.options)
    cold = tuple(round(option.logprob_nats, 9) for option in scores.options)
    if scores.choice() != ours.choice or cold != ours.option_logprobs_nats:
        raise SystemExit(f"{level}: {example.id}: from nothing {cold}, {scores.choice()!r}; ours {ours}")


def against_generation(
    bundle: Path, levels: Sequence[str], dataset: Dataset, specs: Sequence[ProbeSpec], threads: int, work: Path
) -> Speed:
    """Return the comparison over all levels together."""
    opened = Bundle.open(bundle)
    targets = [bundle_target(opened, level, threads) for level in levels]
    ours, ours_images, rows = ask_ours(targets, dataset, work / "runs", specs)
    peer = stopped = Spent()
    count = peer_images = 0
    for target in targets:
        works, _ = works_of(
            dataset, work / "runs", target.run, specs,
            subject=target.subject, computed_by=target.computed_by,
        )  # fmt: skip
        asked = [row for one in works for row in one.rows]
        whole, until = ask_peer(target, dataset, asked, rows[target.run])
        peer, stopped, count = peer + whole, stopped + until, count + len(asked)
        peer_images += sum(len(row.example.images) for row in asked)
    images = len({row.images for row in dataset.in_role("test")})
    what = f"{len(levels)} levels, {TOKENS} greedy tokens"
    return Speed(what, count, images, ours, peer, stopped, GOAL, (ours_images, peer_images))


def against_harness(folders: Sequence[Path], rows: int, threads: int, work: Path, sizes: Sequence[int]) -> list[Speed]:
    """Return the comparisons on text questions, of one checkpoint in torch and exported to TEXT_LEVEL.

    SystemExit where a choice by the sum of an option differs from the harness's, beyond a tie.
    """
    from infimed.benchmarks.harness_peer import HARNESS, OURS, examples_of, harness_python, run_harness, write_tasks
    from infimed.tests.text_models import build_text_checkpoint

    work.mkdir()
    hidden, ffn, layers = sizes
    (library,) = (harness_python().parent.parent).glob("lib/python3*/site-packages/lm_eval")
    checkpoint = build_text_checkpoint(work / "checkpoint", "qwen2", seed=3, hidden=hidden, ffn=ffn, layers=layers)
    dataset = write_dataset(work / "data", examples_of(folders, rows), {}, name="harness")
    target = torch_target(checkpoint, threads)
    engine = target.open()
    assert isinstance(engine, Decoder)
    prompts = {row.id: engine.prompter.render(messages_for(row, ())) for row in dataset.examples}
    engine.close()
    write_tasks(work / "tasks", library, dataset.examples, prompts)
    samples, peer = run_harness(checkpoint, work, [f"peer_{OURS}"], threads)
    export_bundle(checkpoint, work / "bundle", [TEXT_LEVEL], gate=False, probe_count=2, threads=threads)
    exported = bundle_target(Bundle.open(work / "bundle"), TEXT_LEVEL, threads)
    speeds = []
    for one in (target, exported):
        spent, _, found = ask_ours([one], dataset, work / "runs", ())
        _agree(found[one.run], samples[f"peer_{OURS}"])
        what = f"{HARNESS} in torch float32; ours {'the same' if one is target else one.run}"
        speeds.append(Speed(what, len(found[one.run]), 0, spent, Spent(*peer), None, HARNESS_GOAL))
    return speeds


def _agree(found: Mapping[str, Prediction], samples: Sequence[Mapping[str, Any]]) -> None:
    for sample in samples:
        ours = found[sample["doc"]["id"]]
        chosen = max(range(len(ours.options)), key=ours.option_logprobs_nats.__getitem__)
        theirs = max(range(len(ours.options)), key=sample["values"].__getitem__)
        gap = abs(sample["values"][chosen] - sample["values"][theirs])
        if chosen != theirs and gap > 1e-3:
            raise SystemExit(f"{ours.example_id}: the harness has {ours.options[theirs]!r} as the likeliest sum")


def checkpoint_of(size: str, small: bool, work: Path) -> Path:
    """Return the model's checkpoint, made in `work`."""
    if size == "3b":
        return write_base(work / "checkpoint", SMALL if small else Size())
    return merge_adapter(ADAPTER, work / "checkpoint").folder


def dataset_of(data: Path | None, images: int, work: Path) -> Dataset:
    """Return a dataset of the first images' questions."""
    if data is None:
        dataset = write_phantoms(work / "phantoms", images, 11, per_image=8, roles={"test": 1.0})
    else:
        dataset = Dataset.open(data)
    rows = first_images(dataset, images)
    refs = {ref.path for row in rows for ref in row.images}
    files = {path: value for path, value in dataset.all_image_bytes().items() if path in refs}
    return write_dataset(work / "data", rows, files, name=dataset.manifest.name)


def told(rows: Sequence[Speed]) -> str:
    """Return the comparisons as Markdown."""
    heads = ("against", "items", "images", "encoded, ours / peer", "ours, items/s", "peer, items/s", "times", "goal",
             "times, processor seconds", "times, peer stopped at the end of turn")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        stopped = "" if row.stopped is None else f"{row.stopped.wall_s / row.ours.wall_s:.1f}"
        cells = (row.what, row.items, row.images, f"{row.encoded[0]} / {row.encoded[1]}",
                 f"{row.items / row.ours.wall_s:.2f}", f"{row.items / row.peer.wall_s:.2f}", f"{row.ratio:.1f}",
                 f"{row.goal}: {'met' if row.ratio >= row.goal else 'NOT met'}",
                 f"{row.peer.processor_s / row.ours.processor_s:.1f}", stopped)  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print both comparisons; end with an error where a choice or a number differs, not where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("real", "3b"), default="real", help="which model")
    parser.add_argument("--small", action="store_true", help="with --size 3b: the small relative of checkpoint_3b.py")
    parser.add_argument("--bundle", type=Path, help="a bundle that holds the levels already; nothing is exported")
    parser.add_argument("--data", type=Path, help="a dataset of ours; its test role is asked")
    parser.add_argument("--images", type=int, default=20, help="how many images")
    parser.add_argument("--levels", nargs="+", default=list(LEVELS))
    parser.add_argument("--probe", nargs="*", default=[], help="as for infimed evaluate")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--harness", action="store_true", help="compare with lm-evaluation-harness too")
    parser.add_argument("--text-data", type=Path, nargs="*", default=[], help="text questions; made up by default")
    parser.add_argument("--text-rows", type=int, default=20, help="of each source")
    parser.add_argument("--text-model", type=int, nargs=3, default=(512, 1536, 8), metavar=("HIDDEN", "FFN", "LAYERS"))
    parser.add_argument("--json", type=Path, help="write the outcome here too")
    given = parser.parse_args()
    end_tidily()
    held = conditions(given.threads)
    specs = parse_probes(given.probe)
    found = []
    with tempfile.TemporaryDirectory(prefix="infimed-speed-") as place:
        work = Path(place)
        bundle = given.bundle
        if bundle is None:
            checkpoint = checkpoint_of(given.size, given.small, work)
            bundle = work / "bundle"
            export_bundle(checkpoint, bundle, given.levels, gate=False, probe_count=2, threads=given.threads)
        dataset = dataset_of(given.data, given.images, work)
        found.append(against_generation(bundle, given.levels, dataset, specs, given.threads, work))
        if given.harness:
            found += against_harness(
                given.text_data, given.text_rows, given.threads, work / "harness", given.text_model
            )
    print(", ".join(f"{name} {value}" for name, value in held.items()))
    print(told(found))
    if given.json:
        given.json.write_text(
            json.dumps({"conditions": held, "rows": [asdict(row) for row in found]}, indent=1), "utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
