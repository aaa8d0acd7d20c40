"""Do we score multiple choice as lm-evaluation-harness does, item by item, under its own rules and prompts?

The harness lives in an environment of its own, made once by venv and pip in the cache of peers.py; it sees the torch
and transformers that are here, so that only its own code differs. Both score one tiny random Qwen2 checkpoint:

- theirs: the harness's own tasks (medqa_4options, medmcqa, pubmedqa, mmlu) on the rows of a dataset of ours, written
  back in the official fields. Our engine then scores the very texts that the harness logged.
- ours: the harness scores our prompt and our options as a task of its own; our side are the rows of `infimed evaluate`.

Compared are every log-likelihood, and by item what each rule chooses: acc (the sum), acc_norm (the sum per character
of the option) and ours (the sum per token). A choice that differs must be a tie within the difference of the numbers.
One difference is known and computed: the harness moves the blank that ends a prompt to the option, so its sums over our
prompts, which end with a line feed, hold that token too. It is the same for all options, but not per character.

    python benchmarks/harness_peer.py [--data DATASET ...] [--rows 40] [--small] [--json FILE]

Without --data, made-up questions are asked: the agreement is of the arithmetic, not of medicine.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infimed.benchmarks.peers import cache_folder
from infimed.evaluation.dataset import Dataset, write_dataset
from infimed.evaluation.example import Example, TextRef
from infimed.evaluation.predict import predict
from infimed.evaluation.prediction import Subject, read_run
from infimed.evaluation.prompting import messages_for
from infimed.runtime.distance import log_softmax
from infimed.runtime.engine import Engine
from infimed.runtime.likelihood import option_values
from infimed.runtime.messages import Message, TextPart
from infimed.runtime.prompt import Prompter
from infimed.training.targets import torch_target

HARNESS = "lm-eval==0.4.13"
OURS = "ours"
LIMIT_NATS = 1e-3
"""Largest difference of a sum of log-likelihoods over one option, float32 on both sides and other orders of sums."""
PASS_ON = "{%- for message in messages %}{{- message.content }}{%- endfor %}"
_RUN = """
import json, sys, time, lm_eval, torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
given = json.loads(sys.argv[1])
score, spent = HFLM.loglikelihood, []
def timed(self, *arguments, **more):
    began = time.perf_counter(), time.process_time()
    made = score(self, *arguments, **more)
    spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return made
HFLM.loglikelihood = timed
if given["threads"]:
    torch.set_num_threads(given["threads"])
manager = TaskManager(include_path=given["tasks"])
made = lm_eval.simple_evaluate(
    model="hf", tasks=given["names"], task_manager=manager, num_fewshot=0, batch_size=1, log_samples=True,
    model_args={"pretrained": given["checkpoint"], "dtype": "float32", "max_length": 8192}, device="cpu",
    bootstrap_iters=0,
)
rows = {
    name: [
        {
            "doc": sample["doc"], "acc": sample["acc"], "acc_norm": sample.get("acc_norm"),
            "arguments": [list(pair)[:2] for pair in sample["arguments"]],
            "values": [float(pair[0]) for pair in sample["filtered_resps"]],
        }
        for sample in samples
    ]
    for name, samples in made["samples"].items()
}
with open(given["out"], "w") as stream:
    json.dump({"rows": rows, "version": lm_eval.__version__, "seconds": [sum(one) for one in zip(*spent)]}, stream)
"""


@dataclass
class Agreement:
    """How one task agrees. largest_nats: over all options, after what is explained.

    differing: choices by acc, acc_norm and per token that differ and are no tie (ties: within the numbers' difference).
    acc, acc_norm: right items (the harness's flags, ours). moved: items whose acc_norm choice changes because the
    harness counts the blank that ends the prompt to every option. retokenised: options with other tokens beside it.
    """

    task: str
    items: int = 0
    options: int = 0
    largest_nats: float = 0.0
    ties: int = 0
    differing: list[str] = field(default_factory=list)
    acc: tuple[int, int] = (0, 0)
    acc_norm: tuple[int, int] = (0, 0)
    per_token: int = 0
    moved: int = 0
    retokenised: int = 0


@dataclass(frozen=True)
class Item:
    """Our side of one question. sums: log-likelihood of each option, nats. blank: of the blank that ends the prompt."""

    sums: tuple[float, ...]
    tokens: tuple[int, ...]
    blank: float = 0.0


def harness_python() -> Path:
    """Return the interpreter of the harness's environment, made on the first call. SystemExit where pip cannot."""
    folder = cache_folder() / HARNESS.replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if not done.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)]).returncode
        (inside,) = folder.glob("lib/python3*/site-packages")
        (inside / "peer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", "utf-8")
        if made or subprocess.run([str(python), "-m", "pip", "install", "--quiet", HARNESS]).returncode:
            raise SystemExit(f"pip cannot install {HARNESS}; this benchmark needs a package registry")
        done.write_text(HARNESS, "utf-8")
    return python


