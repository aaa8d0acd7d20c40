"""The steps of the demo, each a call of the room that does it, and what is worth telling of its outcome.

Uses the embedded base model, the recipe that the package brings and the phantoms' domain that the base never saw.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..evaluation.comparison import accuracy
from ..evaluation.drift import drift
from ..evaluation.drift_figures import Share
from ..evaluation.drift_report import DriftReport
from ..evaluation.phantoms import write_phantoms
from ..evaluation.predict import Asking, predict
from ..evaluation.prediction import read_run
from ..evaluation.prior import predict_prior
from ..evaluation.prompting import messages_for
from ..evaluation.recompute import make_files
from ..evaluation.report import write_files
from ..export.export_bundle import export_bundle
from ..export.libraries import require_libraries
from ..export.parity import KL_LIMIT_NATS
from ..export.sabotage import sabotage
from ..runtime.bundle import Bundle
from ..runtime.events import OnEvent
from ..runtime.messages import ImagePart
from ..runtime.open_engine import default_threads, open_engine
from ..training.adapter import embedded_base
from ..training.merge import merge_adapter
from ..training.recipe import find_recipe
from ..training.sft import train_sft
from ..training.targets import Target, bundle_target, torch_target

DOMAIN = "ultrasound"
GGUF_LEVELS = ("gguf-f16", "gguf-q8_0", "gguf-q4_k_m")
ONNX_LEVELS = ("onnx-int8-acc4", "onnx-int4")
TRAIN_SEED, TEST_SEED = 11, 12
# Modality and anatomy are known from the words alone where all images are of one domain.
ASKED = ("finding", "laterality", "count", "size", "location", "open")
NO_LLAMA = "llama-cpp-python is not installed (it needs a C++ compiler)"


@dataclass(frozen=True)
class Check:
    """One thing that the demo must show. told: the figures it was decided on."""

    what: str
    verdict: Literal["held", "FAILED", "NOT RUN"]
    told: str


@dataclass(frozen=True)
class Amounts:
    """How much is made and asked. images: phantoms drawn; probes: golden prompts of the parity gate."""

    train_images: int
    test_images: int
    questions_per_image: int
    probes: int


DEMO = Amounts(train_images=600, test_images=320, questions_per_image=3, probes=24)


class Chain:
    """The demo under way. steps: title and call, in order; a call yields lines for a person. checks: filled last."""

    def __init__(self, out: Path, on_event: OnEvent, threads: int | None = None, amounts: Amounts = DEMO) -> None:
        self.out, self.on_event, self.amounts = out, on_event, amounts
        self.threads = threads or default_threads()
        self.checks: list[Check] = []
        self.bundle, self.report_page = out / "bundle", out / "report" / "drift.html"
        self.gguf_missing = "" if importlib.util.find_spec("llama_cpp") else NO_LLAMA
        self.levels = ONNX_LEVELS if self.gguf_missing else (*GGUF_LEVELS, *ONNX_LEVELS)
        require_libraries(self.levels, "peft", "accelerate", "scipy", "matplotlib")
        self.steps: tuple[tuple[str, Callable[[], Iterator[str]]], ...] = (
            (f"Data: phantoms of {DOMAIN}, which the base model has never seen", self.make_data),
            ("Before: what the base model answers", self.ask_base),
            ("Train: a LoRA adapter by the demo's recipe", self.train),
            ("Merge: the adapter into the base, stored in its own type", self.merge),
            ("Export: each format against the torch reference first, then the levels", self.export),
            ("Run: the same question to every level", self.run),
            ("Evaluate: every level on the same questions", self.evaluate),
            ("Drift: a verdict for each level, and for one that was sabotaged", self.judge),
        )

    def make_data(self) -> Iterator[str]:
        """Draw a training and a test set; their seeds differ, so no phantom is in both."""
        amounts = self.amounts
        self.train_set = write_phantoms(
            self.out / "train",
            amounts.train_images,
            TRAIN_SEED,
            (DOMAIN,),
            roles={"train": 0.95, "calibration": 0.05},
            name="demo-train",
        )
        self.test_set = write_phantoms(
            self.out / "test",
            amounts.test_images,
            TEST_SEED,
            (DOMAIN,),
            tasks=ASKED,
            per_image=amounts.questions_per_image,
            roles={"test": 1.0},
            name="demo-test",
        )
        for dataset in (self.train_set, self.test_set):
            images = {reference for example in dataset.examples for reference in example.images}
            yield f"{dataset.manifest.name:12}{len(images):5,} images, {len(dataset.examples):6,} questions"

    def ask_base(self) -> Iterator[str]:
        """Predict the test set with the base model, and without looking at the images."""
        self.before = self.out / "runs-before"
        base = torch_target(embedded_base(), self.threads)
        self._predict(self.before, base)
        yield f"base model          {share_text(accuracy(read_run(self.before, base.run).predictions))}"
        predict_prior(self.train_set, self.test_set, self.before)
        yield f"majority answer     {share_text(accuracy(read_run(self.before, 'prior').predictions))}  (text only)"

    def train(self) -> Iterator[str]:
        """Fine-tune the base model."""
        adapter = train_sft(
            find_recipe("demo"),
            data=self.train_set.folder,
            base=embedded_base(),
            out=self.out / "adapter",
            threads=self.threads,
            on_event=self.on_event,
        )
        weights = sum(path.stat().st_size for path in adapter.folder.glob("*.safetensors"))
        yield f"adapter of rank {adapter.rank}, {weights / 1e6:.1f} MB"

    def merge(self) -> Iterator[str]:
        """Merge, with the difference to base plus adapter measured."""
        self.merged = merge_adapter(
            self.out / "adapter", self.out / "checkpoint", threads=self.threads, on_event=self.on_event
        )
        provenance = self.merged.provenance
        attest = provenance.attest if provenance else {}
        yield f"merged in float32: largest logit difference to base + adapter {attest['merged']['max_abs_logit']:.1e}"
        stored = attest["stored"]
        yield f"as stored in {attest['rounding']['dtype']}: mean KL {stored['kl_mean_nats']:.1e} nats"

    def export(self) -> Iterator[str]:
        """Write the bundle."""
        if self.gguf_missing:
            yield f"GGUF levels: NOT RUN: {self.gguf_missing}"
        self.exported = export_bundle(
            self.merged.folder,
            self.bundle,
            self.levels,
            calibration=self.train_set.folder,
            probe_count=self.amounts.probes,
            license="Apache-2.0",
            threads=self.threads,
            on_event=self.on_event,
        )
        for parity in self.exported.gate:
            yield f"gate {parity.level:12} mean KL {parity.kl_mean_nats:.1e} nats over {parity.rows:,} rows: held"
        for parity in self.exported.levels:
            size_mb = self.exported.bundle.entry(parity.level).weight_bytes / 1e6
            yield f"     {parity.level:12} {size_mb:5.1f} MB, mean KL {parity.kl_mean_nats:.1e} nats"

    def run(self) -> Iterator[str]:
        """Ask every level the first choice question of the test set."""
        example = next(row for row in self.test_set.examples if row.answer_type == "choice")
        images = [ImagePart(self.test_set.image(reference)) for reference in example.images]
        yield f"{example.images[0].path}: {example.question}"
        yield f"options: {', '.join(example.options)}; right: {example.answer}"
        for level in self.levels:
            engine = open_engine(self.exported.bundle, level, threads=self.threads)
            try:
                scores = engine.score(messages_for(example, images), example.options)
            finally:
                engine.close()
            yield f"     {level:12} {scores.choice()}  (confidence {scores.probabilities().max():.1%})"

    def evaluate(self) -> Iterator[str]:
        """Predict the test set with the adapter, the merged checkpoint, every level, and one that is sabotaged."""
        self.runs = self.out / "runs"
        predict_prior(self.train_set, self.test_set, self.runs)
        adapter = torch_target(self.out / "adapter", self.threads)
        self._predict(self.runs, adapter, grey=True)
        bundle = Bundle.open(self.bundle)
        damaged = self.levels[1] if not self.gguf_missing else self.levels[0]
        broken = sabotage(self.merged.folder, self.out / "sabotaged-checkpoint")
        sabotaged = export_bundle(
            broken.folder,
            self.out / "sabotaged",
            [damaged],
            probe_count=6,
            threads=self.threads,
            on_event=self.on_event,
        )
        self.sabotaged_run = f"{damaged}-sabotaged"
        for target in (
            adapter,
            torch_target(self.merged.folder, self.threads),
            *(bundle_target(bundle, level, self.threads) for level in self.levels),
            replace(bundle_target(sabotaged.bundle, damaged, self.threads), run=self.sabotaged_run),
        ):
            self._predict(self.runs, target)
            run = read_run(self.runs, target.run)
            yield f"{target.run:22} {share_text(accuracy(run.predictions))}"

    def judge(self) -> Iterator[str]:
        """Compare all runs with base plus adapter, write the report, fill in the checks."""
        made = make_files(drift(self.runs, "adapter", on_event=self.on_event), self.runs, self.test_set)
        write_files(made.files, self.report_page.parent)
        report = made.report
        wide = max(len(row.overall.verdict) for row in report.rows)
        for row in report.rows:
            found = row.overall
            yield (
                f"{found.verdict:{wide}}  {row.facts.run:22} {found.delta * 100:+5.1f} points "
                f"[{found.lower * 100:+.1f}, {found.upper * 100:+.1f}], "
                f"harmful {found.harmful}, healing {found.healing}"
            )
        self.checks = list(demo_checks(self, report))

    def _predict(self, folder: Path, target: Target, *, grey: bool = False) -> None:
        for asking in (Asking(grey=True), Asking()) if grey else (Asking(),):
            predict(
                target.open,
                self.test_set,
                folder,
                target.run,
                subject=target.subject,
                asking=asking,
                computed_by=target.computed_by,
                on_event=self.on_event,
            )


def demo_checks(chain: Chain, report: DriftReport) -> Iterator[Check]:
    """Yield what the demo must show: it learned, parity holds, q8_0 passes, the sabotaged level fails."""
    before = accuracy(read_run(chain.before, "checkpoint").predictions)
    after = accuracy(read_run(chain.runs, "adapter").predictions)
    lead = report.levels[0].overall.competence
    learned = after.lower > before.upper and after.value > lead.accuracy and lead.lead_lower > 0
    yield check(
        "it learned",
        learned,
        f"{share_text(before).strip()} before, {share_text(after).strip()} after, "
        f"text alone {lead.accuracy:.1%} ({lead.prior})",
    )
    worst = max(parity.kl_mean_nats for parity in chain.exported.gate)
    yield check("parity holds", worst <= KL_LIMIT_NATS, f"mean KL {worst:.1e} nats, at most {KL_LIMIT_NATS:g}")
    rows = {row.facts.run: row.overall for row in report.levels}
    if chain.gguf_missing:
        yield Check("gguf-q8_0 passes", "NOT RUN", chain.gguf_missing)
    else:
        found = rows["gguf-q8_0"]
        yield check("gguf-q8_0 passes", found.verdict == "PASS", f"{found.verdict}: {found.reason}")
    found = rows[chain.sabotaged_run]
    yield check("the sabotaged level fails", found.verdict == "FAIL", f"{found.verdict}: {found.reason}")


def check(what: str, held: bool, told: str) -> Check:
    """Return a check that was made."""
    return Check(what, "held" if held else "FAILED", told)


def share_text(share: Share) -> str:
    """Return an accuracy with its interval for a person."""
    return f"{share.value:6.1%} [{share.lower:.1%}, {share.upper:.1%}]"