def made_up(rows: int) -> list[Example]:
    """Return questions of no meaning in the shapes of the four sets, seeded."""
    random = np.random.default_rng(0)
    words = ["renal", "acute", "left", "fever", "biopsy", "nodule", "serum", "dose", "artery", "chronic", "node",
             "lesion"]  # fmt: skip

    def said(count: int) -> str:
        return " ".join(random.choice(words, count))

    found = []
    for source in ("medqa", "medmcqa", "mmlu_medical", "pubmedqa"):
        for number in range(rows):
            options = tuple(f"{said(int(random.integers(1, 6)))} {index}" for index in range(4))
            texts = [f"Which {said(6)}?"]
            if source == "pubmedqa":
                options, texts = ("yes", "no", "maybe"), [said(30) + "\n", f"Is {said(5)}?"]
            found.append(
                Example(
                    f"{source}-{number:04d}", tuple(map(TextRef, texts)), str(random.choice(options)), options,
                    "choice", "text", "open", source, "CC0-1.0", f"{source}:{number}", "test",
                    attributes={"subject": "anatomy"} if source == "mmlu_medical" else {},
                )
            )  # fmt: skip
    return found


def official_row(row: Example) -> dict[str, Any] | None:
    """Return a row in the fields that the harness's task reads, None where its task cannot ask it."""
    key = row.options.index(row.answer) if row.answer in row.options else -1
    question, four = row.question, len(row.options) == 4
    if row.source == "pubmedqa":
        return {"QUESTION": question, "CONTEXTS": row.texts[0].rstrip("\n").split("\n"), "final_decision": row.answer}
    if row.source == "medqa" and four:
        return {"sent1": question, "sent2": "", **{f"ending{n}": row.options[n] for n in range(4)}, "label": key}
    if row.source == "medmcqa" and four:
        names = dict(zip(("opa", "opb", "opc", "opd"), row.options, strict=True))
        return {"question": question, **names, "cop": key, "choice_type": "single", "exp": ""}
    if row.source in ("mmlu_medical", "mmlu-medical") and four:
        return {"question": question, "choices": list(row.options), "answer": key, "subject": "anatomy"}
    return None


THEIR_TASKS = {
    "medqa": ("medqa_4options", "medqa/medqa.yaml"),
    "medmcqa": ("medmcqa", "medmcqa/medmcqa.yaml"),
    "pubmedqa": ("pubmedqa", "pubmedqa/pubmedqa.yaml"),
    "mmlu_medical": ("mmlu_anatomy", "mmlu/default/mmlu_anatomy.yaml"),
    "mmlu-medical": ("mmlu_anatomy", "mmlu/default/mmlu_anatomy.yaml"),
}


def write_tasks(folder: Path, library: Path, examples: Sequence[Example], prompts: dict[str, str]) -> list[str]:
    """Write the rows and one task per source and one of ours; return the tasks' names."""
    folder.mkdir()
    names = []
    for source in dict.fromkeys(row.source for row in examples):
        rows = [{**made, "id": row.id} for row in examples if row.source == source and (made := official_row(row))]
        if rows:
            name, file = THEIR_TASKS[source]
            _task(folder, f"peer_{name}", rows, f"include: {library / 'tasks' / file}\ndataset_name: null\n")
            names.append(f"peer_{name}")
    rows = [
        {"id": row.id, "prompt": prompts[row.id], "options": list(row.options), "gold": row.options.index(row.answer)}
        for row in examples
    ]
    ours = "output_type: multiple_choice\ndoc_to_text: prompt\ndoc_to_choice: options\ndoc_to_target: gold\n"
    ours += 'target_delimiter: ""\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n'
    _task(folder, f"peer_{OURS}", rows, ours)
    return [*names, f"peer_{OURS}"]


def _task(folder: Path, name: str, rows: Iterable[dict[str, Any]], settings: str) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    text = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\n"
    text += "training_split: null\nvalidation_split: null\nfewshot_split: null\ntest_split: test\n"
    (folder / f"{name}.yaml").write_text(settings + text, "utf-8")


def run_harness(
    checkpoint: Path, work: Path, names: Sequence[str], threads: int | None = None
) -> tuple[dict[str, list[dict[str, Any]]], tuple[float, float]]:
    """Return the harness's samples by task, and how long it scored: seconds by the clock, and of the processors.

    threads: of torch; its own choice by default. SystemExit where the harness ends with an error.
    """
    out = work / "harness.json"
    given = {"checkpoint": str(checkpoint), "tasks": str(work / "tasks"), "names": list(names), "out": str(out),
             "threads": threads}  # fmt: skip
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "cache")}
    settings.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(harness_python()), "-c", _RUN, json.dumps(given)], env=settings, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"the harness failed:\n{done.stderr[-3000:]}")
    found = json.loads(out.read_text("utf-8"))
    return found["rows"], (float(found["seconds"][0]), float(found["seconds"][1]))


def compared(task: str, samples: Sequence[dict[str, Any]], ours: Sequence[Item]) -> Agreement:
    """Hold the harness's samples of a task against our sums of the same options."""
    found = Agreement(task, items=len(samples))
    for sample, item in zip(samples, ours, strict=True):
        theirs, mine = np.array(sample["values"]), np.array(item.sums) + item.blank
        texts = [pair[1] for pair in sample["arguments"]]
        gap = float(np.abs(theirs - mine).max())
        found.options += len(texts)
        found.largest_nats = max(found.largest_nats, gap)
        # acc_norm counts the characters of the choice alone, not of the blank that the harness's tasks put before it
        choices = [text if task == f"peer_{OURS}" else text.removeprefix(" ") for text in texts]
        lengths, tokens = np.array([float(len(choice)) for choice in choices]), np.array(item.tokens)
        gold = _gold(sample["doc"])
        norm = option_values(mine.tolist(), item.tokens, choices, "per character")
        found.moved += int(option_values(item.sums, item.tokens, choices, "per character").argmax() != norm.argmax())
        rules = {
            "acc": (theirs, option_values(mine.tolist(), item.tokens, choices, "raw sum")),
            "acc_norm": (theirs / lengths, norm),
            "per token": ((theirs - item.blank) / tokens, option_values(item.sums, item.tokens, choices, "per token")),
        }
        for rule, (one, other) in rules.items():
            chosen, held = int(one.argmax()), int(other.argmax())
            right = int(held == gold)
            if chosen != held and abs(float(other[chosen] - other[held])) <= 2 * min(gap, LIMIT_NATS):
                found.ties += 1
            elif chosen != held:
                found.differing.append(f"{sample['doc'].get('id')}: {rule}: {texts[chosen]!r}, ours {texts[held]!r}")
            if rule == "acc":
                found.acc = (found.acc[0] + int(sample["acc"]), found.acc[1] + right)
            elif rule == "acc_norm" and sample["acc_norm"] is not None:
                found.acc_norm = (found.acc_norm[0] + int(sample["acc_norm"]), found.acc_norm[1] + right)
            elif rule == "per token":
                found.per_token += right
    return found


def _gold(doc: dict[str, Any]) -> int:
    for name in ("gold", "label", "cop", "answer"):
        if isinstance(doc.get(name), int):
            return int(doc[name])
    return ("yes", "no", "maybe").index(doc["final_decision"])


def scored(engine: Engine, samples: Sequence[dict[str, Any]]) -> list[Item]:
    """Score the harness's own texts by an engine whose template passes them on as they are."""
    found = []
    for sample in samples:
        context = sample["arguments"][0][0]
        options = engine.score(_said(context), [pair[1] for pair in sample["arguments"]]).options
        found.append(Item(tuple(one.logprob_nats for one in options), tuple(one.tokens for one in options)))
    return found


def blank_nats(engine: Engine, prompter: Prompter, example: Example, context: str) -> float:
    """Return the log-likelihood of the blank that ends our prompt, which the harness counts to the option after it."""
    ids = prompter.encode(context[len(context.rstrip()) :])
    rows = log_softmax(engine.prompt_logits(messages_for(example, ())))
    return float(sum(rows[index - len(ids) - 1, token] for index, token in enumerate(ids)))


def _said(text: str) -> tuple[Message, ...]:
    return (Message("user", (TextPart(text),)),)


def retokenised(prompter: Prompter, samples: Sequence[dict[str, Any]]) -> int:
    """Return how many options have other tokens when they are encoded with the prompt, as the harness does."""
    count = 0
    for sample in samples:
        for context, option in sample["arguments"]:
            whole, before = prompter.encode(context + option), prompter.encode(context)
            count += whole[len(before) :] != prompter.encode(option)
    return count


def checkpoints(folder: Path) -> tuple[Path, Path]:
    """Return a tiny random Qwen2 checkpoint, and the same with a template that passes texts on."""
    from infimed.tests.text_models import build_text_checkpoint

    own = build_text_checkpoint(folder / "own", "qwen2", seed=3, vocabulary=640)
    plain = folder / "plain"
    shutil.copytree(own, plain)
    for path in (plain / "tokenizer_config.json", plain / "chat_template.jinja"):
        if path.suffix == ".jinja":
            path.write_text(PASS_ON, "utf-8")
        else:
            settings = json.loads(path.read_text("utf-8"))
            settings.pop("chat_template", None)
            path.write_text(json.dumps(settings), "utf-8")
    return own, plain


def examples_of(folders: Sequence[Path], rows: int) -> list[Example]:
    """Return the first rows of each source that the harness has a task for; made-up ones without a dataset."""
    if not folders:
        return made_up(rows)
    found: dict[str, list[Example]] = {}
    for folder in folders:
        for row in Dataset.open(folder).examples:
            if row.options and row.source in THEIR_TASKS and len(found.setdefault(row.source, [])) < rows:
                found[row.source].append(row.with_role("test"))
    return [row for source in found.values() for row in source]


def run(folders: Sequence[Path], rows: int) -> list[Agreement]:
    """Score all rows in both ways on both sides; return how each task agrees."""
    with tempfile.TemporaryDirectory(prefix="infimed-harness-") as name:
        work = Path(name)
        (library,) = (harness_python().parent.parent).glob("lib/python3*/site-packages/lm_eval")
        own, plain = checkpoints(work)
        data = write_dataset(work / "data", examples_of(folders, rows), {}, name="harness")
        engine = torch_target(own, 1).open()
        prompter = engine.prompter  # type: ignore[attr-defined]
        prompts = {row.id: prompter.render(messages_for(row, ())) for row in data.examples}
        asked = {row.id: row for row in data.examples}
        names = write_tasks(work / "tasks", library, data.examples, prompts)
        samples, _ = run_harness(own, work, names)
        predict(engine, data, work / "runs", "checkpoint", subject=Subject("checkpoint", "checkpoint", "0" * 64, 1))
        mine = {row.example_id: row for row in read_run(work / "runs", "checkpoint").predictions}
        passing = torch_target(plain, 1).open()
        found = []
        for task in names:
            if task == f"peer_{OURS}":
                ours = []
                for sample in samples[task]:
                    key, context = sample["doc"]["id"], sample["arguments"][0][0]
                    blank = blank_nats(engine, prompter, asked[key], context)
                    ours.append(Item(mine[key].option_logprobs_nats, mine[key].option_tokens, blank))
            else:
                ours = scored(passing, samples[task])
            agreement = compared(task, samples[task], ours)
            agreement.retokenised = retokenised(prompter, samples[task])
            found.append(agreement)
        passing.close()
        engine.close()
        return found


def main() -> int:
    """Print how each task agrees; return 1 where a number or a choice differs without a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="datasets of ours with medqa, medmcqa, ...")
    parser.add_argument("--rows", type=int, default=40, help="of each source")
    parser.add_argument("--small", action="store_true", help="six rows of each source")
    parser.add_argument("--json", type=Path, help="write the outcome here too")
    given = parser.parse_args()
    found = run(given.data, 6 if given.small else given.rows)
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    print(f"{HARNESS}, {versions}, float32, one thread; a random Qwen2 checkpoint, so accuracy itself means nothing")
    print("acc, acc_norm: right items, the harness / ours; moved: acc_norm choices that a prompt's last blank changes")
    heads = ("items", "options", "largest nats", "acc", "acc_norm", "ties", "differ", "moved", "retokenised")
    print(f"{'task':20}" + "".join(f"{head:>14}" for head in heads))
    for row in found:
        acc, norm = (f"{one} / {other}" for one, other in (row.acc, row.acc_norm))
        cells = (row.items, row.options, f"{row.largest_nats:.1e}", acc, norm, row.ties, len(row.differing), row.moved)
        print(f"{row.task:20}" + "".join(f"{cell:>14}" for cell in (*cells, row.retokenised)))
        print("".join(f"  {line}\n" for line in row.differing), end="")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n", "utf-8")
    return int(any(row.differing or row.largest_nats > LIMIT_NATS for row in found))


if __name__ == "__main__":
    sys.exit(main())
